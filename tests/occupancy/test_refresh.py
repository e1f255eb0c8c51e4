"""A refresh finds what is not as it was, computes that anew, and leaves everything else alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from occupancy import batches, chunks, datasets
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
from tests.occupancy.test_chunks import claimed_drain
from tests.occupancy.test_datasets import JANUARY, Perform, created, rows
from tippers import storage
from tippers.runs.engine import perform_next
from tippers.runs.models import RunLog

pytestmark = pytest.mark.django_db(transaction=True)

FOUR_DAYS = {
    "start_time": "2024-01-10T00:00:00Z",
    "end_time": "2024-01-14T00:00:00Z",
    "chunk_days": 1,
}
NEW_ROOM, UNTOUCHED_ROOM = 1002, 1011


def refresh(api: APIClient, dataset: dict[str, Any]) -> str:
    """The run's id."""
    answer = api.post(f"/occupancy/datasets/{dataset['dataset_id']}/refresh")
    assert answer.status_code == 202, answer.content
    assert body(answer)["status"] == "STARTED"
    return str(body(answer)["dagster_run_id"])


def completed() -> dict[tuple[int, int], datetime | None]:
    """When the chunk of each space and day of the month was completed; null while it is not."""
    found = OccupancySpaceChunk.objects.all()
    return {
        (each.space_id, each.chunk_start.day): each.completed_at
        if each.status == "COMPLETED"
        else None
        for each in found
    }


def hashes() -> dict[tuple[int, datetime], str | None]:
    """Of all files in which somebody was, as they lie in storage."""
    found = OccupancySpaceChunk.objects.exclude(row_count=0)
    assert not found.exclude(status="COMPLETED").exists()
    assert all(chunks.tables(found))
    return {(each.space_id, each.chunk_start): each.content_hash for each in found}


@pytest.fixture
def busy_campus(campus: SessionsDatabase) -> SessionsDatabase:
    """Every room has the same two sessions on each of the four days."""
    campus.add_spaces({UNTOUCHED_ROOM: OTHER_FLOOR})
    campus.add_sessions(
        (device, room, f"2024-01-{day} 12:00", f"2024-01-{day} 13:{room % 50:02}")
        for day in (10, 11, 12, 13)
        for room in (ROOM, OTHER_ROOM, ATTIC, UNTOUCHED_ROOM)
        for device in ("P", f"Q{room}")
    )
    return campus


def test_only_what_has_other_sessions_is_computed_again_and_equals_a_build_from_scratch(
    api: APIClient, busy_campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **FOUR_DAYS)
    perform_all()
    before = completed()
    assert len(before) == 4 * 8
    busy_campus.execute("""
        INSERT INTO user_ap_trajectory VALUES -- late, in one window and over the edge of two
            ('late', NULL, 1000, '2024-01-10 05:00', '2024-01-10 05:10'),
            ('late', NULL, 1001, '2024-01-11 23:50', '2024-01-12 00:10');
        UPDATE user_ap_trajectory SET mac_address = 'P2'
         WHERE mac_address = 'P' AND space_id = 1010 AND start_time = '2024-01-13 12:00';
        DELETE FROM user_ap_trajectory
         WHERE mac_address = 'Q1000' AND start_time = '2024-01-13 12:00';
        -- a source that has nothing left, and one that has not been there
        DELETE FROM user_ap_trajectory WHERE space_id = 1010 AND start_time::date = '2024-01-11';
    """)
    busy_campus.add_spaces({NEW_ROOM: FLOOR})
    busy_campus.add_sessions([("N", NEW_ROOM, "2024-01-12 03:00", "2024-01-12 04:00")])
    refresh(api, dataset)
    perform_all()
    after = completed()
    changed = {place for place in after if after[place] != before.get(place)}
    expected = {
        (ROOM, 10), (FLOOR, 10),
        (OTHER_ROOM, 11), (FLOOR, 11), (ATTIC, 11), (OTHER_FLOOR, 11),
        (OTHER_ROOM, 12), (NEW_ROOM, 12), (FLOOR, 12),
        (ATTIC, 13), (OTHER_FLOOR, 13), (ROOM, 13), (FLOOR, 13),
    }  # fmt: skip
    expected |= {(space, day) for space in (BUILDING, CAMPUS) for day in (10, 11, 12, 13)}
    assert changed == expected
    assert body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))["status"] == "COMPLETED"
    refreshed = hashes()
    OccupancySpaceChunk.objects.all().delete()
    OccupancyDataset.objects.all().delete()
    for each in list(storage.listed("occupancy/")):
        storage.delete(each.key)
    created(api, **FOUR_DAYS)
    perform_all()
    assert refreshed == hashes()


