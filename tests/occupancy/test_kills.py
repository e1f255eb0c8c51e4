"""Workers that are killed at random cost time: no chunk is missing, double, or computed twice."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from django.db import connection
from rest_framework.test import APIClient

from occupancy import chunks, datasets
from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tests.occupancy.conftest import CAMPUS, SessionsDatabase
from tests.occupancy.test_datasets import created
from tests.runs.test_worker import worker
from tippers.runs import engine
from tippers.runs.engine import perform_next
from tippers.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)

APP = "tests.occupancy.worker_app"
FIRST_FLOOR, FIRST_ROOM, ROOMS_PER_FLOOR, DEVICES = 100, 10_000, 10, 7

# What becomes of each row, written by the database itself: nobody can complete a chunk unseen.
WATCH = """
    CREATE TABLE completions (chunk_id bigint, token uuid);
    CREATE TABLE reopened (chunk_id bigint);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.status = 'COMPLETED' AND OLD.status <> 'COMPLETED' THEN
            INSERT INTO completions VALUES (NEW.chunk_id, OLD.token);
        ELSIF OLD.status = 'COMPLETED' AND NEW.status <> 'COMPLETED' THEN
            INSERT INTO reopened VALUES (NEW.chunk_id);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER watch AFTER UPDATE ON occupancy_space_chunks FOR EACH ROW EXECUTE FUNCTION watch();
"""
UNWATCH = """
    DROP TRIGGER watch ON occupancy_space_chunks;
    DROP FUNCTION watch;
    DROP TABLE completions, reopened;
"""


@dataclass(frozen=True)
class Size:
    """Chunks are `days` times rooms, floors and the campus."""

    rooms: int
    days: int
    slots_killed: int
    workers_killed: int

    @property
    def chunks(self) -> int:
        return self.days * (self.rooms + self.rooms // ROOMS_PER_FLOOR + 1)


@pytest.fixture
def _watched(db: None) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(WATCH)
    yield
    with connection.cursor() as cursor:
        cursor.execute(UNWATCH)


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(Size(rooms=60, days=12, slots_killed=4, workers_killed=0), id="hundreds"),
        pytest.param(
            Size(rooms=400, days=46, slots_killed=12, workers_killed=4),
            id="twenty thousand",
            marks=[pytest.mark.faults, pytest.mark.timeout(1800)],
        ),
    ],
)
def test_chunks_survive_the_death_of_workers(
    api: APIClient,
    sessions_db: SessionsDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: Size,
) -> None:
    """Each room has one device for half an hour of each day; rooms share hours and devices."""
    monkeypatch.setenv("TIPPERS_HOME", str(tmp_path))
    monkeypatch.setenv("TIPPERS_DB_URL", sessions_db.url)
    rooms = range(FIRST_ROOM, FIRST_ROOM + size.rooms)
    floor = {room: FIRST_FLOOR + (room - FIRST_ROOM) // ROOMS_PER_FLOOR for room in rooms}
    sessions_db.add_spaces({CAMPUS: None, **dict.fromkeys(floor.values(), CAMPUS), **floor})
    sessions_db.add_sessions(
        (
            f"device {room % DEVICES}",
            room,
            f"2024-01-01 {room % 24:02}:10:00",
            f"2024-01-01 {room % 24:02}:40:00",
        )
        for room in rooms
    )
    sessions_db.execute(
        "INSERT INTO user_ap_trajectory SELECT mac_address, sensor_id, space_id,"
        " start_time + day * interval '1 day', end_time + day * interval '1 day'"
        f" FROM user_ap_trajectory, generate_series(1, {size.days - 1}) AS day"
    )
    dataset = created(api, chunk_days=1)
    kills = _work_under_fire(dataset["dataset_id"], size, sessions_db.url, tmp_path / "log")

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT chunk_id) FROM completions")
        assert cursor.fetchone() == (size.chunks, size.chunks)
        cursor.execute("SELECT count(*) FROM reopened")
        assert cursor.fetchone() == (0,)
    found = OccupancySpaceChunk.objects.all()
    assert found.count() == found.filter(status="COMPLETED").count() == size.chunks
    assert kills >= 1
    assert Run.objects.filter(lost_workers__gt=0).exists()
    chunks.tables(found.iterator())  # raises for a file that is not what its row says
    by_hour = {
        hour: [room for room in rooms if room % 24 == hour]
        for hour in {room % 24 for room in rooms}
    }
    for table in chunks.tables(found.filter(space_id=CAMPUS)):
        rows = table.to_pylist()
        assert {row["interval_begin_time"].hour: row["number_connections"] for row in rows} == {
            hour: len(those) for hour, those in by_hour.items()
        }
        assert {row["interval_begin_time"].hour: row["number_devices"] for row in rows} == {
            hour: len({room % DEVICES for room in those}) for hour, those in by_hour.items()
        }


def _work_under_fire(dataset_id: int, size: Size, url: str, log: Path) -> int:
    """Until the dataset is complete: now and then, kill who computes something; how many died."""
    chance = random.Random(20)
    perform_next("short")  # the plan
    blocker = psycopg2.connect(url)  # nobody gets any further before the first is killed
    blocker.cursor().execute("LOCK TABLE user_ap_trajectory")
    slots_left, workers_left = size.slots_killed, size.workers_killed
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(log, APP)) for _ in range(2)]
        deadline = time.monotonic() + 1500
        while OccupancyDataset.objects.get(pk=dataset_id).status != "COMPLETED":
            assert time.monotonic() < deadline
            engine.sweep()  # what beat does every few seconds
            datasets.tick()
            time.sleep(chance.uniform(0.01, 0.3))  # a kill may come at any moment
            owners = _at_work()
            if owners and slots_left:
                with suppress(ProcessLookupError):
                    os.kill(int(chance.choice(owners).rpartition(":")[2]), signal.SIGKILL)
                    slots_left -= 1
                    blocker.close()
            elif owners and workers_left:
                victim = workers.pop(0)
                os.killpg(victim.pid, signal.SIGKILL)
                victim.wait(10)
                workers.append(stack.enter_context(worker(log, APP)))
                workers_left -= 1
    return size.slots_killed - slots_left + size.workers_killed - workers_left


def _at_work() -> list[str]:
    """The owners of runs that hold chunks."""
    tokens = OccupancySpaceChunk.objects.filter(status="RUNNING").values("token")
    return list(
        Run.objects.filter(status="STARTED", token__in=tokens).values_list("owner", flat=True)
    )
