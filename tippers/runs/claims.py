"""The transitions of a run: each is one conditional UPDATE, and its row count decides.

Times are the database's `clock_timestamp()`: leases are compared across machines, and `now()`
stands still inside a transaction.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection, models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Coalesce

from tippers.runs.models import ACTIVE, Run, RunStatus

LEASE = timedelta(seconds=45)
MAX_FAILURES = 3
MAX_LOST_WORKERS = 10
MAX_OUTAGES = 12
FIRST_BACK_OFF = timedelta(seconds=5)
LONGEST_BACK_OFF = timedelta(minutes=5)


class LostLease(Exception):
    """The run is no longer ours: cancelled, timed out, or claimed by another worker."""


class Clock(Func):
    """The database's wall clock."""

    function = "CLOCK_TIMESTAMP"
    template = "%(function)s()"
    output_field = models.DateTimeField()


@dataclass(frozen=True)
class Swept:
    """What one sweep changed."""

    requeued: int
    failed: int


_CLAIM = """
    UPDATE runs_run SET status = 'STARTED', token = gen_random_uuid(), owner = %s,
           attempt = attempt + 1, lease_until = clock_timestamp() + %s,
           started_at = coalesce(started_at, clock_timestamp()),
           progress_done = 0, progress_total = NULL, progress_unit = '', progress_message = ''
     WHERE run_id = (SELECT run_id FROM runs_run
                      WHERE status = 'PENDING' AND queue = %s AND not_before <= clock_timestamp()
                      ORDER BY not_before FOR UPDATE SKIP LOCKED LIMIT 1)
    RETURNING *
"""


def claim(queue: str, owner: str) -> Run | None:
    """PENDING -> STARTED for the run of this queue that waited longest; None when none waits."""
    return next(iter(Run.objects.raw(_CLAIM, [owner, LEASE, queue])), None)


def _held(run_id: uuid.UUID, token: uuid.UUID | None) -> "models.QuerySet[Run]":
    return Run.objects.filter(run_id=run_id, token=token, status=RunStatus.STARTED)


def renew(run: Run) -> bool:
    """Prolong the lease and publish the progress; False when the run is no longer ours."""
    return bool(
        _held(run.run_id, run.token).update(
            lease_until=Clock() + Value(LEASE),
            progress_done=run.progress_done,
            progress_total=run.progress_total,
            progress_unit=run.progress_unit,
            progress_message=run.progress_message,
        )
    )


def succeed(run: Run) -> None:
    """STARTED -> SUCCESS; LostLease when the run is no longer ours."""
    ended = _held(run.run_id, run.token).update(
        status=RunStatus.SUCCESS,
        ended_at=Clock(),
        error_message=None,
        progress_done=run.progress_done,
        progress_total=run.progress_total,
        progress_unit=run.progress_unit,
        progress_message=run.progress_message,
    )
    if not ended:
        raise LostLease(f"run {run.run_id} is no longer ours")


def ended_by_us(run: Run) -> bool:
    """Whether it was this holder of the token who ended the run as SUCCESS."""
    ours = Run.objects.filter(run_id=run.run_id, token=run.token, status=RunStatus.SUCCESS)
    return ours.exists()


def storable(text: str) -> str:
    """PostgreSQL's text takes every character but one."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def fail(run: Run, message: str) -> bool:
    """STARTED -> FAILURE, for good; False when the run is no longer ours."""
    return bool(
        _held(run.run_id, run.token).update(
            status=RunStatus.FAILURE, ended_at=Clock(), error_message=storable(message)
        )
    )


def retry_or_fail(run: Run, message: str, *, outage: bool = False) -> bool:
    """After an unexpected failure: PENDING with a growing back-off, the third time FAILURE.

    An outage of something we stand on is waited for longer (about three quarters of an hour).
    True when it will be tried again.
    """
    if run.failures + 1 >= (MAX_OUTAGES if outage else MAX_FAILURES):
        fail(run, message)
        return False
    return bool(
        _held(run.run_id, run.token).update(
            status=RunStatus.PENDING,
            token=None,
            failures=F("failures") + 1,
            not_before=Clock() + Value(min(FIRST_BACK_OFF * 4**run.failures, LONGEST_BACK_OFF)),
            error_message=storable(message),
        )
    )


def cancel(run_id: uuid.UUID) -> bool:
    """PENDING or STARTED -> CANCELLED; False when it had ended already."""
    return bool(
        Run.objects.filter(run_id=run_id, status__in=ACTIVE).update(
            status=RunStatus.CANCELLED,
            ended_at=Clock(),
            started_at=Coalesce("started_at", Clock()),
        )
    )


def sweep(owners_gone: Iterable[str] = ()) -> Swept:
    """Runs whose lease ran out or whose owner is gone: to PENDING, after the tenth time FAILURE."""
    lost = Q(lease_until__lt=Clock()) | Q(owner__in=list(owners_gone), lease_until__isnull=False)
    expired = lost & Q(status=RunStatus.STARTED)
    failed = Run.objects.filter(expired, lost_workers__gte=MAX_LOST_WORKERS - 1).update(
        status=RunStatus.FAILURE,
        ended_at=Clock(),
        lost_workers=F("lost_workers") + 1,
        error_message=f"The worker was lost {MAX_LOST_WORKERS} times while it ran this.",
    )
    requeued = Run.objects.filter(expired).update(
        status=RunStatus.PENDING,
        token=None,
        lost_workers=F("lost_workers") + 1,
        not_before=Clock(),
    )
    return Swept(requeued=requeued, failed=failed)


def waiting(queue: str) -> int:
    """How many runs of the queue could start now."""
    return Run.objects.filter(
        queue=queue, status=RunStatus.PENDING, not_before__lte=Clock()
    ).count()


_BEAT = """
    INSERT INTO runs_heartbeat (name, kind, queues, seen_at) VALUES (%s, %s, %s, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, queues = excluded.queues
"""


def record_heartbeat(name: str, kind: str, queues: str = "") -> None:
    """This process is alive; rows that nobody renewed for a day go."""
    with connection.cursor() as cursor:
        cursor.execute(_BEAT, [name, kind, queues])
        cursor.execute(
            "DELETE FROM runs_heartbeat WHERE seen_at < clock_timestamp() - interval '1 day'"
        )
