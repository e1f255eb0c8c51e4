"""A plan goes block by block: what it has written is computed while it counts the next."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from django.db import connection
from rest_framework.test import APIClient

from occupancy import planning, sessions
from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.occupancy.conftest import BUILDING, CAMPUS, FLOOR, OTHER_ROOM, ROOM, SessionsDatabase
from tests.occupancy.test_chunks import without_sessions_table
from tests.occupancy.test_datasets import Perform, created, results, rows
from tests.occupancy.test_refresh import refresh
from tippers.partitions import Window, aligned_windows
from tippers.runs.engine import perform_next


def january_to_march() -> dict[str, str]:
    """Three windows of 30 days, in blocks of one and two; nobody is there in the middle one."""
    return {"start_time": "2024-01-10T00:00:00Z", "end_time": "2024-03-06T00:00:00Z"}


@pytest.fixture
def before_the_last_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have another worker do something when a plan is about to count a block of two windows."""
    count = sessions.counted

    def install(something: Callable[[], None]) -> None:
        def do() -> None:
            something()
            connection.close()

        def counted(space_ids: Any, windows: Any, **options: Any) -> pa.Table:
            if len(windows) == 2:
                worker = threading.Thread(target=do)
                worker.start()
                worker.join(timeout=60)
            return count(space_ids, windows, **options)

        monkeypatch.setattr(sessions, "counted", counted)

    return install


def chunks_of(month: int) -> set[tuple[int, str]]:
    moment = datetime(2024, month, 5, tzinfo=UTC)
    found = OccupancySpaceChunk.objects.filter(chunk_start__lte=moment, chunk_end__gt=moment)
    return set(found.values_list("space_id", "status"))


@pytest.mark.django_db(transaction=True)
def test_the_first_window_is_computed_before_the_last_is_counted(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    before_the_last_block: Callable[[Callable[[], None]], None],
) -> None:
    seen: list[Any] = []

    def meanwhile() -> None:
        seen.append({status for _, status in chunks_of(1)})
        perform_all()
        seen.append({status for _, status in chunks_of(1)})
        seen.append(chunks_of(3))
        found = results(api, dataset)
        seen.append((found["status"], found["completed_chunks"], found["total_chunks"]))

    dataset = created(api, **january_to_march())
    before_the_last_block(meanwhile)
    perform_all()
    assert seen == [{"PENDING"}, {"COMPLETED"}, set(), ("RUNNING", 1, 3)]
    assert len(rows(api, dataset, CAMPUS)) == 4


@pytest.mark.django_db(transaction=True)
def test_what_failed_before_fails_no_dataset_that_is_being_planned(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    before_the_last_block: Callable[[Callable[[], None]], None],
) -> None:
    seen: list[Any] = []

    def meanwhile() -> None:
        perform_all()
        seen.append(chunks_of(3))
        dataset = OccupancyDataset.objects.latest("dataset_id")
        seen.append((dataset.status, results(api, {"dataset_id": dataset.pk})["status"]))

    created(api, **january_to_march())
    while perform_next("short"):
        pass
    restore = without_sessions_table(campus)
    perform_all()
    restore()
    later = created(api, **january_to_march())
    before_the_last_block(meanwhile)
    perform_all()
    failed = {(space, "FAILED") for space in (ROOM, FLOOR, BUILDING, CAMPUS)}
    assert seen == [failed, ("RUNNING", "RUNNING")]
    assert len(rows(api, later, CAMPUS)) == 4


@pytest.mark.django_db(transaction=True)
def test_a_dataset_is_complete_only_when_its_refresh_has_counted_all(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    before_the_last_block: Callable[[Callable[[], None]], None],
) -> None:
    seen: list[Any] = []

    def meanwhile() -> None:
        perform_all()
        seen.append({status for _, status in chunks_of(1)})
        seen.append(OccupancyDataset.objects.get(pk=dataset["dataset_id"]).status)

    dataset = created(api, **january_to_march())
    perform_all()
    campus.add_sessions(
        [
            ("late", OTHER_ROOM, f"2024-0{month}-05 05:00", f"2024-0{month}-05 05:10")
            for month in (1, 3)
        ]
    )
    refresh(api, dataset)
    before_the_last_block(meanwhile)
    perform_all()
    assert seen == [{"COMPLETED"}, "RUNNING"]
    assert results(api, dataset)["status"] == "COMPLETED"
    assert ("2024-03-05T05:00:00", 1, 1) in rows(api, dataset, OTHER_ROOM)


# --- pure -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spaces", "sizes"),
    [(1, [1, 2, 4, 8, 16, 9]), (planning.PLANNED_AT_ONCE // 5, [1, 2, 4, *[5] * 6, 3])]
    + [(spaces, [1] * 40) for spaces in (planning.PLANNED_AT_ONCE, 10**9)],
)
def test_blocks_grow_up_to_what_is_planned_at_once(spaces: int, sizes: list[int]) -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    windows = aligned_windows(begin, begin + timedelta(days=40), width=timedelta(days=1))
    blocks = planning.blocks(windows, spaces=spaces)
    assert [len(block) for block in blocks] == sizes
    everything: list[Window] = [window for block in blocks for window in block]
    assert everything == windows


def test_all_above_a_source_is_planned_once_and_derived() -> None:
    found = pa.table(
        {
            "space_id": [ROOM, OTHER_ROOM, FLOOR, ROOM],
            "window": [0, 0, 0, 2],
            "sessions": [5, 6, 7, 8],
            "fingerprint": ["a", "b", "c", "d"],
        }
    )
    parents = {CAMPUS: None, FLOOR: CAMPUS, ROOM: FLOOR, OTHER_ROOM: FLOOR}
    wanted = planning.planned(found, parents=parents)
    places = zip(wanted.windows.tolist(), wanted.space_ids.tolist(), strict=True)
    what = zip(wanted.derived, wanted.sessions.tolist(), wanted.fingerprints, strict=True)
    assert dict(zip(places, what, strict=True)) == {
        (0, ROOM): (False, 5, "a"),
        (0, OTHER_ROOM): (False, 6, "b"),
        (0, FLOOR): (True, 7, "c"),
        (0, CAMPUS): (True, 0, None),
        (2, ROOM): (False, 8, "d"),
        (2, FLOOR): (True, 0, None),
        (2, CAMPUS): (True, 0, None),
    }
