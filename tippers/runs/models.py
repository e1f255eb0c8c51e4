"""Background work as rows. PostgreSQL is the truth; a message only says "look at the table"."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class RunStatus(models.TextChoices):
    """What a run's row says, in the words of the wire."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELLED = "CANCELLED"


ACTIVE = (RunStatus.PENDING, RunStatus.STARTED)
ENDED = (RunStatus.SUCCESS, RunStatus.FAILURE, RunStatus.CANCELLED)

# What a domain row (an index, a job) shows for the state of the run that it points to.
DOMAIN_STATUS = {
    RunStatus.PENDING: "PENDING",
    RunStatus.STARTED: "RUNNING",
    RunStatus.SUCCESS: "COMPLETED",
    RunStatus.FAILURE: "FAILED",
    RunStatus.CANCELLED: "CANCELLED",
}


class Queue(models.TextChoices):
    """Short: seconds to minutes (materializations, roll-ups). Long: minutes to hours."""

    SHORT = "short"
    LONG = "long"


class Run(models.Model):
    """One background job, from launch to its end.

    The state machine; each arrow is one conditional UPDATE in `claims.py` whose row count decides:

        launch            -> PENDING
        PENDING           -> STARTED     claimed by a worker: new token, lease, attempt + 1
        STARTED           -> SUCCESS     the holder of the token finished
        STARTED           -> FAILURE     the holder said that it cannot be done, or failed for
                                         the third time, or ran into its time limit
        STARTED           -> PENDING     an unexpected failure (tried again after a back-off), or
                                         the lease ran out: the worker is gone
        STARTED           -> FAILURE     the tenth worker was lost with it
        PENDING, STARTED  -> CANCELLED   at once; the holder notices within seconds

    A parent run (`parents.py`) consists of its children: it is STARTED from its launch, holds no
    lease, and ends with its last child: FAILURE if any failed, else CANCELLED if any was
    cancelled, else SUCCESS.

    Times are the database's clock. `args` are ids, never secrets.
    """

    run_id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    job = models.CharField(max_length=100)
    queue = models.CharField(max_length=10, choices=Queue.choices)
    args = models.JSONField(default=dict)
    key = models.CharField(max_length=300)
    status = models.CharField(max_length=10, choices=RunStatus.choices, default=RunStatus.PENDING)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    attempt = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    lost_workers = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(db_default=Now())
    token = models.UUIDField(null=True, editable=False)
    owner = models.CharField(max_length=100, default="", blank=True)
    lease_until = models.DateTimeField(null=True)

    progress_done = models.BigIntegerField(default=0)
    progress_total = models.BigIntegerField(null=True)
    progress_unit = models.CharField(max_length=30, default="", blank=True)
    progress_message = models.CharField(max_length=300, default="", blank=True)
    error_message = models.TextField(null=True)

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "runs_run"
        constraints = [
            models.UniqueConstraint(
                fields=["key"],
                condition=models.Q(status__in=["PENDING", "STARTED"]),
                name="one_active_run_per_key",
            )
        ]
        indexes = [
            models.Index(
                fields=["queue", "not_before"],
                condition=models.Q(status="PENDING"),
                name="runs_waiting",
            ),
            models.Index(
                fields=["lease_until"], condition=models.Q(status="STARTED"), name="runs_leases"
            ),
            models.Index(fields=["-created_at"], name="runs_newest_first"),
        ]

    def __str__(self) -> str:
        return f"{self.job} {self.run_id}"

    @property
    def domain_status(self) -> str:
        """The status of the domain row that points to this run (RUNNING, COMPLETED, ...)."""
        return DOMAIN_STATUS[RunStatus(self.status)]


class RunLog(models.Model):
    """A line of a run's log; written outside the work's transaction so that it can be followed."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="logs")
    timestamp = models.DateTimeField()
    level = models.CharField(max_length=10)
    message = models.TextField()

    class Meta:
        db_table = "runs_log"
        indexes = [models.Index(fields=["run", "id"], name="runs_log_of_run")]

    def __str__(self) -> str:
        return f"{self.level} {self.message}"


class Heartbeat(models.Model):
    """A worker process (one slot) or the beat process was alive at `seen_at`."""

    name = models.CharField(max_length=100, primary_key=True)
    kind = models.CharField(max_length=10)  # "worker" or "beat"
    queues = models.CharField(max_length=50, default="", blank=True)
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "runs_heartbeat"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
