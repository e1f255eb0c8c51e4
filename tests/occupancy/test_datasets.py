"""Occupancy datasets over REST, from the request to the rows."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.conftest import body
from tests.occupancy.conftest import (
    ATTIC,
    BUILDING,
    CAMPUS,
    FLOOR,
    OTHER_ROOM,
    ROOM,
    SessionsDatabase,
)

pytestmark = pytest.mark.django_db(transaction=True)

JANUARY = {"start_time": "2024-01-10T00:00:00Z", "end_time": "2024-01-11T00:00:00Z"}
Perform = Callable[[], int]


def created(api: APIClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": CAMPUS, **fields})
    assert response.status_code == 201, response.content
    dataset: dict[str, Any] = body(response)
    return dataset


def results(api: APIClient, dataset: dict[str, Any], query: str = "") -> dict[str, Any]:
    response = api.get(f"/occupancy/datasets/{dataset['dataset_id']}/results{query}")
    assert response.status_code == 200, response.content
    found: dict[str, Any] = body(response)
    return found


def rows(api: APIClient, dataset: dict[str, Any], space: int) -> list[tuple[str, int, int]]:
    """(hour, connections, devices) of a space of a complete dataset."""
    found = results(api, dataset, f"?space_id={space}")
    assert found["status"] == "COMPLETED", found
    return [
        (row["interval_begin_time"], row["number_connections"], row["number_devices"])
        for row in found["rows"]
    ]


def test_a_new_dataset_is_running_and_has_the_reference_s_fields(
    api: APIClient, campus: SessionsDatabase
) -> None:
    dataset = created(api, description="all of it", **JANUARY)
    assert set(dataset) == {
        "dataset_id", "name", "description", "root_space_id", "start_time", "end_time",
        "interval_seconds", "chunk_days", "status", "dagster_run_id", "storage_path", "row_count",
        "column_stats", "error_message", "created_at", "completed_at",
    }  # fmt: skip
    assert dataset["status"] == "RUNNING"
    assert (dataset["interval_seconds"], dataset["chunk_days"]) == (3600, 30)
    assert dataset["start_time"] == "2024-01-10T00:00:00Z"
    assert dataset["dagster_run_id"] is None
    # 2024-01-10 lies in the window of 30 days from 2023-12-19.
    found = results(api, dataset)
    assert (found["status"], found["completed_chunks"], found["total_chunks"]) == ("RUNNING", 0, 1)
    assert "rows" not in found


def test_rooms_floors_and_the_campus_are_counted(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    assert rows(api, dataset, ROOM) == [
        ("2024-01-10T08:00:00", 1, 1),
        ("2024-01-10T09:00:00", 2, 2),
        ("2024-01-10T10:00:00", 1, 1),
    ]
    assert rows(api, dataset, OTHER_ROOM) == [("2024-01-10T10:00:00", 1, 1)]
    # In hour 10 device A is in two rooms of the floor: two connections, one device.
    assert rows(api, dataset, FLOOR)[2] == ("2024-01-10T10:00:00", 2, 1)
    assert rows(api, dataset, CAMPUS) == [
        ("2024-01-10T08:00:00", 1, 1),
        ("2024-01-10T09:00:00", 2, 2),
        ("2024-01-10T10:00:00", 3, 2),
    ]


def test_a_finished_dataset_says_so_without_anyone_reading_results(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    dataset = body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))
    assert dataset["status"] == "COMPLETED"
    assert dataset["row_count"] == 3
    assert dataset["completed_at"] is not None
    assert dataset["storage_path"].endswith(f"occupancy/spaces/{CAMPUS}/3600")
    (connections,) = [
        each for each in dataset["column_stats"] if each["name"] == "number_connections"
    ]
    assert (connections["min"], connections["max"], connections["mean"]) == (1, 3, 2.0)


def test_chunks_lie_under_the_reference_s_keys(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **JANUARY)
    perform_all()
    paths = OccupancySpaceChunk.objects.filter(space_id=ROOM).values_list("storage_path", flat=True)
    (path,) = paths
    assert str(path).endswith(
        f"/occupancy/spaces/{ROOM}/3600/chunk_20231219T000000_20240118T000000.parquet"
    )


def test_bounds_that_are_left_out_come_from_the_sessions(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api)
    assert dataset["start_time"] == "2024-01-10T08:10:00Z"
    assert dataset["end_time"] == "2024-03-05T12:30:00Z"
    perform_all()
    # The first and the last session's bins are there, though both bounds lie inside them.
    assert [hour for hour, *_ in rows(api, dataset, CAMPUS)] == [
        "2024-01-10T08:00:00",
        "2024-01-10T09:00:00",
        "2024-01-10T10:00:00",
        "2024-03-05T12:00:00",
    ]
    # Three windows; in the one between nobody was there, and nothing is stored for it.
    found = results(api, dataset)
    assert (found["completed_chunks"], found["total_chunks"]) == (3, 3)


def test_times_with_an_offset_are_converted(api: APIClient, campus: SessionsDatabase) -> None:
    dataset = created(api, start_time="2024-01-10T14:30:00+05:00", end_time="2024-01-10T10:30:00")
    assert dataset["start_time"] == "2024-01-10T09:30:00Z"
    assert dataset["end_time"] == "2024-01-10T10:30:00Z"


def test_rows_come_in_pages(api: APIClient, campus: SessionsDatabase, perform_all: Perform) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    found = results(api, dataset, "?skip=1&limit=1")
    assert [row["interval_begin_time"] for row in found["rows"]] == ["2024-01-10T09:00:00"]
    assert (found["row_count"], found["total_rows"]) == (1, 3)


def test_five_hundred_rows_are_the_default(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("Z", ROOM, "2024-01-01 00:00", "2024-02-01 00:00")])
    dataset = created(api, start_time="2024-01-01T00:00:00Z", end_time="2024-02-01T00:00:00Z")
    perform_all()
    found = results(api, dataset)
    assert (found["row_count"], found["total_rows"]) == (500, 31 * 24)
    assert len(found["rows"]) == 500


@pytest.mark.parametrize("root", [CAMPUS, ATTIC])
def test_without_sessions_a_dataset_is_complete_at_once(
    api: APIClient, sessions_db: SessionsDatabase, root: int
) -> None:
    sessions_db.add_spaces({CAMPUS: None, ATTIC: CAMPUS})
    dataset = created(api, root_space_id=root)
    assert (dataset["status"], dataset["row_count"]) == ("COMPLETED", 0)
    assert (dataset["start_time"], dataset["end_time"]) == (None, None)
    found = results(api, dataset)
    assert (found["status"], found["rows"], found["total_chunks"]) == ("COMPLETED", [], 0)


def test_a_range_without_sessions_is_complete_at_once(
    api: APIClient, campus: SessionsDatabase
) -> None:
    dataset = created(api, start_time="2020-01-01T00:00:00Z", end_time="2020-02-01T00:00:00Z")
    assert (dataset["status"], dataset["row_count"]) == ("COMPLETED", 0)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"interval_seconds": 1000}, "interval_seconds"),
        ({"chunk_days": 0}, "chunk_days"),
        ({"chunk_days": 367}, "chunk_days"),
        ({"start_time": "2024-01-11T00:00:00Z", "end_time": "2024-01-11T00:00:00Z"}, "end_time"),
        ({"start_time": "2025-01-01T00:00:00Z"}, "end_time"),  # after the last session
        ({"start_time": "soon"}, "start_time"),
        ({"start_time": "0001-01-01T00:00:00Z", "chunk_days": 366}, "start_time"),
        ({"start_time": "1500-01-01T00:00:00Z", "chunk_days": 1}, "chunk_days"),
        ({"name": ""}, "name"),
        ({"root_space_id": "attic"}, "root_space_id"),
        ({"interval": 3600}, "interval"),
    ],
)
def test_a_bad_request_names_the_field(
    api: APIClient, campus: SessionsDatabase, fields: dict[str, Any], at_fault: str
) -> None:
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": CAMPUS, **fields})
    assert response.status_code == 400, response.content
    assert at_fault in body(response)["errors"]
    assert not OccupancyDataset.objects.exists()


def test_an_unknown_root_is_not_found(api: APIClient, campus: SessionsDatabase) -> None:
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": 77})
    assert response.status_code == 404


def test_a_root_in_a_circle_is_refused(api: APIClient, campus: SessionsDatabase) -> None:
    campus.add_spaces({7: 8, 8: 7})
    response = api.post("/occupancy/datasets", {"name": "d", "root_space_id": 7})
    assert response.status_code == 409


def test_a_space_outside_the_tree_is_not_found(api: APIClient, campus: SessionsDatabase) -> None:
    dataset = created(api, root_space_id=FLOOR, **JANUARY)
    path = f"/occupancy/datasets/{dataset['dataset_id']}/results"
    for outside in (ATTIC, BUILDING, 77):
        assert api.get(f"{path}?space_id={outside}").status_code == 404
    assert api.get(f"{path}?space_id={ROOM}").status_code == 200
    assert api.get(f"{path}?space_id=attic").status_code == 400


def test_datasets_are_listed_newest_first_and_deleted_without_their_chunks(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    old, new = created(api, **JANUARY), created(api, **JANUARY)
    perform_all()
    listed = body(api.get("/occupancy/datasets"))
    assert [each["dataset_id"] for each in listed] == [new["dataset_id"], old["dataset_id"]]
    chunks = OccupancySpaceChunk.objects.count()
    assert api.delete(f"/occupancy/datasets/{old['dataset_id']}").status_code == 204
    assert api.get(f"/occupancy/datasets/{old['dataset_id']}").status_code == 404
    assert OccupancySpaceChunk.objects.count() == chunks > 0


def test_a_dataset_deleted_before_its_planning_harms_nothing(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    api.delete(f"/occupancy/datasets/{dataset['dataset_id']}")
    perform_all()
    assert not OccupancySpaceChunk.objects.exists()


def test_viewers_look_and_analysts_create(
    viewer: APIClient, analyst: APIClient, stranger: APIClient, campus: SessionsDatabase
) -> None:
    asked = {"name": "d", "root_space_id": CAMPUS, **JANUARY}
    assert viewer.post("/occupancy/datasets", asked).status_code == 403
    assert stranger.post("/occupancy/datasets", asked).status_code == 401
    dataset = body(analyst.post("/occupancy/datasets", asked))
    assert viewer.get(f"/occupancy/datasets/{dataset['dataset_id']}/results").status_code == 200


def test_a_space_with_sessions_of_its_own_and_rooms_counts_both(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("B", FLOOR, "2024-01-10 08:30", "2024-01-10 08:40")])
    campus.add_sessions([("A", FLOOR, "2024-01-10 09:30", "2024-01-10 09:40")])
    dataset = created(api, **JANUARY)
    perform_all()
    assert rows(api, dataset, FLOOR) == [
        ("2024-01-10T08:00:00", 2, 2),
        ("2024-01-10T09:00:00", 3, 2),
        ("2024-01-10T10:00:00", 2, 1),
    ]
    assert rows(api, dataset, CAMPUS)[1] == ("2024-01-10T09:00:00", 3, 2)


def test_sessions_that_end_before_they_start_are_counted_as_faults(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("X", ROOM, "2024-01-10 09:30", "2024-01-10 09:00")])
    campus.add_sessions([("X", ATTIC, "2024-01-10 00:30", "2023-12-01 00:00")])
    dataset = created(api, **JANUARY)
    perform_all()
    assert rows(api, dataset, CAMPUS)[1] == ("2024-01-10T09:00:00", 2, 2)
    faults = OccupancySpaceChunk.objects.filter(data_faults__gt=0)
    assert dict(faults.values_list("space_id", "data_faults")) == {ROOM: 1, ATTIC: 1}


def test_a_database_that_does_not_answer_is_503(
    api: APIClient, campus: SessionsDatabase, settings: Settings
) -> None:
    settings.TIPPERS_DB_URL = "postgresql://nobody@127.0.0.1:9/none"
    for response in (
        api.get("/spaces"),
        api.post("/occupancy/datasets", {"name": "d", "root_space_id": CAMPUS}),
    ):
        assert response.status_code == 503
        assert body(response)["code"] == "unavailable"
    settings.TIPPERS_DB_URL = ""
    assert api.get("/spaces").status_code == 503
