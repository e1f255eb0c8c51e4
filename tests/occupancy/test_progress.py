"""How far a dataset is, space by space, and what is wrong with its data."""

from typing import Any

import pytest
from rest_framework.test import APIClient

from occupancy import datasets
from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.conftest import body
from tests.occupancy.conftest import (
    ATTIC,
    BUILDING,
    CAMPUS,
    FLOOR,
    OTHER_FLOOR,
    OTHER_ROOM,
    ROOM,
    SessionsDatabase,
)
from tests.occupancy.test_datasets import JANUARY, Perform, created, results

pytestmark = pytest.mark.django_db(transaction=True)

BY_NAME = [CAMPUS, BUILDING, FLOOR, ROOM, OTHER_ROOM, OTHER_FLOOR, ATTIC]
SUMS = ("done", "total", "failed", "provisional", "data_faults")


def progress(api: APIClient, dataset: dict[str, Any], query: str = "") -> dict[str, Any]:
    response = api.get(f"/occupancy/datasets/{dataset['dataset_id']}/progress{query}")
    assert response.status_code == 200, response.content
    found: dict[str, Any] = body(response)
    return found


def test_progress_is_told_space_by_space_and_in_all(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("X", ROOM, "2024-01-10 09:30", "2024-01-10 09:00")] * 2)
    campus.add_sessions([("X", ATTIC, "2024-01-10 09:30", "2024-01-10 09:00")])
    dataset = created(api)  # three windows, in the second of which nobody is anywhere
    found = progress(api, dataset)
    assert found["status"] == "RUNNING"
    assert {name: found[name] for name in SUMS} == dict.fromkeys(SUMS, 0) | {"total": 7 * 3}
    perform_all()
    found = progress(api, dataset)
    assert found["status"] == "COMPLETED"
    assert found["dataset_id"] == dataset["dataset_id"]
    assert (found["done"], found["failed"], found["data_faults"]) == (7 * 3, 0, 3)
    assert [space["space_id"] for space in found["spaces"]] == BY_NAME
    assert found["spaces"][3] == {
        "space_id": ROOM,
        "space_name": "space 1000",
        "parent_space_id": FLOOR,
        "done": 3,
        "total": 3,
        "failed": 0,
        "provisional": 0,
        "data_faults": 2,
    }
    for name in SUMS:
        assert found[name] == sum(space[name] for space in found["spaces"])
    assert results(api, dataset, f"?space_id={ROOM}")["data_faults"] == 2


def test_what_waits_is_not_done_and_what_failed_is_told(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    OccupancySpaceChunk.objects.filter(space_id=ROOM).update(
        status="FAILED", error_message="The disk is full."
    )
    OccupancySpaceChunk.objects.filter(space_id=FLOOR).update(status="PENDING")
    found = progress(api, dataset)
    assert (found["done"], found["total"], found["failed"]) == (5, 7, 1)
    at_fault = {space["space_id"] for space in found["spaces"] if space["done"] < space["total"]}
    assert at_fault == {ROOM, FLOOR}
    OccupancySpaceChunk.objects.filter(space_id__in=[FLOOR, CAMPUS]).update(
        status="FAILED", error_message="Space 1000: The disk is full."
    )
    OccupancyDataset.objects.update(status="RUNNING")
    datasets.settle()
    found = progress(api, dataset)
    assert (found["status"], found["error"]) == ("FAILED", "Space 1000: The disk is full.")


def test_progress_comes_in_pages_and_its_sums_do_not(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    path = f"/occupancy/datasets/{dataset['dataset_id']}/progress"
    response = api.get(f"{path}?skip=2&limit=3")
    found = body(response)
    assert [space["space_id"] for space in found["spaces"]] == BY_NAME[2:5]
    assert (found["done"], found["total"], found["total_spaces"]) == (7, 7, 7)
    assert response["X-Total-Count"] == "7"
    assert api.get(f"{path}?limit=0").status_code == 400


def test_only_the_dataset_s_own_windows_count(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    for other in (
        {"interval_seconds": 900},
        {"chunk_days": 1},
        {"start_time": "2024-03-01T00:00Z"},
    ):
        created(api, **other)
    dataset = created(api, root_space_id=FLOOR, **JANUARY)
    perform_all()
    found = progress(api, dataset)
    assert (found["done"], found["total"], found["total_spaces"]) == (3, 3, 3)


def test_windows_that_are_still_open_are_provisional(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("Q", ATTIC, "2024-01-10 11:00", None)])
    dataset = created(api, **JANUARY)
    perform_all()
    found = progress(api, dataset)
    open_ones = {space["space_id"] for space in found["spaces"] if space["provisional"]}
    assert open_ones == {ATTIC, OTHER_FLOOR, BUILDING, CAMPUS}
    assert found["provisional"] == 4
    assert results(api, dataset)["provisional"] is True
    assert results(api, dataset, f"?space_id={ROOM}")["provisional"] is False


def test_a_dataset_without_data_has_nothing_to_do(api: APIClient, campus: SessionsDatabase) -> None:
    dataset = created(api, start_time="2020-01-01T00:00:00Z", end_time="2020-02-01T00:00:00Z")
    found = progress(api, dataset)
    assert (found["status"], found["done"], found["total"]) == ("COMPLETED", 0, 0)
    assert found["total_spaces"] == 7


def test_who_may_look_at_a_dataset_may_see_how_far_it_is(
    api: APIClient, viewer: APIClient, stranger: APIClient, campus: SessionsDatabase
) -> None:
    path = f"/occupancy/datasets/{created(api, **JANUARY)['dataset_id']}/progress"
    assert viewer.get(path).status_code == 200
    assert stranger.get(path).status_code == 401
    assert viewer.post(path).status_code == 405
    assert OccupancyDataset.objects.count() == 1
