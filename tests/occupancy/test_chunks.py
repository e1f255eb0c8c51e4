"""Chunks: shared, computed once, fenced, put back and failed."""

import hashlib
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from pytest_django import Settings
from rest_framework.test import APIClient

from occupancy import batches, chunks, datasets, sessions
from occupancy.chunks import Known, ready_above
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
from tests.occupancy.test_datasets import JANUARY, Perform, created, results, rows
from tippers import storage
from tippers.runs import claims
from tippers.runs.engine import RunHandle, perform, perform_next
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)


def computations() -> int:
    """How many chunks were computed so far, again or for the first time."""
    jobs = Run.objects.filter(job__in=["occupancy_drain", "occupancy_rollup"])
    return jobs.aggregate(n=Sum("progress_done"))["n"] or 0


def chunk(space: int, month: int = 1) -> OccupancySpaceChunk:
    """The chunk of a space in the window in which the 10th of that month lies."""
    moment = datetime(2024, month, 10, tzinfo=UTC)
    return OccupancySpaceChunk.objects.get(
        space_id=space, chunk_start__lte=moment, chunk_end__gt=moment
    )


def claimed_drain() -> RunHandle:
    """A drain that a worker has claimed and not begun."""
    while perform_next("short"):
        pass
    run = claims.claim("long", "worker that will stall")
    assert run is not None
    return RunHandle(run)


# --- reuse ------------------------------------------------------------------------------------


def test_a_second_dataset_reuses_what_the_first_computed(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **JANUARY)
    perform_all()
    # Three rooms, two floors, the building, the campus.
    assert computations() == 7
    second = created(api, root_space_id=FLOOR, start_time="2024-01-05T00:00:00Z",
                     end_time="2024-01-11T00:00:00Z")  # fmt: skip
    perform_all()
    assert computations() == 7
    assert len(rows(api, second, FLOOR)) == 3
    assert OccupancyDataset.objects.get(pk=second["dataset_id"]).status == "COMPLETED"


def test_a_wider_range_computes_only_the_windows_that_are_new(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **JANUARY)
    perform_all()
    wide = created(api)
    perform_all()
    # In March only one room has sessions: it, its floor, the building, the campus.
    assert computations() == 7 + 4
    assert len(rows(api, wide, CAMPUS)) == 4


def test_another_width_or_interval_shares_nothing(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, **JANUARY)
    created(api, **JANUARY, chunk_days=10)
    created(api, **JANUARY, interval_seconds=900)
    perform_all()
    assert computations() == 3 * 7


