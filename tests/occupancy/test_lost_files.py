"""Files of chunks that are gone, or another's, are made again; everything else goes on meanwhile."""

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from occupancy import chunks, datasets
from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.conftest import body
from tests.occupancy.conftest import BUILDING, CAMPUS, FLOOR, ROOM, SessionsDatabase
from tests.occupancy.test_chunks import chunk
from tests.occupancy.test_datasets import JANUARY, Perform, created, results, rows
from tippers import storage

pytestmark = pytest.mark.django_db(transaction=True)

OF_THE_CAMPUS = [
    ("2024-01-10T08:00:00", 1, 1),
    ("2024-01-10T09:00:00", 2, 2),
    ("2024-01-10T10:00:00", 3, 2),
]


def lose(*spaces: int) -> None:
    for space in spaces:
        storage.delete(chunks.storage_key(chunk(space)))


def test_results_are_running_while_a_lost_file_is_made_again(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    lose(CAMPUS)
    found = results(api, dataset)
    assert (found["status"], found["completed_chunks"], found["total_chunks"]) == ("RUNNING", 0, 1)
    perform_all()
    assert rows(api, dataset, CAMPUS) == OF_THE_CAMPUS
    assert body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))["status"] == "COMPLETED"


def test_a_storage_that_was_moved_is_filled_again(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    settings: Settings,
    tmp_path: Path,
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    default: dict[str, Any] = {
        **settings.STORAGES["default"],
        "OPTIONS": {"location": str(tmp_path / "elsewhere")},
    }
    settings.STORAGES = {**settings.STORAGES, "default": default}
    # Another dataset above the same chunks, and one of other windows, whose turn comes all the same.
    second = created(api, **JANUARY, name="again")
    march = created(api, start_time="2024-03-05T00:00:00Z", end_time="2024-03-06T00:00:00Z")
    perform_all()
    for each in (second, march):
        shown = body(api.get(f"/occupancy/datasets/{each['dataset_id']}"))
        assert shown["status"] == "COMPLETED", shown
    assert rows(api, second, CAMPUS) == OF_THE_CAMPUS
    assert rows(api, march, CAMPUS) == [("2024-03-05T12:00:00", 1, 1)]
    assert rows(api, dataset, ROOM)[1] == ("2024-01-10T09:00:00", 2, 2)


def test_what_is_summed_from_a_lost_file_waits_for_it_and_does_not_fail(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, root_space_id=FLOOR, **JANUARY)
    perform_all()
    lose(FLOOR, ROOM)
    dataset = created(api, **JANUARY)
    perform_all()
    assert rows(api, dataset, CAMPUS) == OF_THE_CAMPUS
    assert [chunk(space).failures for space in (ROOM, FLOOR, BUILDING, CAMPUS)] == [0, 0, 0, 0]


def test_an_old_file_that_comes_late_is_not_taken_for_the_new_one(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    perform_all()
    other = storage.read_bytes(chunks.storage_key(chunk(ROOM)))
    storage.put_bytes(chunks.storage_key(chunk(CAMPUS)), other)
    assert results(api, dataset)["status"] == "RUNNING"
    perform_all()
    assert rows(api, dataset, CAMPUS) == OF_THE_CAMPUS


def test_a_file_that_was_published_anew_meanwhile_is_left_alone(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **JANUARY)
    perform_all()
    as_read = chunk(CAMPUS)
    as_read.content_hash = "what it was before"
    assert chunks.compute_again(chunks.Lost([as_read])) == 0
    assert chunk(CAMPUS).status == "COMPLETED"


def test_one_dataset_with_lost_files_does_not_stop_the_tick(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    first = created(api, **JANUARY)
    perform_all()
    lose(CAMPUS)
    OccupancyDataset.objects.filter(pk=first["dataset_id"]).update(status="RUNNING")
    datasets.tick()
    perform_all()
    assert body(api.get(f"/occupancy/datasets/{first['dataset_id']}"))["status"] == "COMPLETED"


def test_a_page_opens_only_the_files_that_it_needs(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.add_sessions([("Z", ROOM, "2024-01-10 00:00", "2024-01-14 00:00")])
    dataset = created(
        api, start_time="2024-01-10T12:00:00Z", end_time="2024-01-13T12:00:00Z", chunk_days=1
    )
    perform_all()
    whole = results(api, dataset)["rows"]
    assert len(whole) == 72
    for skip, limit in ((0, 5), (10, 30), (34, 40), (70, 10), (80, 5)):
        found = results(api, dataset, f"?skip={skip}&limit={limit}")
        assert found["rows"] == whole[skip : skip + limit]
        assert found["total_rows"] == 72
    # The 12th lies inside the range, and the first page ends before it.
    inside = OccupancySpaceChunk.objects.get(space_id=CAMPUS, chunk_start="2024-01-12T00:00:00Z")
    storage.delete(chunks.storage_key(inside))
    assert results(api, dataset, "?limit=36")["rows"] == whole[:36]
    assert results(api, dataset, "?limit=37")["status"] == "RUNNING"
