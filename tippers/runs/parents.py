"""Parent runs: work that consists of other runs, launched in the order in which they become ready.

An app declares how a parent goes on:

    @parent_job
    def materialize_concept(parent: Run) -> None: ...   # launches, with parent=, what is ready now

The function is called at the launch and whenever a child has ended, one call at a time. When it
leaves no child active, the parent ends.
"""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import transaction
from django.db.models import Count, Q

from tippers.runs.claims import Clock
from tippers.runs.models import ACTIVE, ENDED, Queue, Run, RunStatus

Advance = Callable[[Run], None]
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
) -> Run:
    """Write the parent and launch its first children, in one transaction.

    It is STARTED at once and holds no lease. While a parent with the same key is active, that one
    is returned. With nothing to do it has ended when this returns.
    """
    with transaction.atomic():
        run = Run(
            job=job_name,
            queue=Queue.SHORT,
            args=args,
            key=key,
            status=RunStatus.STARTED,
            created_by_id=getattr(created_by, "pk", None),
            progress_unit="assets",
        )
        Run.objects.bulk_create([run], ignore_conflicts=True)
        Run.objects.filter(run_id=run.run_id).update(started_at=Clock())
        active = Run.objects.filter(key=key, status__in=ACTIVE).get()
        settle(active.run_id)
    active.refresh_from_db()
    return active


def settle(parent_id: uuid.UUID) -> None:
    """Let the parent go on, and end it when no child is active.

    The row lock makes the last of two children that end at the same instant see the other's end.
    """
    with transaction.atomic():
        parent = (
            Run.objects.select_for_update().filter(run_id=parent_id, status=RunStatus.STARTED)
        ).first()
        if parent is None:
            return
        PARENT_JOBS[parent.job](parent)
        counts = parent.children.aggregate(
            active=Count("run_id", filter=Q(status__in=ACTIVE)),
            done=Count("run_id", filter=Q(status__in=ENDED)),
            failed=Count("run_id", filter=Q(status=RunStatus.FAILURE)),
            cancelled=Count("run_id", filter=Q(status=RunStatus.CANCELLED)),
        )
        parent.progress_done = counts["done"]
        parent.progress_total = max(parent.progress_total or 0, counts["done"] + counts["active"])
        parent.save(update_fields=["progress_done", "progress_total"])
        if not counts["active"]:
            _end(parent, counts)


def _end(parent: Run, counts: dict[str, int]) -> None:
    status, message = RunStatus.SUCCESS, None
    if counts["failed"]:
        failed = parent.children.filter(status=RunStatus.FAILURE).order_by("ended_at")
        sentences = [f"{run.job}: {run.error_message}" for run in failed[:5]]
        status = RunStatus.FAILURE
        message = f"{counts['failed']} of its runs failed. " + " ".join(sentences)
    elif counts["cancelled"]:
        status = RunStatus.CANCELLED
    Run.objects.filter(run_id=parent.run_id).update(
        status=status, error_message=message, ended_at=Clock()
    )


def heal() -> None:
    """Settle parents without an active child: what ended their last one died before it could."""
    stuck = Run.objects.filter(status=RunStatus.STARTED, job__in=PARENT_JOBS).exclude(
        children__status__in=ACTIVE
    )
    for run_id in stuck.values_list("run_id", flat=True):
        settle(run_id)
