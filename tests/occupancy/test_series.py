"""The rows of a space over REST: their order, with or without empty bins, and as files."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rest_framework.test import APIClient

from occupancy import chunks
from occupancy.models import OccupancySpaceChunk
from tests.conftest import body
from tests.occupancy.conftest import CAMPUS, OTHER_FLOOR, OTHER_ROOM, ROOM, SessionsDatabase
from tests.occupancy.test_datasets import JANUARY, Perform, created, results
from tippers import storage

pytestmark = pytest.mark.django_db(transaction=True)

Row = tuple[str, int, int]


@pytest.fixture
def days(api: APIClient, campus: SessionsDatabase, perform_all: Perform) -> dict[str, Any]:
    """A finished dataset from noon to noon three days later, in windows of a day.

    Somebody is in the room all of the 10th and the 12th, and two people in the morning of the 10th;
    on the 11th and the 13th nobody is anywhere.
    """
    campus.execute("TRUNCATE user_ap_trajectory")
    campus.add_sessions(
        [
            ("Y", ROOM, "2024-01-10 00:00", "2024-01-11 00:00"),
            ("Z", ROOM, "2024-01-10 06:00", "2024-01-10 14:30"),
            ("Y", OTHER_ROOM, "2024-01-12 00:00", "2024-01-13 00:00"),
        ]
    )
    dataset = created(
        api, start_time="2024-01-10T12:30:00Z", end_time="2024-01-13T12:00:00Z", chunk_days=1
    )
    perform_all()
    return dataset


SPARSE = [
    (f"2024-01-{day}T{hour:02}:00:00", devices, devices)
    for day, first in ((10, 12), (12, 0))
    for hour in range(first, 24)
    for devices in [2 if day == 10 and hour <= 14 else 1]
]
# The bin from 12 to 13 o'clock overlaps a range that begins at half past.
NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)
HOURS = [f"{NOON + timedelta(hours=n):%Y-%m-%dT%H:%M:%S}" for n in range(72)]
DENSE = [
    dict(zip([time for time, *_ in SPARSE], SPARSE, strict=True)).get(t, (t, 0, 0)) for t in HOURS
]


def pairs(found: dict[str, Any]) -> list[Row]:
    return [
        (row["interval_begin_time"], row["number_connections"], row["number_devices"])
        for row in found["rows"]
    ]


def test_rows_come_in_order_of_time_or_against_it(api: APIClient, days: dict[str, Any]) -> None:
    assert pairs(results(api, days)) == SPARSE
    assert pairs(results(api, days, "?order=interval_begin_time")) == SPARSE
    assert pairs(results(api, days, "?order=-interval_begin_time")) == SPARSE[::-1]
    for skip, limit in ((0, 3), (20, 10), (24, 1), (35, 5), (90, 5)):
        page = results(api, days, f"?order=-interval_begin_time&skip={skip}&limit={limit}")
        assert pairs(page) == SPARSE[::-1][skip : skip + limit]
        assert (page["row_count"], page["total_rows"]) == (len(page["rows"]), len(SPARSE))


def test_a_dense_series_has_every_bin_of_the_range(api: APIClient, days: dict[str, Any]) -> None:
    found = results(api, days, "?fill=zero")
    assert pairs(found) == DENSE
    assert (found["row_count"], found["total_rows"]) == (72, 72)
    assert pairs(results(api, days, "?fill=zero&order=-interval_begin_time")) == DENSE[::-1]
    for order, rows in (("interval_begin_time", DENSE), ("-interval_begin_time", DENSE[::-1])):
        for skip, limit in ((0, 1), (10, 5), (11, 40), (71, 5), (72, 5)):
            page = results(api, days, f"?fill=zero&order={order}&skip={skip}&limit={limit}")
            assert pairs(page) == rows[skip : skip + limit], (order, skip)
            assert page["total_rows"] == 72
    # A space below the root in which nobody ever was.
    assert pairs(results(api, days, f"?fill=zero&space_id={OTHER_FLOOR}")) == [
        (time, 0, 0) for time in HOURS
    ]


def test_a_complete_answer_has_the_reference_s_names_and_ours(
    api: APIClient, days: dict[str, Any]
) -> None:
    found = results(api, days, "?limit=1")
    assert list(found) == [
        "dataset_id", "space_id", "status", "completed_chunks", "total_chunks", "provisional",
        "data_faults", "row_count", "total_rows", "rows",
    ]  # fmt: skip
    assert list(found["rows"][0]) == ["interval_begin_time", "number_connections", "number_devices"]


def test_the_total_stands_in_the_header_too(api: APIClient, days: dict[str, Any]) -> None:
    path = f"/occupancy/datasets/{days['dataset_id']}/results"
    assert api.get(f"{path}?limit=5&fill=zero")["X-Total-Count"] == "72"
    assert api.get(f"{path}?limit=5")["X-Total-Count"] == str(len(SPARSE))


def test_a_dense_page_opens_only_the_files_that_it_needs(
    api: APIClient, days: dict[str, Any]
) -> None:
    second = OccupancySpaceChunk.objects.get(space_id=CAMPUS, chunk_start="2024-01-12T00:00:00Z")
    storage.delete(chunks.storage_key(second))
    assert pairs(results(api, days, "?fill=zero&limit=36")) == DENSE[:36]
    newest = "?fill=zero&order=-interval_begin_time"
    assert pairs(results(api, days, f"{newest}&limit=12")) == DENSE[::-1][:12]
    assert results(api, days, f"{newest}&limit=13")["status"] == "RUNNING"


def test_a_century_of_empty_bins_costs_a_page(
    api: APIClient, sessions_db: SessionsDatabase
) -> None:
    sessions_db.add_spaces({CAMPUS: None})
    wide = {"start_time": "1900-01-01T00:00:00Z", "end_time": "2100-01-01T00:00:00Z"}
    dataset = created(api, **wide, interval_seconds=900, chunk_days=366)
    found = results(api, dataset, "?fill=zero&skip=7000000&limit=2")
    quarter = datetime(1900, 1, 1, tzinfo=UTC) + timedelta(seconds=900) * 7_000_000
    assert pairs(found)[0] == (quarter.replace(tzinfo=None).isoformat(), 0, 0)
    assert found["total_rows"] == (date(2100, 1, 1) - date(1900, 1, 1)).days * 96
    # Without sessions and without a range there are no bins either.
    assert results(api, created(api), "?fill=zero")["rows"] == []


def downloaded(api: APIClient, dataset: dict[str, Any], query: str) -> tuple[Any, bytes]:
    response: Any = api.get(f"/occupancy/datasets/{dataset['dataset_id']}/results?{query}")
    assert response.status_code == 200, response.content
    return response, b"".join(response.streaming_content)


def from_csv(content: bytes) -> list[Row]:
    return [
        (row["interval_begin_time"], int(row["number_connections"]), int(row["number_devices"]))
        for row in csv.DictReader(io.StringIO(content.decode()))
    ]


def from_parquet(content: bytes) -> list[Row]:
    return [
        (row["interval_begin_time"].isoformat(), row["number_connections"], row["number_devices"])
        for row in pq.read_table(pa.BufferReader(content)).to_pylist()
    ]


def test_files_have_the_whole_series_or_the_page(api: APIClient, days: dict[str, Any]) -> None:
    read = {"csv": from_csv, "parquet": from_parquet}
    media = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
    for kind, rows_of in read.items():
        response, content = downloaded(api, days, f"format={kind}&space_id={ROOM}")
        assert rows_of(content) == SPARSE[:12]
        assert response["Content-Type"] == media[kind]
        name = f"occupancy_{days['dataset_id']}_space_{ROOM}.{kind}"
        assert response["Content-Disposition"] == f'attachment; filename="{name}"'
        whole = downloaded(api, days, f"format={kind}&fill=zero&order=-interval_begin_time")
        assert rows_of(whole[1]) == DENSE[::-1]
        page = downloaded(api, days, f"format={kind}&skip=10&limit=4")
        assert rows_of(page[1]) == SPARSE[10:14]
        nobody = downloaded(api, days, f"format={kind}&space_id={OTHER_FLOOR}")
        assert rows_of(nobody[1]) == []
    assert pairs(results(api, days, "?format=json")) == SPARSE


def test_a_file_has_the_type_that_was_asked_for_whatever_is_accepted(
    api: APIClient, days: dict[str, Any]
) -> None:
    path = f"/occupancy/datasets/{days['dataset_id']}/results"
    for accepted in ("application/json", "text/html", "image/png"):
        response = api.get(f"{path}?format=csv", headers={"accept": accepted})
        assert (response.status_code, response["Content-Type"]) == (200, "text/csv")


@pytest.mark.parametrize(
    ("query", "at_fault"),
    [
        ("format=xml", "format"),
        ("format=api", "format"),
        ("order=number_connections", "order"),
        ("fill=one", "fill"),
        ("skip=-1", "skip"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("format=csv&limit=x", "limit"),
    ],
)
def test_a_word_that_is_none_of_the_words_names_the_field(
    api: APIClient, campus: SessionsDatabase, query: str, at_fault: str
) -> None:
    dataset = created(api, **JANUARY)
    response: Any = api.get(f"/occupancy/datasets/{dataset['dataset_id']}/results?{query}")
    assert response.status_code == 400
    assert at_fault in body(response)["errors"]


def test_there_is_no_file_of_what_is_not_complete(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    path = f"/occupancy/datasets/{dataset['dataset_id']}/results?format=csv"
    response = api.get(path)
    assert response.status_code == 409
    assert body(response)["detail"] == (f"Space {CAMPUS} is RUNNING; 0 of 1 chunks are complete.")
    perform_all()
    lost = OccupancySpaceChunk.objects.get(space_id=CAMPUS)
    storage.delete(chunks.storage_key(lost))
    assert api.get(path).status_code == 409
    perform_all()
    assert api.get(path).status_code == 200
    OccupancySpaceChunk.objects.filter(space_id=CAMPUS).update(
        status="FAILED", error_message="The disk is full."
    )
    assert "The disk is full." in body(api.get(path))["detail"]


def test_all_lost_files_are_made_again_together(
    api: APIClient, days: dict[str, Any], perform_all: Perform
) -> None:
    whole = {"start_time": "2024-01-10T00:00:00Z", "end_time": "2024-01-13T00:00:00Z"}
    dataset = created(api, **whole, chunk_days=1)  # of the same chunks
    perform_all()
    rows = pairs(results(api, dataset))
    for each in OccupancySpaceChunk.objects.filter(space_id=CAMPUS):
        storage.delete(chunks.storage_key(each))
    found = results(api, dataset)
    assert (found["completed_chunks"], found["total_chunks"]) == (1, 3)
    perform_all()
    assert pairs(results(api, dataset)) == rows
