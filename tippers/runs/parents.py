"""Parent runs: work that consists of other runs, launched in the order in which they become ready.

An app declares how a parent goes on:

    @parent_job
    def materialize_concept(parent: Run) -> str | None: ...

The function launches, with parent=, what is ready now. It is called at the launch and whenever a
child has ended, one call at a time. When it leaves no child active, the parent ends. What it
returns says what cannot be brought about, and becomes the parent's error message then; with None,
that is made up from the children's. It may set `progress_total` to count what is still to come,
and `progress_message`.

A parent may be a child itself: its end is the end of a child to the parent above it. Locks are
taken from the top down, and a child settles what is above it after its own end is committed.
"""

import logging
import uuid
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import OperationalError, transaction
from django.db.models import Count, Q

from tippers.errors import CannotBeDone
from tippers.runs.claims import Clock
from tippers.runs.models import ACTIVE, ENDED, Queue, Run, RunStatus

log = logging.getLogger(__name__)

Advance = Callable[[Run], str | None]
PARENT_JOBS: dict[str, Advance] = {}


def parent_job(advance: Advance) -> Advance:
    """Declare a parent job; its name is the function's."""
    PARENT_JOBS[advance.__name__] = advance
    return advance


def launch_parent(
    job_name: str,
    *,
    key: str,
    args: dict[str, Any],
    created_by: AbstractBaseUser | AnonymousUser | None = None,
    parent: Run | None = None,
    unit: str = "assets",
) -> Run:
    """Write the parent and launch its first children, in one transaction.

    It is STARTED at once and holds no lease. While a parent with the same key is active, that one
    is returned; a `parent` adopts it if it has none. With nothing to do it has ended when this
    returns. `unit` is what its progress counts.
    """
    with transaction.atomic():
        active = None
        while active is None:  # the one in our way may end before it is read
            run = Run(
                job=job_name,
                queue=Queue.SHORT,
                args=args,
                key=key,
                status=RunStatus.STARTED,
                parent=parent,
                created_by_id=getattr(created_by, "pk", None),
                progress_unit=unit,
            )
            Run.objects.bulk_create([run], ignore_conflicts=True)
            active = Run.objects.filter(key=key, status__in=ACTIVE).first()
        Run.objects.filter(run_id=run.run_id).update(started_at=Clock())
        if parent is not None:
            Run.objects.filter(run_id=active.run_id, parent=None).update(parent=parent)
        # Not what is above: whoever launches a child with parent= is the parent's own turn.
        _settle(active.run_id)
    active.refresh_from_db()
    return active


def settle_above(run_id: uuid.UUID) -> None:
    """A run has ended: let its parent go on, end it when no child is active, and so on upwards.

    Call it when the run's end is committed. The parent is read anew: a run may be adopted while it
    is performed.
    """
    above = _parent_of(run_id)
    while above is not None:
        above = _parent_of(above) if _settle(above) else None


def _parent_of(run_id: uuid.UUID) -> uuid.UUID | None:
    return Run.objects.filter(run_id=run_id).values_list("parent_id", flat=True).first()


def _settle(parent_id: uuid.UUID) -> bool:
    """Let the parent go on; True if that ended it.

    The row lock makes the last of two children that end at the same instant see the other's end.
    """
    with transaction.atomic():
        parent = (
            Run.objects.select_for_update().filter(run_id=parent_id, status=RunStatus.STARTED)
        ).first()
        if parent is None:
            return False
        counts, before = _counts(parent), None
        # Once more as long as the function may have decided by what is no longer so: a child that
        # ends while it looks waits for this row, and would find the parent ended; one that has
        # ended by the time it is launched or adopted calls nobody.
        while before is None or (not counts["active"] and counts != before):
            before = counts
            undone = _advanced(parent)
            counts = _counts(parent)
        parent.progress_done = counts["done"]
        parent.progress_total = max(parent.progress_total or 0, counts["all"])
        parent.save(update_fields=["progress_done", "progress_total", "progress_message"])
        if counts["active"]:
            return False
        _end(parent, counts, undone)
        return True


def _counts(parent: Run) -> dict[str, int]:
    return parent.children.aggregate(
        all=Count("run_id"),
        active=Count("run_id", filter=Q(status__in=ACTIVE)),
        done=Count("run_id", filter=Q(status__in=ENDED)),
        failed=Count("run_id", filter=Q(status=RunStatus.FAILURE)),
        cancelled=Count("run_id", filter=Q(status=RunStatus.CANCELLED)),
    )


def _advanced(parent: Run) -> str | None:
    """What the parent's function says; what it raises is a reason why the parent fails."""
    try:
        with transaction.atomic():
            return PARENT_JOBS[parent.job](parent)
    except OperationalError:  # passes; the sweep settles the parent again
        raise
    except CannotBeDone as refused:
        return refused.detail
    except Exception as error:
        log.exception("parent run %s (%s) cannot go on", parent.run_id, parent.job)
        return f"{type(error).__name__}: {error}"


def _end(parent: Run, counts: dict[str, int], undone: str | None) -> None:
    status, message = RunStatus.SUCCESS, undone
    if counts["failed"]:
        failed = parent.children.filter(status=RunStatus.FAILURE).order_by("ended_at")
        sentences = [f"{run.job}: {run.error_message}" for run in failed[:5]]
        status = RunStatus.FAILURE
        message = undone or f"{counts['failed']} of its runs failed. " + " ".join(sentences)
    elif counts["cancelled"]:
        status = RunStatus.CANCELLED
    elif undone:
        status = RunStatus.FAILURE
    Run.objects.filter(run_id=parent.run_id).update(
        status=status, error_message=message, ended_at=Clock()
    )


def heal() -> None:
    """Settle parents without an active child: what ended their last one died before it could."""
    stuck = Run.objects.filter(status=RunStatus.STARTED, job__in=PARENT_JOBS).exclude(
        children__status__in=ACTIVE
    )
    for run_id in stuck.values_list("run_id", flat=True):
        if _settle(run_id):
            settle_above(run_id)
