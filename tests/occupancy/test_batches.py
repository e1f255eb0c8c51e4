"""Batches that fail are divided until what fails is alone; those that are too much become smaller."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from pytest_django import Settings
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
from tests.occupancy.test_chunks import chunk
from tests.occupancy.test_datasets import JANUARY, Perform, created, results, rows
from tippers.runs.engine import perform_next
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)


def statuses() -> dict[int, str]:
    return dict(OccupancySpaceChunk.objects.values_list("space_id", "status"))


@pytest.mark.parametrize(
    ("bad", "failed"),
    [
        (ROOM, {ROOM, FLOOR, BUILDING, CAMPUS}),
        (ATTIC, {ATTIC, OTHER_FLOOR, BUILDING, CAMPUS}),
        (FLOOR, {FLOOR, BUILDING, CAMPUS}),
    ],
)
def test_a_space_whose_sessions_cannot_be_read_fails_alone(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform, bad: int, failed: set[int]
) -> None:
    campus.add_sessions([("Z", bad, "2024-01-10 07:00", "infinity")])
    dataset = created(api, **JANUARY)
    perform_all()
    found = statuses()
    assert {space for space, status in found.items() if status == "FAILED"} == failed
    assert {found[space] for space in set(found) - failed} == {"COMPLETED"}
    for space in failed - {bad}:
        error = results(api, dataset, f"?space_id={space}")["error"]
        assert error.startswith(f"Space {bad}: ")
        assert "infinity" in error
    shown = body(api.get(f"/occupancy/datasets/{dataset['dataset_id']}"))
    assert (shown["status"], "infinity" in shown["error_message"]) == ("FAILED", True)
    campus.execute("DELETE FROM user_ap_trajectory WHERE mac_address = 'Z'")
    answer = api.post(f"/occupancy/datasets/{dataset['dataset_id']}/retry")
    assert body(answer)["reset"] == len(failed)
    perform_all()
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)
    assert set(OccupancySpaceChunk.objects.values_list("at_once", flat=True)) == {None}


def test_a_chunk_that_takes_ten_workers_with_it_fails_and_its_neighbours_do_not(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    poison = chunk(ROOM).chunk_id
    sizes = []
    while batch := chunks.claim_sources(token := uuid.uuid4()):
        if poison in [each.chunk_id for each in batch.held]:
            sizes.append(len(batch.held))
            chunks.sweep()  # no run has this token: its worker is gone
        else:
            chunks.fail_or_divide(token, "a neighbour that can do no harm", for_good=True)
    # Three rooms with all above them; then one or two of them; then it alone.
    assert sizes == [7, 2, *[1] * (chunks.MAX_LOST_WORKERS - 2)]
    datasets.settle()
    found = results(api, dataset, f"?space_id={ROOM}")
    assert found["status"] == "FAILED"
    assert "10 times" in found["error"]
    assert "Space" in results(api, dataset, f"?space_id={FLOOR}")["error"]


def test_a_batch_that_takes_too_long_is_stopped_and_the_next_ones_are_smaller(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform, settings: Settings
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    settings.CHUNK_TIMEOUT_MIN = timedelta(seconds=0.2)

    def at_once() -> int | None:
        return OccupancyDataset.objects.get(pk=dataset["dataset_id"]).sessions_at_once

    blocker = psycopg2.connect(campus.url)
    blocker.cursor().execute("LOCK TABLE user_ap_trajectory")
    perform_next("long")
    blocker.close()
    failed = OccupancySpaceChunk.objects.exclude(error_message=None)
    assert failed.exists()
    for each in failed:
        assert "TooLong: It took longer than 0:00:00.2" in (each.error_message or "")
    assert at_once() in {chunks.BATCH_SESSIONS // 2**times for times in range(1, 6)}
    settings.CHUNK_TIMEOUT_MIN = timedelta(seconds=300)
    OccupancySpaceChunk.objects.update(not_before=datetime.now(UTC))
    datasets.tick()
    perform_all()
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)
    while at_once() is not None:  # each that is completed lets them grow again
        chunks.take_more([dataset["dataset_id"]])


def test_a_dataset_whose_batches_are_halved_is_claimed_and_pulled_in_halves(
    api: APIClient, campus: SessionsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "BATCH_SESSIONS", 4)
    monkeypatch.setattr(chunks, "FEWEST_SESSIONS", 1)
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    chunks.take_less([dataset["dataset_id"]])
    batch = chunks.claim_sources(uuid.uuid4())
    assert batch is not None
    # Two sessions in the first room reach the limit of two.
    assert [each.space_id for each in batch.held] == [ROOM]
    assert batch.sessions_at_once == 2
    chunks.take_less([dataset["dataset_id"]])
    chunks.take_less([dataset["dataset_id"]])
    assert OccupancyDataset.objects.get().sessions_at_once == chunks.FEWEST_SESSIONS


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], 300),
        ([100, 50], 300),  # twice the mean is less than the minimum
        ([400, 800], 1200),
    ],
)
def test_the_time_limit_follows_what_such_chunks_took_of_late(
    db: None, settings: Settings, durations: list[int], expected: int
) -> None:
    now = datetime.now(UTC)

    def add(space: int, seconds: int, **fields: Any) -> None:
        started = fields.pop("started_at", now - timedelta(days=1))
        OccupancySpaceChunk.objects.create(
            **{
                "space_id": space,
                "interval_seconds": 3600,
                "chunk_start": now,
                "chunk_end": now,
                "space_type": "source",
                "status": "COMPLETED",
                "created_at": now - timedelta(days=20),  # waiting is not running
                "started_at": started,
                "completed_at": started + timedelta(seconds=seconds),
                **fields,
            }
        )

    for number, seconds in enumerate(durations):
        add(number, seconds)
    # Of another width, kind or state, or from before the time looked back.
    add(90, 9000, interval_seconds=900)
    add(91, 9000, space_type="derived")
    add(92, 9000, status="FAILED")
    add(93, 9000, started_at=now - timedelta(days=40))
    assert chunks.time_limit(3600, "source") == timedelta(seconds=expected)


def test_a_small_dataset_does_not_wait_behind_a_huge_one(
    api: APIClient, campus: SessionsDatabase
) -> None:
    campus.add_sessions([("Z", OTHER_ROOM, "2024-01-10 00:00", "2024-03-10 00:00")])
    huge = created(api, chunk_days=1, root_space_id=FLOOR)
    while perform_next("short"):
        pass
    for _ in range(3):
        first = chunks.claim_sources(uuid.uuid4())
        assert first is not None
        assert first.held[0].dataset_id == huge["dataset_id"]
    small = created(api, root_space_id=ATTIC, **JANUARY)
    while perform_next("short"):
        pass
    turns = [chunks.claim_sources(uuid.uuid4()) for _ in range(2)]
    assert [turn and turn.held[0].dataset_id for turn in turns] == [
        small["dataset_id"],
        huge["dataset_id"],
    ]


def test_a_large_dataset_gives_its_slot_up_after_a_while(
    api: APIClient, campus: SessionsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that waits in the same queue, of whatever kind, is next; the drain goes on after it."""
    monkeypatch.setattr(batches, "YIELD_AFTER_S", -1)
    created(api, chunk_days=1)
    while perform_next("short"):
        pass
    waiting = Run.objects.create(job="occupancy_drain", queue="long", key="another", args={})
    assert perform_next("long")
    drains = Run.objects.filter(queue="long", status="PENDING").order_by("not_before")
    assert [run.key for run in drains] == [waiting.key, "occupancy_drain:0"]
