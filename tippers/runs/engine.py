"""Background jobs: declare, launch, perform, cancel.

An app declares a job in its `tasks.py`:

    @job(queue="short", timeout=timedelta(hours=1))
    def materialize_index(run: RunHandle, *, index_id: int) -> None: ...

and launches it by name. `launch` writes a row in the caller's transaction and sends a hint on
commit. A hint names a queue, not a run: whichever worker gets it claims the runs that wait there,
so a lost hint delays a run until the next sweep and a doubled one does nothing.
"""

import logging
import os
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol

from celery import current_app, shared_task
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import (
    DatabaseError,
    OperationalError,
    close_old_connections,
    connection,
    transaction,
)
from django.db.models import Q
from kombu.exceptions import OperationalError as BrokerError

from tippers.errors import CannotBeDone, NotFound, NotPossibleNow, Unavailable
from tippers.runs import claims, parents
from tippers.runs.claims import LostLease
from tippers.runs.models import ACTIVE, Heartbeat, Queue, Run, RunLog, RunStatus

log = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0  # then another queue's hint gets its turn on this worker
WORKER_SEEN_WITHIN = timedelta(seconds=60)
P = ParamSpec("P")


class Stopped(Exception):
    """Raised inside a job at its next checkpoint after it was cancelled, timed out or lost."""


@dataclass(frozen=True)
class Job:
    """A declared job."""

    name: str
    queue: str
    timeout: timedelta
    function: Callable[..., None]


@dataclass(frozen=True)
class Periodic:
    """A function that beat calls at a fixed interval, through a worker of the short queue."""

    name: str
    every: timedelta
    function: Callable[[], None]


JOBS: dict[str, Job] = {}
PERIODICS: dict[str, Periodic] = {}


def job(
    *, queue: str, timeout: timedelta
) -> Callable[
    [Callable[Concatenate["RunHandle", P], None]], Callable[Concatenate["RunHandle", P], None]
]:
    """Declare a job; its name is the function's. `timeout` bounds one attempt's run time."""

    def declare(
        function: Callable[Concatenate["RunHandle", P], None],
    ) -> Callable[Concatenate["RunHandle", P], None]:
        name = function.__name__
        if name in JOBS and JOBS[name].function.__module__ != function.__module__:
            raise ValueError(f"two jobs are named {name}")
        JOBS[name] = Job(name, Queue(queue).value, timeout, function)
        return function

    return declare


