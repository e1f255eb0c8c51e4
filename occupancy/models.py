"""What was asked for (a dataset) and the pieces in which it is computed and kept (chunks)."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now

from tippers.runs.models import Run

# All divide a day, so bins never straddle two windows.
INTERVALS = (900, 1800, 3600, 7200, 14400, 28800, 86400)
MAX_CHUNK_DAYS = 366


class Status(models.TextChoices):
    """Of a dataset and of a chunk, in the words of the wire."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class OccupancyDataset(models.Model):
    """Occupancy of a space and of all below it, from `start_time` up to `end_time`.

    It owns no results: those are the chunks of its root's tree between `chunks_start` and
    `chunks_end`, which other datasets share. Its status follows them, by conditional UPDATEs in
    `datasets.settle`:

        RUNNING            -> COMPLETED  planned, and every chunk of the root is complete
        RUNNING            -> FAILED     planned, and a chunk of the root failed; or the planning did
        COMPLETED, FAILED  -> RUNNING    a chunk of the root is computed again
    """

    dataset_id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=255)
    description = models.TextField(null=True, blank=True)
    root_space_id = models.IntegerField()
    start_time = models.DateTimeField(null=True, blank=True)
    end_time = models.DateTimeField(null=True, blank=True)
    interval_seconds = models.IntegerField(default=3600)
    chunk_days = models.IntegerField(
        default=30, validators=[MinValueValidator(1), MaxValueValidator(MAX_CHUNK_DAYS)]
    )
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.RUNNING)
    storage_path = models.TextField(null=True, blank=True)
    row_count = models.BigIntegerField(null=True, blank=True)
    column_stats = models.JSONField(null=True, blank=True)
    error_message = models.TextField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now())
    completed_at = models.DateTimeField(null=True, blank=True)

    # The aligned windows that cover [start_time, end_time), as one range; null without any data.
    chunks_start = models.DateTimeField(null=True, editable=False)
    chunks_end = models.DateTimeField(null=True, editable=False)
    # The run that wrote, or is to write, the chunks' rows; the others belong to no one dataset.
    run = models.ForeignKey(
        Run, null=True, editable=False, on_delete=models.SET_NULL, related_name="+"
    )
    planned_at = models.DateTimeField(null=True, editable=False)
    last_claimed_at = models.DateTimeField(null=True, editable=False)  # whose turn it is
    # Of one batch; halved when one took too much memory or time, or its worker with it, and growing
    # again with each that is completed. Null: `chunks.BATCH_SESSIONS`.
    sessions_at_once = models.PositiveIntegerField(null=True, editable=False)

    class Meta:
        db_table = "occupancy_datasets"
        ordering = ["-created_at", "-dataset_id"]
        indexes = [
            models.Index(fields=["-created_at", "-dataset_id"], name="occupancy_datasets_newest")
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(interval_seconds__in=INTERVALS),
                name="occupancy_interval_divides_a_day",
            )
        ]

    def __str__(self) -> str:
        return self.name


class OccupancySpaceChunk(models.Model):
    """Occupancy of one space in one window, in bins of one width; kept as one Parquet file.

    There is a chunk where the space, or one below it, has sessions that overlap the window;
    elsewhere there is none, and nobody was there. A *source* has sessions of its own and nothing
    below it; a *derived* one has chunks below it (`parent_space_id` names the space above, as the
    plan found it), and perhaps sessions of its own.

    The state machine; each arrow is a conditional UPDATE in `chunks.py`:

        (plan)     -> PENDING    and again when it is not final, has failed, or something below it
                                 is computed again or has changed
        PENDING    -> RUNNING    claimed by a run, whose token it takes: the run's lease is its lease
        RUNNING    -> COMPLETED  the holder of the token put the file in place
        RUNNING    -> PENDING    the attempt failed: in a batch of half the size, or, alone, after a
                                 back-off; or no running run holds its token any more
        RUNNING    -> FAILED     computed alone, it cannot be done, or failed for the third time, or
                                 took the tenth worker with it; so does, from PENDING, all above it

    It is final, and never computed again for its age, when it is COMPLETED and not `provisional`.
    Times are the database's clock.
    """

    class SpaceType(models.TextChoices):
        SOURCE = "source"
        DERIVED = "derived"

    chunk_id = models.BigAutoField(primary_key=True)
    space_id = models.IntegerField()
    parent_space_id = models.IntegerField(null=True)
    interval_seconds = models.IntegerField()
    chunk_start = models.DateTimeField()
    chunk_end = models.DateTimeField()
    space_type = models.CharField(max_length=10, choices=SpaceType.choices)
    session_count = models.BigIntegerField(default=0)  # its own, when it was planned
    # Of its own sessions, read before they were pulled: a session that arrives between the two is
    # computed twice, and never missed. Null without sessions of its own.
    fingerprint = models.CharField(max_length=32, null=True, editable=False)

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    # Who asked last, for taking turns; not a foreign key, because a chunk outlives its datasets.
    dataset_id = models.BigIntegerField(null=True)
    token = models.UUIDField(null=True, editable=False)
    attempt = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)  # of the attempts; the rest lost their worker
    not_before = models.DateTimeField(db_default=Now())
    error_message = models.TextField(null=True)
    # No more than so many are computed together with this one, because a larger batch failed; then
    # without what lies above them. Null: as many as there are.
    at_once = models.PositiveIntegerField(null=True, editable=False)

    storage_path = models.TextField(null=True)
    row_count = models.BigIntegerField(null=True)
    content_hash = models.CharField(max_length=64, null=True)  # SHA-256 of the file
    inputs_hash = models.CharField(max_length=32, null=True)  # of the chunks that it sums
    provisional = models.BooleanField(default=True)  # not settled, or with open sessions
    data_faults = models.BigIntegerField(default=0)  # own sessions that end before they start

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)  # of this attempt; no session after it is in
    completed_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "occupancy_space_chunks"
        constraints = [
            models.UniqueConstraint(
                fields=["space_id", "interval_seconds", "chunk_start", "chunk_end"],
                name="one_chunk_per_space_and_window",
            )
        ]
        indexes = [
            models.Index(
                fields=["parent_space_id", "interval_seconds", "chunk_start", "chunk_end"],
                name="occupancy_chunks_below",
            ),
            models.Index(
                fields=["dataset_id", "chunk_start", "-at_once"],
                condition=models.Q(status="PENDING", space_type="source"),
                name="occupancy_chunks_waiting",
            ),
            models.Index(
                fields=["interval_seconds", "chunk_start", "chunk_end"],
                condition=models.Q(status="PENDING", space_type="derived"),
                name="occupancy_chunks_to_roll_up",
            ),
            # All chunks of one place, of which there may be hundreds of thousands in other places.
            models.Index(
                fields=["interval_seconds", "chunk_start", "chunk_end"],
                name="occupancy_chunks_place",
            ),
            models.Index(
                fields=["token"],
                condition=models.Q(status="RUNNING"),
                name="occupancy_chunks_held",
            ),
            models.Index(
                fields=["space_id"],
                condition=models.Q(status="FAILED"),
                name="occupancy_chunks_failed",
            ),
            # For the time limits, which follow what the newest took.
            models.Index(
                fields=["interval_seconds", "space_type", "completed_at"],
                condition=models.Q(status="COMPLETED"),
                name="occupancy_chunks_took",
            ),
        ]

    def __str__(self) -> str:
        return f"space {self.space_id} from {self.chunk_start:%Y-%m-%d %H:%M}"