def test_without_changes_nothing_is_computed_and_the_dataset_stays_complete(
    api: APIClient, busy_campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **FOUR_DAYS)
    perform_all()
    before = completed()
    shown = body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))
    run = refresh(api, dataset)
    perform_all()
    assert completed() == before
    assert body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}")) == shown
    said = RunLog.objects.filter(run_id=run).values_list("message", flat=True)
    assert "0 chunks to compute" in list(said)


def test_a_request_trusts_what_is_final_and_a_refresh_does_not(
    api: APIClient, busy_campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **FOUR_DAYS)
    perform_all()
    before = completed()
    busy_campus.add_sessions([("late", ROOM, "2024-01-10 05:00", "2024-01-10 05:10")])
    again = created(api, **FOUR_DAYS)
    perform_all()
    assert completed() == before
    refresh(api, again)
    perform_all()
    assert rows(api, again, CAMPUS)[0] == ("2024-01-10T05:00:00", 1, 1)


def test_a_session_that_arrives_between_plan_and_pull_costs_one_computation_more(
    api: APIClient, busy_campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **FOUR_DAYS)
    while perform_next("short"):
        pass
    busy_campus.add_sessions([("late", ROOM, "2024-01-10 05:00", "2024-01-10 05:10")])
    perform_all()
    assert rows(api, dataset, CAMPUS)[0] == ("2024-01-10T05:00:00", 1, 1)
    for recomputed in ({(space, 10) for space in (ROOM, FLOOR, BUILDING, CAMPUS)}, set()):
        before = completed()
        refresh(api, dataset)
        perform_all()
        after = completed()
        assert {place for place in after if after[place] != before[place]} == recomputed


def test_what_is_computed_from_older_sessions_while_the_refresh_runs_is_discarded(
    api: APIClient, busy_campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **FOUR_DAYS)
    slow = claimed_drain()
    batch = chunks.claim_sources(slow.token)
    assert batch is not None
    made = batches._made(slow, batch)
    busy_campus.add_sessions([("late", ROOM, "2024-01-10 05:00", "2024-01-10 05:10")])
    refresh(api, dataset)
    while perform_next("short"):
        pass
    taken_away = {ROOM, FLOOR, BUILDING, CAMPUS}
    assert chunks.publish(slow.token, made) == len(made) - len(taken_away)
    with slow.finishing():
        datasets.keep_going()
    perform_all()
    assert rows(api, dataset, CAMPUS)[0] == ("2024-01-10T05:00:00", 1, 1)


def test_a_window_that_is_not_settled_is_refreshed(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    hour = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    campus.add_sessions([("A", ROOM, str(hour), None)])
    dataset = created(
        api, start_time=f"{hour - timedelta(hours=1)}Z", end_time=f"{hour + timedelta(hours=1)}Z"
    )
    perform_all()
    before = OccupancySpaceChunk.objects.get(space_id=ROOM).completed_at
    refresh(api, dataset)
    perform_all()
    after = OccupancySpaceChunk.objects.get(space_id=ROOM).completed_at
    assert before is not None
    assert after is not None
    assert after > before


def test_a_dataset_without_data_finds_what_has_come_meanwhile(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.execute("DELETE FROM user_ap_trajectory")
    known, unknown = created(api, **JANUARY), created(api)
    assert (known["status"], unknown["status"], unknown["start_time"]) == (
        "COMPLETED",
        "COMPLETED",
        None,
    )
    campus.add_sessions([("A", ROOM, "2024-01-10 08:10", "2024-01-10 08:20")])
    for dataset in (known, unknown):
        refresh(api, dataset)
    perform_all()
    for dataset in (known, unknown):
        shown = body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))
        assert (shown["status"], shown["row_count"]) == ("COMPLETED", 1)
        assert rows(api, dataset, CAMPUS) == [("2024-01-10T08:00:00", 1, 1)]


def test_viewers_do_not_refresh(
    api: APIClient, viewer: APIClient, campus: SessionsDatabase
) -> None:
    dataset = created(api, **JANUARY)
    assert viewer.post(f"/occupancy/datasets/{dataset['dataset_id']}/refresh").status_code == 403