def periodic(*, every: timedelta, name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Declare a function for beat to call; it must be harmless when called twice."""

    def declare(function: Callable[[], None]) -> Callable[[], None]:
        PERIODICS[name] = Periodic(name, every, function)
        return function

    return declare


# --- launching and cancelling -------------------------------------------------------------


def launch(
    job_name: str,
    *,
    key: str,
    args: dict[str, Any],
    created_by: AbstractBaseUser | AnonymousUser | None = None,
    parent: Run | None = None,
) -> Run:
    """Write the run in the caller's transaction; a worker is told when that commits.

    `key` names the work including its definition. While a run with the same key is active, that
    run is returned instead of a second one; a `parent` adopts it if it has none.
    """
    declared = JOBS[job_name]
    user_id = getattr(created_by, "pk", None)
    while True:
        run = Run(
            job=job_name,
            queue=declared.queue,
            args=args,
            key=key,
            created_by_id=user_id,
            parent=parent,
        )
        Run.objects.bulk_create([run], ignore_conflicts=True)
        # On a conflict the row is not ours; the one that is may end before we read it.
        active = Run.objects.filter(key=key, status__in=ACTIVE).first()
        written = Run.objects.filter(run_id=run.run_id).first()
        if (found := written or active) is not None:
            break
    if parent is not None:
        Run.objects.filter(run_id=found.run_id, parent=None).update(parent=parent)
    transaction.on_commit(lambda: send_hint(declared.queue), robust=True)
    return found


def send_hint(queue: str) -> None:
    """Tell one worker of the queue to look at the table; while the broker is down, nobody."""
    try:
        current_app.send_task("runs.work", kwargs={"queue": queue}, queue=queue)
    except BrokerError as error:
        log.warning("no hint for queue %s, the sweep will send one: %s", queue, error)


def cancel(run_id: uuid.UUID) -> Run:
    """The row says CANCELLED at once; the worker notices within seconds and stops its work.

    A parent takes its active children with it.
    """
    with transaction.atomic():
        cancelled = _cancel_with_children(run_id)
    if cancelled:
        _settle_above(run_id)
    run = Run.objects.filter(run_id=run_id).first()
    if cancelled and run is not None:
        return run
    if run is None:
        raise NotFound(f"Run {run_id} does not exist.")
    raise NotPossibleNow(f"Run {run_id} has ended already: {run.status}.")


def _cancel_with_children(run_id: uuid.UUID) -> bool:
    if not claims.cancel(run_id):
        return False
    active = Run.objects.filter(parent_id=run_id, status__in=ACTIVE)
    for child_id in active.values_list("run_id", flat=True):
        _cancel_with_children(child_id)
    return True


# --- performing ---------------------------------------------------------------------------


class RunHandle:
    """What a job holds of its run: token, log, progress, and the fence for its result."""

    def __init__(self, run: Run) -> None:
        if run.token is None:
            raise ValueError("only a claimed run has a handle")
        self.run_id = run.run_id
        self.token: uuid.UUID = run.token
        self.attempt = run.attempt
        self._run = run
        self._stops: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._lines: list[RunLog] = []
        self._stopped: str | None = None
        self._finished = False

    def log(self, message: str, level: str = "INFO") -> None:
        """Add a line to the run's log; readable within two seconds, whatever becomes of the work."""
        line = RunLog(
            run_id=self.run_id,
            timestamp=datetime.now(UTC),
            level=level,
            message=claims.storable(message),
        )
        with self._lock:
            self._lines.append(line)

    def progress(
        self, done: int, total: int | None = None, unit: str = "", message: str = ""
    ) -> None:
        """Publish how far the work is; also a checkpoint (raises Stopped)."""
        self._run.progress_done = done
        self._run.progress_total = total
        self._run.progress_unit = unit[:30]
        self._run.progress_message = message[:300]
        self.check()

    def check(self) -> None:
        """Raise Stopped when the run was cancelled, ran into its time limit or was lost."""
        if self._stopped is not None:
            raise Stopped(self._stopped)

    @contextmanager
    def on_stop(self, stop: Callable[[], None]) -> Iterator[None]:
        """While the block runs, `stop` is how to end it from another thread (kill, cancel)."""
        with self._lock:
            self._stops.append(stop)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)
        self.check()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """One transaction that ends the run as SUCCESS and makes its result current.

        Raises LostLease, before the block, when the run is no longer ours; an exception in the
        block leaves both undone. The only way for a job to publish what it made.
        """
        lines: list[RunLog] = []
        _forget_dead_connection()
        try:
            with transaction.atomic():
                claims.succeed(self._run)
                yield
                # In the same commit: a third of a small job's time would go into another one.
                lines = self._take_lines()
                RunLog.objects.bulk_create(lines)
        except BaseException:
            self._put_back(lines)
            raise
        self._finished = True
        # After the commit: the block holds locks that the parent's turn may want, and what goes
        # wrong there is not this run's failure.
        _settle_above(self.run_id)

    def finish(self) -> None:
        """End the run as SUCCESS, unless the job did so itself."""
        if not self._finished:
            with self.finishing():
                pass

    def stop(self, reason: str) -> None:
        """From the side thread: the next checkpoint raises, and what was registered is stopped."""
        self._stopped = reason
        with self._lock:
            stops = list(self._stops)
        for stop in reversed(stops):
            try:
                stop()
            except Exception:  # noqa: BLE001 - a child that is gone already must not shield the next one
                log.warning("stopping run %s: %s", self.run_id, traceback.format_exc())

    def renew(self) -> bool:
        """Lease, progress and log lines to the database; False when the run is no longer ours.

        A run that its job has ended, but for what it does after `finishing`, is still ours.
        """
        self.flush()
        return claims.renew(self._run) or claims.ended_by_us(self._run)

    def flush(self) -> None:
        """Write the log lines that wait."""
        lines = self._take_lines()
        try:
            RunLog.objects.bulk_create(lines)
        except DatabaseError:
            self._put_back(lines)
            raise

    def _take_lines(self) -> list[RunLog]:
        with self._lock:
            lines, self._lines = self._lines, []
        return lines

    def _put_back(self, lines: list[RunLog]) -> None:
        with self._lock:
            self._lines = lines + self._lines


class Follower(Protocol):
    """Watches a run while it is performed (the worker's side thread; nothing in tests)."""

    def following(self, handle: RunHandle, timeout: timedelta) -> Any: ...


def perform(run: Run, follower: Follower | None = None) -> None:
    """Perform a claimed run to its end; whatever it raises becomes the run's state."""
    declared = JOBS.get(run.job)
    if declared is None:
        claims.fail(run, f"This version has no job named {run.job}.")
        return
    handle = RunHandle(run)
    handle.log(f"attempt {run.attempt} of {run.job} on {run.owner}")
    try:
        if follower is None:
            _call(declared, handle, run)
        else:
            with follower.following(handle, declared.timeout):
                _call(declared, handle, run)
    finally:
        handle.flush()


