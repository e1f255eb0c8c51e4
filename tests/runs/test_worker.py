"""Real worker processes, killed, stopped and cancelled at the worst moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from tests.runs import jobs  # noqa: F401 - declares them
from tippers.runs import engine
from tippers.runs.models import Heartbeat, Run, RunStatus

pytestmark = pytest.mark.django_db(transaction=True)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; the test fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain")
        time.sleep(0.05)


@contextmanager
def worker(log: Path, app: str = "tests.runs.worker_app") -> Iterator["subprocess.Popen[bytes]"]:
    """A Celery worker with one slot on this test's database, alive until the block ends."""
    database = connection.settings_dict
    address = (
        f"postgresql://{database['USER']}:{database['PASSWORD']}"
        f"@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )
    seen = set(Heartbeat.objects.values_list("name", flat=True))
    command = [sys.executable, "-m", "celery", "-A", app, "-q", "worker"]
    command += ["-Q", "short,long", "-c", "1", "-n", f"test{time.monotonic_ns()}@localhost"]
    command += ["--without-gossip", "--without-mingle"]
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "DATABASE_URL": address},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: set(Heartbeat.objects.values_list("name", flat=True)) - seen)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def state(run: Run) -> Run:
    return Run.objects.get(run_id=run.run_id)


def owner_pid(run: Run) -> int:
    return int(state(run).owner.rpartition(":")[2])


def started(run: Run) -> bool:
    return state(run).status == RunStatus.STARTED


def succeeded(run: Run) -> bool:
    return state(run).status == RunStatus.SUCCESS


def note(tmp_path: Path, seconds: float) -> Run:
    args = {"path": str(tmp_path / "effects"), "seconds": seconds}
    return engine.launch("note_effect", key=f"note:{seconds}", args=args)


def test_progress_and_log_are_readable_while_the_work_goes_on(tmp_path: Path) -> None:
    with worker(tmp_path / "log"):
        run = note(tmp_path, 6)
        until(lambda: state(run).progress_message == "waiting")
        assert started(run)
        assert run.logs.filter(message__contains="attempt 1").exists()
        until(lambda: succeeded(run))
    assert (tmp_path / "effects").read_text() == "start 1\neffect 1\n"


def test_a_killed_child_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with worker(tmp_path / "log"):
        run = note(tmp_path, 3)
        until((tmp_path / "effects").exists)
        os.kill(owner_pid(run), signal.SIGKILL)
        until(lambda: _swept(run), 20)
        until(lambda: succeeded(run))
    assert (tmp_path / "effects").read_text() == "start 1\nstart 2\neffect 2\n"
    assert (state(run).attempt, state(run).lost_workers) == (2, 1)


def _swept(run: Run) -> bool:
    engine.sweep()  # what beat does every 15 seconds
    return state(run).attempt == 2


def test_a_stalled_worker_cannot_publish_after_another_took_over(tmp_path: Path) -> None:
    with worker(tmp_path / "log") as stalled:
        run = note(tmp_path, 3)
        until((tmp_path / "effects").exists)
        os.killpg(stalled.pid, signal.SIGSTOP)
        frozen = owner_pid(run)
        os.kill(frozen, signal.SIGSTOP)
        with worker(tmp_path / "log2"):
            until(lambda: _swept(run), 20)
            until(lambda: succeeded(run))
            os.kill(frozen, signal.SIGCONT)
            os.killpg(stalled.pid, signal.SIGCONT)
            until(lambda: run.logs.filter(message__startswith="stopped:").exists())
    assert (tmp_path / "effects").read_text() == "start 1\nstart 2\neffect 2\n"


def test_a_cancelled_run_that_never_looks_is_gone_within_five_seconds(tmp_path: Path) -> None:
    with worker(tmp_path / "log"):
        run = engine.launch("spin", key="spin", args={"path": str(tmp_path / "spinning")})
        until((tmp_path / "spinning").exists)
        pid = owner_pid(run)
        cancelled_at = time.monotonic()
        assert engine.cancel(run.run_id).status == RunStatus.CANCELLED
        until(lambda: not Path(f"/proc/{pid}").exists(), 10)
        assert time.monotonic() - cancelled_at < 5.5
        following = note(tmp_path, 0)
        until(lambda: succeeded(following))
    assert state(run).status == RunStatus.CANCELLED


def test_a_run_past_its_time_limit_fails_and_frees_its_slot(tmp_path: Path) -> None:
    with worker(tmp_path / "log"):
        run = engine.launch("overrun", key="overrun", args={})
        until(lambda: state(run).status == RunStatus.FAILURE)
        assert "longer than 0:00:03" in str(state(run).error_message)
        following = note(tmp_path, 0)
        until(lambda: succeeded(following))


def test_what_a_job_does_after_its_end_is_not_killed(tmp_path: Path) -> None:
    path = tmp_path / "tidied"
    with worker(tmp_path / "log"):
        run = engine.launch("tidy_up_afterwards", key="t", args={"path": str(path), "seconds": 6})
        until(lambda: succeeded(run))
        until(path.exists)
    assert state(run).attempt == 1
