"""A year of real sessions, every bin compared with a computation that shares nothing with ours.

The data is not part of this project (it has no licence); where it is missing the test says so.
"""

import io
import os
import time
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
from tests.occupancy.test_datasets import created, results

STORES = Path(__file__).parents[2].parent / "shared" / "data" / "seoul_stores"
SESSIONS = STORES / "user_ap_trajectory.parquet"
CAMPUS, STORE_A, STORE_B = 1, 2, 21
FLOORS = {3, 4, 5, 22, 23}
YEAR = {"start_time": "2017-01-01T00:00:00Z", "end_time": "2018-01-01T00:00:00Z"}

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


def counted_by_duckdb(sessions: pa.Table) -> dict[int, Rows]:
    """Per space: (hour, distinct devices summed over its rooms, distinct devices in all of it).

    All sessions lie in 2017 and last longer than nothing, so the hours of one are those from its
    start to the last microsecond before its end.
    """
    with duckdb.connect() as database:
        database.register("sessions", sessions)
        database.execute(f"CREATE TABLE space AS FROM '{STORES}/space.csv'")
        found = database.execute(
            """
            WITH RECURSIVE tree AS (
                SELECT space_id AS top, space_id FROM space
                UNION ALL
                SELECT tree.top, s.space_id
                  FROM space s JOIN tree ON s.parent_space_id = tree.space_id),
            present AS (
                SELECT DISTINCT space_id, mac_address, unnest(generate_series(
                           date_trunc('hour', start_time),
                           date_trunc('hour', end_time - interval '1 microsecond'),
                           interval '1 hour')) AS hour
                  FROM sessions)
            SELECT tree.top, strftime(hour, '%Y-%m-%dT%H:%M:%S'),
                   count(*), count(DISTINCT mac_address)
              FROM present JOIN tree USING (space_id)
             GROUP BY tree.top, hour ORDER BY tree.top, hour
            """
        ).fetchall()
    by_space: dict[int, Rows] = {}
    for space, hour, connections, devices in found:
        by_space.setdefault(space, []).append((hour, connections, devices))
    return by_space


def served(api: APIClient, dataset: dict[str, Any], space: int) -> Rows:
    """Every row of a space, page by page."""
    found: Rows = []
    while True:
        page = results(api, dataset, f"?space_id={space}&skip={len(found)}&limit=1000")
        assert page["status"] == "COMPLETED", page
        found += [
            (row["interval_begin_time"], row["number_connections"], row["number_devices"])
            for row in page["rows"]
        ]
        if len(found) == page["total_rows"]:
            return found


def test_both_stores_every_floor_and_every_room_equal_an_independent_count(
    api: APIClient, loaded: pa.Table, perform_all: Callable[[], int]
) -> None:
    began = time.perf_counter()
    dataset = created(api, root_space_id=CAMPUS, **YEAR)
    posted = time.perf_counter() - began
    perform_all()
    print(f"POST {posted:.2f} s, all of it {time.perf_counter() - began:.2f} s")  # noqa: T201 - a figure to read with -s
    expected = counted_by_duckdb(loaded)
    assert {CAMPUS, STORE_A, STORE_B} | FLOORS < set(expected)
    assert len(expected) == 32
    for space, wanted in expected.items():
        assert served(api, dataset, space) == wanted, f"space {space}"