def _call(declared: Job, handle: RunHandle, run: Run) -> None:
    try:
        declared.function(handle, **run.args)
        handle.finish()
    except (Stopped, LostLease) as stopped:
        handle.log(f"stopped: {stopped}", "WARNING")
        _settle_above(run.run_id)
    except CannotBeDone as refused:
        handle.log(refused.detail, "ERROR")
        claims.fail(run, refused.detail)
        _settle_above(run.run_id)
    except Exception as error:  # whatever a job raises is recorded on its row
        log.exception("run %s (%s) failed", run.run_id, run.job)
        _forget_dead_connection()
        handle.log(traceback.format_exc(), "ERROR")
        sentence = f"{type(error).__name__}: {error}"
        outage = isinstance(error, Unavailable | OperationalError)
        if claims.retry_or_fail(run, sentence, outage=outage):
            handle.log("it will be tried again", "WARNING")
        else:
            _settle_above(run.run_id)


def _forget_dead_connection() -> None:
    """The server may have been restarted in the hours since this connection was last used."""
    if not connection.in_atomic_block:
        close_old_connections()


def _settle_above(run_id: uuid.UUID) -> None:
    try:
        parents.settle_above(run_id)
    except OperationalError as error:
        log.warning("the parent of run %s waits for the sweep: %s", run_id, error)


def perform_next(queue: str, follower: Follower | None = None) -> bool:
    """Claim and perform one run of the queue in this process; False when none waits."""
    run = claims.claim(queue, process_name())
    if run is None:
        return False
    perform(run, follower)
    return True


def process_name() -> str:
    """This process as the owner of runs: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


# --- the worker's side ----------------------------------------------------------------------


@shared_task(name="runs.work", ignore_result=True)  # type: ignore[untyped-decorator]  # no types
def work(*, queue: str, **_: Any) -> None:
    """Perform what waits in the queue; yield after a while so that no queue starves another."""
    from tippers.runs.worker import pulse  # the side thread lives in worker processes only

    deadline = time.monotonic() + DRAIN_SECONDS
    while perform_next(queue, pulse()):
        if time.monotonic() > deadline:
            send_hint(queue)
            return


@shared_task(name="runs.periodic", ignore_result=True)  # type: ignore[untyped-decorator]  # no types
def call_periodic(*, name: str, **_: Any) -> None:
    """Beat's call of a declared function."""
    PERIODICS[name].function()


@periodic(every=timedelta(seconds=15), name="runs.sweep")
def sweep() -> None:
    """Requeue what lost its worker, and hint what waits: at most one hint per free slot."""
    swept = claims.sweep(_owners_gone())
    if swept.requeued or swept.failed:
        log.warning("lost workers: %s runs requeued, %s failed", swept.requeued, swept.failed)
    parents.heal()
    for queue in Queue.values:
        for _ in range(min(claims.waiting(queue), _free_slots(queue))):
            send_hint(queue)


def _owners_gone() -> list[str]:
    """Owners of running runs that were processes of this host and are no more.

    It only saves the wait for the lease: should the process live after all (a host name used
    twice), the fence refuses one of the two.
    """
    host = socket.gethostname()
    owners = Run.objects.filter(status=RunStatus.STARTED).values_list("owner", flat=True).distinct()
    here = [owner for owner in owners if owner.rpartition(":")[0] == host]
    return [owner for owner in here if not _is_alive(int(owner.rpartition(":")[2]))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free_slots(queue: str) -> int:
    alive = Heartbeat.objects.filter(kind="worker", seen_at__gt=claims.Clock() - WORKER_SEEN_WITHIN)
    names = alive.filter(queues__contains=queue).values_list("name", flat=True)
    busy = Run.objects.filter(Q(owner__in=names), status=RunStatus.STARTED).count()
    return max(len(names) - busy, 0)


def workers_alive(queue: str = "") -> int:
    """Worker slots seen within the last minute (that serve the queue); 0: nothing will start."""
    alive = Heartbeat.objects.filter(kind="worker", seen_at__gt=claims.Clock() - WORKER_SEEN_WITHIN)
    return alive.filter(queues__contains=queue).count()


def beat_alive() -> bool:
    """Whether the scheduler was seen within the last minute."""
    return Heartbeat.objects.filter(
        kind="beat", seen_at__gt=claims.Clock() - WORKER_SEEN_WITHIN
    ).exists()