def test_sources_are_those_of_the_whole_window_and_not_of_the_range(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    """A chunk that a narrow request made must be right for a wide one."""
    campus.add_sessions([("D", OTHER_ROOM, "2024-01-02 08:00", "2024-01-02 08:30")])
    narrow = created(api, **JANUARY)
    perform_all()
    wide = created(api, start_time="2024-01-01T00:00:00Z", end_time="2024-01-12T00:00:00Z")
    perform_all()
    assert computations() == 7
    assert rows(api, wide, CAMPUS)[0] == ("2024-01-02T08:00:00", 1, 1)
    assert rows(api, narrow, CAMPUS)[0][0] == "2024-01-10T08:00:00"


def test_a_dataset_above_one_that_is_there_builds_on_its_chunks(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    created(api, root_space_id=FLOOR, **JANUARY)
    perform_all()
    assert computations() == 3
    above = created(api, **JANUARY)
    perform_all()
    assert computations() == 7
    assert rows(api, above, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)


def test_a_room_that_comes_later_brings_what_is_above_it_up_to_date(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    first = created(api, **JANUARY)
    perform_all()
    campus.add_spaces({1002: FLOOR})
    campus.add_sessions([("E", 1002, "2024-01-10 10:00", "2024-01-10 11:00")])
    created(api, **JANUARY)
    perform_all()
    # The new room, its floor, the building, the campus; every other chunk is final and stays.
    assert computations() == 7 + 4
    assert rows(api, first, CAMPUS)[2] == ("2024-01-10T10:00:00", 4, 3)
    assert OccupancyDataset.objects.get(pk=first["dataset_id"]).status == "COMPLETED"


def test_a_window_that_is_not_settled_is_computed_again(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    hour = now.replace(minute=0, second=0, microsecond=0)
    campus.add_sessions([("A", ROOM, str(hour), str(hour + timedelta(minutes=1)))])
    asked = {"start_time": f"{hour}Z", "end_time": f"{hour + timedelta(hours=1)}Z"}
    first = created(api, **asked)
    perform_all()
    assert rows(api, first, CAMPUS) == [(hour.isoformat(), 1, 1)]
    campus.add_sessions([("B", ROOM, str(hour), str(hour + timedelta(minutes=2)))])
    second = created(api, **asked)
    perform_all()
    assert rows(api, second, CAMPUS) == [(hour.isoformat(), 2, 2)]
    assert rows(api, first, CAMPUS) == [(hour.isoformat(), 2, 2)]
    assert all(OccupancySpaceChunk.objects.values_list("provisional", flat=True))


def test_an_open_session_keeps_a_past_window_provisional(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    campus.execute(
        "INSERT INTO user_ap_trajectory VALUES ('F', NULL, %s, '2024-01-17 22:30', NULL)", [ATTIC]
    )
    dataset = created(api, start_time="2024-01-17T00:00:00Z", end_time="2024-01-18T00:00:00Z")
    perform_all()
    assert [hour for hour, *_ in rows(api, dataset, ATTIC)] == [
        "2024-01-17T22:00:00",
        "2024-01-17T23:00:00",
    ]
    provisional = OccupancySpaceChunk.objects.filter(provisional=True)
    above = {ATTIC, OTHER_FLOOR, BUILDING, CAMPUS}
    assert set(provisional.values_list("space_id", flat=True)) == above


# --- fences -----------------------------------------------------------------------------------


def test_a_drain_that_lost_its_lease_publishes_nothing(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    stalled = claimed_drain()
    batch = chunks.claim_sources(stalled.token)
    assert batch is not None
    made = batches._made(stalled, batch)
    # The worker stands still; its lease runs out, and another one does the work.
    Run.objects.filter(pk=stalled.run_id).update(lease_until=datetime(2020, 1, 1, tzinfo=UTC))
    claims.sweep()
    datasets.tick()
    campus.add_sessions([("Z", ROOM, "2024-01-10 08:00", "2024-01-10 08:05")])
    perform_all()
    published = {each.space_id: each.content_hash for each in OccupancySpaceChunk.objects.all()}
    # The worker wakes up.
    assert chunks.publish(stalled.token, made) == 0
    assert rows(api, dataset, ROOM)[0] == ("2024-01-10T08:00:00", 2, 2)
    for each in OccupancySpaceChunk.objects.all():
        assert each.status == "COMPLETED"
        assert each.content_hash == published[each.space_id]
        assert hashlib.sha256(
            storage.read_bytes(chunks.storage_key(each))
        ).hexdigest() == each.content_hash  # fmt: skip


def test_chunks_of_a_worker_that_died_are_done_by_another(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    dead = claimed_drain()
    assert chunks.claim_sources(dead.token) is not None
    assert chunks.sweep() == 0  # its run is alive as far as anyone knows
    Run.objects.filter(pk=dead.run_id).update(lease_until=datetime(2020, 1, 1, tzinfo=UTC))
    claims.sweep()
    datasets.tick()
    perform_all()
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)
    assert set(OccupancySpaceChunk.objects.values_list("attempt", flat=True)) == {2}


def test_what_a_drain_leaves_undone_the_roll_up_does(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a batch for every room, no batch has all of a floor, and files are summed instead."""
    monkeypatch.setattr(chunks, "BATCH_SESSIONS", 1)
    campus.add_sessions([("B", FLOOR, "2024-01-10 08:30", "2024-01-10 08:40")])
    dataset = created(api, **JANUARY)
    perform_all()
    assert Run.objects.filter(job="occupancy_rollup", status="SUCCESS").exists()
    assert rows(api, dataset, FLOOR) == [
        ("2024-01-10T08:00:00", 2, 2),
        ("2024-01-10T09:00:00", 2, 2),
        ("2024-01-10T10:00:00", 2, 1),
    ]
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)
    # Later batches reset nothing: the roll-up's hashes are those of what it read.
    created(api, **JANUARY)
    before = computations()
    perform_all()
    assert computations() == before


def test_a_room_that_comes_while_its_floor_is_computed_is_not_left_out(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    slow = claimed_drain()
    batch = chunks.claim_sources(slow.token)
    assert batch is not None
    made = batches._made(slow, batch)
    campus.add_spaces({1002: FLOOR, 10000: ATTIC})
    campus.add_sessions([("E", 1002, "2024-01-10 10:00", "2024-01-10 11:00")])
    campus.add_sessions([("E", 10000, "2024-01-10 10:00", "2024-01-10 11:00")])
    created(api, **JANUARY)
    while perform_next("short"):
        pass
    # Two rooms of seven chunks; the attic is no mere room any more, and all else is above news.
    assert chunks.publish(slow.token, made) == 2
    with slow.finishing():
        datasets.keep_going()
    perform_all()
    assert rows(api, dataset, FLOOR)[2] == ("2024-01-10T10:00:00", 3, 2)
    assert rows(api, dataset, ATTIC)[0] == ("2024-01-10T10:00:00", 2, 2)
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 5, 3)


def test_datasets_take_turns(
    api: APIClient, campus: SessionsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = created(api, chunk_days=1)
    small = created(api, **JANUARY, root_space_id=ATTIC)
    while perform_next("short"):
        pass
    turns = []
    while batch := chunks.claim_sources(uuid.uuid4()):
        turns.append(batch.held[0].dataset_id)
    assert turns[:2] == [large["dataset_id"], small["dataset_id"]]


def test_a_drain_and_a_roll_up_that_end_at_once_do_not_wait_for_each_other(
    api: APIClient, campus: SessionsDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each launches the other, under the key of the run that is just ending."""
    created(api)
    while perform_next("short"):
        pass
    # Nothing is computed; sources wait in March, and floors above complete rooms in January.
    monkeypatch.setattr(batches, "YIELD_AFTER_S", -1)
    rooms = OccupancySpaceChunk.objects.filter(space_type="source")
    rooms.filter(chunk_end__lt=datetime(2024, 2, 1, tzinfo=UTC)).update(status="COMPLETED")
    datasets.nudge_roll_up()
    ending = [claims.claim("long", "one"), claims.claim("short", "other")]
    assert [run.key for run in ending if run] == ["occupancy_drain:0", "occupancy_rollup"]
    both_there = threading.Barrier(2)
    go_on = datasets.keep_going

    def together() -> None:
        both_there.wait(timeout=30)
        go_on()

    monkeypatch.setattr(datasets, "keep_going", together)

    def end(run: Run) -> None:
        perform(run)
        connection.close()

    threads = [threading.Thread(target=end, args=[run]) for run in ending]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    ended = Run.objects.filter(pk__in=[run.pk for run in ending if run])
    assert [(run.status, run.attempt) for run in ended] == [("SUCCESS", 1)] * 2
    waiting = Run.objects.filter(status="PENDING").values_list("key", flat=True)
    assert sorted(waiting) == ["occupancy_drain:0", "occupancy_rollup"]


def test_there_is_a_drain_for_every_worker_of_the_long_queue(
    api: APIClient, campus: SessionsDatabase
) -> None:
    for number, queues in enumerate(["long,short", "short", "long,short", "long,short"]):
        claims.record_heartbeat(f"host:{number}", "worker", queues)
    claims.record_heartbeat("host:beat", "beat", "")
    created(api, chunk_days=1, start_time="2024-01-10T00:00:00Z", end_time="2024-03-06T00:00:00Z")
    campus.add_sessions([("Z", ROOM, "2024-01-10 00:00", "2024-01-20 00:00")])
    while perform_next("short"):
        pass
    drains = Run.objects.filter(job="occupancy_drain").values_list("key", flat=True)
    assert sorted(drains) == ["occupancy_drain:0", "occupancy_drain:1", "occupancy_drain:2"]


# --- what is not there any more ---------------------------------------------------------------


def unsettled_hour() -> tuple[str, str]:
    hour = datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    return str(hour), str(hour + timedelta(hours=1))


def test_a_session_that_was_deleted_is_not_counted_any_more(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    begin, end = unsettled_hour()
    campus.add_sessions([("A", ROOM, begin, end), ("B", ATTIC, begin, end)])
    asked = {"start_time": f"{begin}Z", "end_time": f"{end}Z"}
    dataset = created(api, **asked)
    perform_all()
    assert [row[1:] for row in rows(api, dataset, CAMPUS)] == [(2, 2)]
    campus.execute("DELETE FROM user_ap_trajectory WHERE mac_address = 'B'")
    created(api, **asked)
    perform_all()
    assert rows(api, dataset, ATTIC) == []
    assert rows(api, dataset, OTHER_FLOOR) == []
    assert [row[1:] for row in rows(api, dataset, CAMPUS)] == [(1, 1)]


def test_a_failure_in_a_room_without_sessions_any_more_holds_nothing_up(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    restore = without_sessions_table(campus)
    perform_all()
    restore()
    assert chunk(ATTIC).status == "FAILED"
    campus.execute("DELETE FROM user_ap_trajectory WHERE space_id = %s", [ATTIC])
    later = created(api, **JANUARY)
    perform_all()
    for each in (dataset, later):
        assert rows(api, each, CAMPUS)[2] == ("2024-01-10T10:00:00", 2, 1)
        shown = body(api.get(f"/occupancy/datasets/{each['dataset_id']}"))
        assert shown["status"] == "COMPLETED"
    assert rows(api, later, ATTIC) == []


# --- memory -----------------------------------------------------------------------------------


def test_sessions_pulled_a_few_at_a_time_give_the_same_files(
    api: APIClient,
    campus: SessionsDatabase,
    perform_all: Perform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campus.add_sessions(
        (
            f"device {number % 7}",
            room,
            f"2024-01-{day:02} {number:02}:10",
            f"2024-01-{day:02} {number:02}:50",
        )
        for room in (ROOM, OTHER_ROOM, ATTIC)
        for day in range(1, 17)
        for number in range(0, 24, 2)
    )
    campus.add_sessions(
        [
            ("over many slices", FLOOR, "2023-12-01 00:00", "2024-01-15 12:00"),
            ("a fault", ATTIC, "2024-01-10 12:00", "2024-01-02 12:00"),
            ("still there", OTHER_FLOOR, "2024-01-03 12:00", None),
        ]
    )  # fmt: skip
    created(api, **JANUARY)
    perform_all()

    def made() -> dict[int, tuple[Any, ...]]:
        found = OccupancySpaceChunk.objects.values_list(
            "space_id", "status", "content_hash", "inputs_hash", "provisional", "data_faults"
        )
        return {space: tuple(rest) for space, *rest in found}

    at_once = made()
    assert len(at_once) == 7
    pulled: list[int] = []
    pull = sessions.pulled

    def watched(*args: Any, **options: Any) -> Any:
        table = pull(*args, **options)
        pulled.append(table.num_rows)
        return table

    monkeypatch.setattr(sessions, "pulled", watched)
    monkeypatch.setattr(chunks, "BATCH_SESSIONS", 60)
    OccupancySpaceChunk.objects.update(status="PENDING", content_hash=None, inputs_hash=None)
    datasets.tick()
    perform_all()
    assert made() == at_once
    assert max(pulled) < 3 * 60
    assert sum(pulled) > 3 * 16 * 12


# --- failures ---------------------------------------------------------------------------------


def without_sessions_table(database: SessionsDatabase) -> Callable[[], None]:
    database.execute("ALTER TABLE user_ap_trajectory RENAME TO gone")
    return lambda: database.execute("ALTER TABLE gone RENAME TO user_ap_trajectory")


def test_a_failure_is_seen_everywhere_above_and_can_be_retried(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    restore = without_sessions_table(campus)
    perform_all()
    restore()
    for space in (ROOM, FLOOR, CAMPUS):
        found = results(api, dataset, f"?space_id={space}")
        assert found["status"] == "FAILED"
        assert "user_ap_trajectory" in found["error"]
    path = f"/occupancy/datasets/{dataset['dataset_id']}"
    failed = body(api.get(path))
    assert failed["status"] == "FAILED"
    assert "user_ap_trajectory" in failed["error_message"]

    answer = api.post(f"{path}/retry")
    assert (answer.status_code, body(answer)) == (200, {"reset": 7, "resubmitted": 7})
    assert body(api.get(path))["status"] == "RUNNING"
    perform_all()
    assert body(api.get(path))["status"] == "COMPLETED"
    assert body(api.get(path))["error_message"] is None
    assert rows(api, dataset, CAMPUS)[2] == ("2024-01-10T10:00:00", 3, 2)
    assert body(api.post(f"{path}/retry")) == {"reset": 0, "resubmitted": 0}


def test_a_planning_that_fails_fails_the_dataset_and_can_be_retried(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    dataset = created(api, **JANUARY)
    restore = without_sessions_table(campus)
    perform_all()
    restore()
    path = f"/occupancy/datasets/{dataset['dataset_id']}"
    assert body(api.get(path))["status"] == "FAILED"
    assert "user_ap_trajectory" in body(api.get(path))["error_message"]
    assert results(api, dataset)["status"] == "FAILED"
    assert api.post(f"{path}/retry").status_code == 200
    perform_all()
    assert len(rows(api, dataset, CAMPUS)) == 3


def test_a_passing_failure_is_tried_again_after_a_while(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform, settings: Settings
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    url = settings.TIPPERS_DB_URL
    settings.TIPPERS_DB_URL = "postgresql://nobody@127.0.0.1:9/none"
    perform_all()
    settings.TIPPERS_DB_URL = url
    assert results(api, dataset)["status"] == "RUNNING"
    room = chunk(ROOM)
    assert (room.status, room.attempt, room.failures) == ("PENDING", 1, 1)
    assert room.error_message
    assert room.not_before > datetime.now(UTC)
    OccupancySpaceChunk.objects.update(not_before=datetime.now(UTC))  # the while is over
    datasets.tick()
    perform_all()
    assert len(rows(api, dataset, CAMPUS)) == 3


def test_a_storage_that_fails_leaves_nothing_half_published(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform, settings: Settings
) -> None:
    dataset = created(api, **JANUARY)
    while perform_next("short"):
        pass
    folder = Path(settings.STORAGES["default"]["OPTIONS"]["location"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "occupancy").write_text("a file where a folder should be")
    perform_all()
    assert set(OccupancySpaceChunk.objects.values_list("status", flat=True)) == {"PENDING"}
    assert not OccupancySpaceChunk.objects.exclude(content_hash=None).exists()
    (folder / "occupancy").unlink()
    OccupancySpaceChunk.objects.update(not_before=datetime.now(UTC))
    datasets.tick()
    perform_all()
    assert len(rows(api, dataset, CAMPUS)) == 3


def test_a_later_request_retries_what_failed(
    api: APIClient, campus: SessionsDatabase, perform_all: Perform
) -> None:
    first = created(api, **JANUARY)
    while perform_next("short"):
        pass
    restore = without_sessions_table(campus)
    perform_all()
    restore()
    created(api, root_space_id=FLOOR, **JANUARY)
    created(api, root_space_id=OTHER_FLOOR, **JANUARY)
    perform_all()
    assert len(rows(api, first, CAMPUS)) == 3
    assert body(api.get(f"/occupancy/datasets/{first['dataset_id']}"))["status"] == "COMPLETED"


# --- what is ready (pure) ---------------------------------------------------------------------


def known(*rows: tuple[int, int | None, str, str]) -> list[Known]:
    return [
        Known(space, space, parent, kind, status == "PENDING", status == "COMPLETED")
        for space, parent, kind, status in rows
    ]


def ids(ready: list[Known]) -> list[int]:
    return [each.chunk_id for each in ready]


def test_ready_is_what_needs_only_what_is_done_or_ready() -> None:
    tree: list[tuple[int, int | None, str, str]] = [
        (1, None, "derived", "PENDING"),
        (10, 1, "derived", "PENDING"),
        (100, 10, "source", "COMPLETED"),
        (101, 10, "source", "COMPLETED"),
        (11, 1, "derived", "PENDING"),
        (110, 11, "source", "COMPLETED"),
    ]
    done = {100, 101, 110}
    ready = ids(ready_above(known(*tree), done=done))
    assert sorted(ready) == [1, 10, 11]
    assert ready[-1] == 1  # after what it needs
    assert ids(ready_above(known(*tree), done=done - {110})) == [10]
    assert ids(ready_above(known(*tree), done=set())) == []
    busy: list[Any] = [row if row[0] != 11 else (11, 1, "derived", "RUNNING") for row in tree]
    assert ids(ready_above(known(*busy), done=done)) == [10]


def test_a_space_with_nothing_left_below_it_waits_for_nothing() -> None:
    tree = known((1, None, "derived", "PENDING"), (10, 1, "derived", "PENDING"))
    assert ids(ready_above(tree, done=set())) == [10, 1]
