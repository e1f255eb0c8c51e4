"""A year of real sessions, every bin compared with a computation that shares nothing with ours.

The data is not part of this project (it has no licence); where it is missing the test says so.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from rest_framework.test import APIClient

from tests.occupancy.conftest import SessionsDatabase
from tests.occupancy.test_datasets import created

STORES = Path(__file__).parents[2].parent / "shared" / "data" / "seoul_stores"
SESSIONS = STORES / "user_ap_trajectory.parquet"
CAMPUS = 1

Rows = list[tuple[str, int, int]]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def loaded(sessions_db: SessionsDatabase) -> pa.Table:
    """The sessions, in the database as well; times are UTC without a zone in both."""
    if not SESSIONS.exists():
        sentence = f"The store sessions are not at {STORES}."
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    table = pq.read_table(SESSIONS)
    for name in ("start_time", "end_time"):
        times = table[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        table = table.set_column(
            table.schema.get_field_index(name), name, times.cast(pa.timestamp("us"))
        )
    text = io.BytesIO()
    pa_csv.write_csv(table, text)
    text.seek(0)
    with sessions_db.connection.cursor() as cursor, (STORES / "space.csv").open() as spaces:
        cursor.copy_expert("COPY space FROM STDIN CSV HEADER", spaces)
        columns = ", ".join(table.column_names)
        cursor.copy_expert(f"COPY user_ap_trajectory ({columns}) FROM STDIN CSV HEADER", text)
        cursor.execute("ANALYZE")
    return table


def counted_by_duckdb(sessions: pa.Table, seconds: int, begin: str, end: str) -> dict[int, Rows]:
    """Per space: (bin, distinct devices summed over its rooms, distinct devices in all of it).

    All sessions last longer than nothing, so the bins of one are those from its start to the last
    microsecond before its end. The range begins and ends with a bin.
    """
    with duckdb.connect() as database:
        database.register("sessions", sessions)
        database.execute(f"CREATE TABLE space AS FROM '{STORES}/space.csv'")
        width = f"interval '{seconds} seconds'"
        found = database.execute(
            f"""
            WITH RECURSIVE tree AS (
                SELECT space_id AS top, space_id FROM space
                UNION ALL
                SELECT tree.top, s.space_id
                  FROM space s JOIN tree ON s.parent_space_id = tree.space_id),
            present AS (
                SELECT DISTINCT space_id, mac_address, unnest(generate_series(
                           time_bucket({width}, start_time, timestamp '1970-01-01'),
                           end_time - interval '1 microsecond', {width})) AS bin
                  FROM sessions)
            SELECT tree.top, strftime(bin, '%Y-%m-%dT%H:%M:%S'),
                   count(*), count(DISTINCT mac_address)
              FROM present JOIN tree USING (space_id)
             WHERE bin >= timestamp '{begin}' AND bin < timestamp '{end}'
             GROUP BY tree.top, bin ORDER BY tree.top, bin
            """
        ).fetchall()
    by_space: dict[int, Rows] = {}
    for space, bin_, connections, devices in found:
        by_space.setdefault(space, []).append((bin_, connections, devices))
    return by_space


def served(api: APIClient, dataset: dict[str, Any], space: int) -> Rows:
    """Every row of a space."""
    path = f"/occupancy/datasets/{dataset['dataset_id']}/results?space_id={space}&format=parquet"
    response: Any = api.get(path)
    assert response.status_code == 200, response.content
    table = pq.read_table(pa.BufferReader(b"".join(response.streaming_content)))
    begin, connections, devices = (column.to_pylist() for column in table.columns)
    return list(zip([f"{at:%Y-%m-%dT%H:%M:%S}" for at in begin], connections, devices, strict=True))


# Bin, window in days, range, spaces with anybody in them: the year's hours; a month's quarters of
# an hour; half a year's days.
ASKED = [
    (3600, 30, "2017-01-01", "2018-01-01", 32),
    (900, 7, "2017-03-01", "2017-04-01", 32),
    (86400, 90, "2017-06-01", "2017-12-01", 26),
]


def test_both_stores_every_floor_and_every_room_equal_an_independent_count(
    api: APIClient, loaded: pa.Table, perform_all: Callable[[], int]
) -> None:
    spaces = pa_csv.read_csv(STORES / "space.csv")["space_id"].to_pylist()
    for seconds, chunk_days, begin, end, anybody in ASKED:
        dataset = created(
            api,
            root_space_id=CAMPUS,
            interval_seconds=seconds,
            chunk_days=chunk_days,
            start_time=f"{begin}T00:00:00Z",
            end_time=f"{end}T00:00:00Z",
        )
        perform_all()
        expected = counted_by_duckdb(loaded, seconds, begin, end)
        assert len(expected) == anybody
        for space in spaces:
            assert served(api, dataset, space) == expected.get(space, []), (space, seconds)
