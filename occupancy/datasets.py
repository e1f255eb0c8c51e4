"""Datasets: create, read, retry, delete; and what keeps their status true and their work going."""

import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Protocol

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import connection, transaction
from django.db.models import Count, F, Q, QuerySet, Sum, Value

from connections.query import QueryTooSlow
from occupancy import chunks, sessions, spaces
from occupancy.models import OccupancyDataset, OccupancySpaceChunk, Status
from occupancy.series import Series, Shape, as_file
from tippers import storage
from tippers.errors import CannotBeDone, NotFound, NotPossibleNow
from tippers.partitions import Window, aligned_windows
from tippers.runs.claims import Clock
from tippers.runs.engine import launch, workers_alive
from tippers.runs.models import Run

log = logging.getLogger(__name__)

MAX_WINDOWS = 10_000


class _Extent(Protocol):
    """`sessions.extent` or `sessions.scanned_extent`."""

    def __call__(
        self, root_space_id: int, *, now: datetime
    ) -> tuple[datetime, datetime] | None: ...


# --- creating ---------------------------------------------------------------------------------


def create(
    dataset: OccupancyDataset, *, created_by: AbstractBaseUser | AnonymousUser
) -> OccupancyDataset:
    """Save a new dataset and launch its planning; without any data it is COMPLETED at once.

    Fills in the bounds that are missing from the sessions of the root's subtree. NotFound when
    there is no such root, NotPossibleNow when its tree is broken, CannotBeDone when the range is
    empty or has too many windows.
    """
    dataset.created_by_id = getattr(created_by, "pk", None)
    spaces.require_tree(dataset.root_space_id)
    try:
        there = _cover_sessions(dataset, sessions.extent)
    except QueryTooSlow:
        there = True  # for all that is known; the planning looks without haste
    if not there:
        return _without_data(dataset)
    with transaction.atomic():
        dataset.save()
        _launch_planning("occupancy_plan", dataset, created_by)
    dataset.refresh_from_db()
    return dataset


def _cover_sessions(dataset: OccupancyDataset, extent: _Extent) -> bool:
    """Set the bounds that are missing, and the windows; False when there are no sessions in them.

    QueryTooSlow when the bounds could not be found in time.
    """
    start, end = dataset.start_time, dataset.end_time
    if start is None or end is None:
        found = extent(dataset.root_space_id, now=datetime.now(UTC))
        if found is None:
            return False
        start, end = start or found[0], end or found[1]
    covered = _covered(start, end, timedelta(days=dataset.chunk_days))
    dataset.start_time, dataset.end_time = start, end
    try:
        there = sessions.overlap_anywhere(dataset.root_space_id, covered)
    except QueryTooSlow:
        there = True  # or not: then the planning finds none
    if there:
        dataset.chunks_start, dataset.chunks_end = covered.start, covered.end
    return there


def look_for_sessions(dataset: OccupancyDataset) -> None:
    """COMPLETED -> RUNNING for one that was without any data and now is not.

    RUNNING -> COMPLETED for one of which nobody knew, if it is without any.
    """
    unknown = OccupancyDataset.objects.filter(pk=dataset.pk, chunks_start=None)
    spaces.require_tree(dataset.root_space_id)
    if _cover_sessions(dataset, sessions.scanned_extent):
        unknown.update(
            start_time=dataset.start_time,
            end_time=dataset.end_time,
            chunks_start=dataset.chunks_start,
            chunks_end=dataset.chunks_end,
            status=Status.RUNNING,
            completed_at=None,
            planned_at=None,
        )
    else:
        unknown.filter(status=Status.RUNNING).update(
            status=Status.COMPLETED,
            row_count=0,
            column_stats=[],
            completed_at=Clock(),
            planned_at=Clock(),
        )


def _covered(start: datetime, end: datetime, width: timedelta) -> Window:
    if end <= start:
        raise CannotBeDone(
            f"end_time must be after start_time; {end.isoformat()} is not after {start.isoformat()}.",
            field="end_time",
        )
    if (end - start) / width > MAX_WINDOWS:
        raise CannotBeDone(
            f"This range has more than {MAX_WINDOWS:,} windows; shorten it or raise chunk_days.",
            field="chunk_days",
        )
    try:
        windows = aligned_windows(start, end, width=width)
    except OverflowError as error:
        raise CannotBeDone(
            "The windows of this range leave the calendar; use years from 2 to 9997.",
            field="start_time",
        ) from error
    return Window(windows[0].start, windows[-1].end)


def _without_data(dataset: OccupancyDataset) -> OccupancyDataset:
    dataset.status = Status.COMPLETED
    dataset.row_count = 0
    dataset.column_stats = []
    dataset.save()
    OccupancyDataset.objects.filter(pk=dataset.pk).update(completed_at=Clock(), planned_at=Clock())
    dataset.refresh_from_db()
    return dataset


def _launch_planning(
    job: str, dataset: OccupancyDataset, user: AbstractBaseUser | AnonymousUser | None
) -> Run:
    run = launch(
        job,
        key=f"{job}:{dataset.dataset_id}",
        args={"dataset_id": dataset.dataset_id},
        created_by=user,
    )
    OccupancyDataset.objects.filter(pk=dataset.pk).update(run=run)
    return run


def fail_planning(dataset_id: int, run_id: uuid.UUID, reason: str) -> None:
    """RUNNING -> FAILED for a dataset that this run was to plan."""
    OccupancyDataset.objects.filter(
        pk=dataset_id, run_id=run_id, status=Status.RUNNING, planned_at=None
    ).update(status=Status.FAILED, error_message=reason, completed_at=Clock())


def retry(
    dataset: OccupancyDataset, *, created_by: AbstractBaseUser | AnonymousUser
) -> dict[str, int]:
    """Put the dataset's failed chunks back to PENDING and plan again, which finds what is missing.

    Harmless when nothing has failed. `reset` and `resubmitted` are numbers of chunks.
    """
    with chunks.exclusively():
        failed = _reopen_failed(dataset)
        reset = chunks.retry_failed(
            dataset.root_space_id, _all_chunks(dataset), dataset_id=dataset.dataset_id
        )
        if failed or reset:
            _launch_planning("occupancy_plan", dataset, created_by)
    return {"reset": reset, "resubmitted": reset}


def refresh(dataset: OccupancyDataset, *, created_by: AbstractBaseUser | AnonymousUser) -> Run:
    """Launch a run that puts back what is provisional, has failed, or has other sessions by now.

    Everything else stays as it is, and so does the dataset's status while nothing is put back. How
    many chunks it was is in the run's log.
    """
    with chunks.exclusively():
        _reopen_failed(dataset)
        return _launch_planning("occupancy_refresh", dataset, created_by)


def _reopen_failed(dataset: OccupancyDataset) -> bool:
    return bool(
        OccupancyDataset.objects.filter(pk=dataset.pk, status=Status.FAILED).update(
            status=Status.RUNNING, error_message=None, planned_at=None, completed_at=None
        )
    )


# --- reading ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What there is of one space of a dataset; `rows` only when every chunk is complete.

    Some of the rows may change while they are `provisional`. `data_faults` are the space's own
    sessions that end before they start.
    """

    space_id: int
    status: str
    completed_chunks: int
    total_chunks: int
    error: str | None = None
    provisional: bool = False
    data_faults: int = 0
    rows: list[dict[str, Any]] | None = None
    total_rows: int = 0


def results(
    dataset: OccupancyDataset, *, space_id: int, shape: Shape, skip: int, limit: int
) -> Results:
    """The rows of a space of the dataset's tree, those whose bin overlaps [start, end).

    While something is missing, how much there is; when something failed, why. NotFound for a space
    outside the tree.
    """
    so_far, complete = _so_far(dataset, space_id)
    if so_far.status != Status.COMPLETED:
        return so_far
    try:
        series = Series(dataset, complete, shape)
        rows = [row for table in series.tables(skip, limit) for row in table.to_pylist()]
    except chunks.Lost as lost:
        return _running_again(so_far, lost)
    for row in rows:
        row["interval_begin_time"] = row["interval_begin_time"].isoformat()
    return replace(so_far, rows=rows, total_rows=series.total)


def download(
    dataset: OccupancyDataset,
    *,
    space_id: int,
    shape: Shape,
    skip: int,
    limit: int | None,
    file_format: str,
) -> IO[bytes]:
    """The rows that `results` has, all of them unless there is a limit, as a file.

    NotPossibleNow while something is missing. Times are texts in CSV, as in JSON.
    """
    so_far, complete = _so_far(dataset, space_id)
    if so_far.status == Status.COMPLETED:
        try:
            tables = Series(dataset, complete, shape).tables(skip, limit)
            return as_file(tables, file_format)
        except chunks.Lost as lost:
            so_far = _running_again(so_far, lost)
    why = f": {so_far.error}" if so_far.error else ""
    raise NotPossibleNow(
        f"Space {space_id} is {so_far.status}{why}; {so_far.completed_chunks} of "
        f"{so_far.total_chunks} chunks are complete."
    )


def _so_far(dataset: OccupancyDataset, space_id: int) -> tuple[Results, list[OccupancySpaceChunk]]:
    """How far a space is, without rows; and those of its chunks that are complete."""
    _refuse_outside(dataset, space_id)
    total = _window_count(dataset)
    found = list(_all_chunks(dataset).filter(space_id=space_id).order_by("chunk_start"))
    complete = [chunk for chunk in found if chunk.status == Status.COMPLETED]
    failed = next((chunk for chunk in found if chunk.status == Status.FAILED), None)
    planned = dataset.planned_at is not None
    # Once planned, a window without a chunk is one in which nobody was there.
    done = total - (len(found) - len(complete)) if planned else len(complete)
    status, error = Status.RUNNING, None
    if planned and failed is not None:
        status, error = Status.FAILED, failed.error_message
    elif not planned and dataset.status == Status.FAILED:
        status, error = Status.FAILED, dataset.error_message
    elif planned and done == total:
        status = Status.COMPLETED
    so_far = Results(
        space_id,
        status.value,
        done,
        total,
        error,
        provisional=any(chunk.provisional for chunk in complete),
        data_faults=sum(chunk.data_faults for chunk in complete),
    )
    return so_far, complete


def _running_again(so_far: Results, lost: chunks.Lost) -> Results:
    """Have the lost files made again; what can be said until they are."""
    chunks.compute_again(lost)
    keep_going()
    done = so_far.completed_chunks - len(lost.chunks)
    return replace(so_far, status=Status.RUNNING.value, completed_chunks=done)


@dataclass(frozen=True)
class SpaceProgress:
    """How many of a space's windows are done or have failed, and what is to be said of the rest.

    A window in which nobody was there is done as soon as the dataset is planned.
    """

    space_id: int
    space_name: str | None
    parent_space_id: int | None
    done: int
    total: int
    failed: int
    provisional: int  # of those that are done
    data_faults: int  # own sessions that end before they start


@dataclass(frozen=True)
class Progress:
    """A dataset's spaces in the order of their names, and the sums over all of them."""

    spaces: list[SpaceProgress]
    done: int
    total: int
    failed: int
    provisional: int
    data_faults: int


def progress(dataset: OccupancyDataset) -> Progress:
    """How far every space of the dataset's tree is."""
    tree = spaces.subtree(dataset.root_space_id)
    windows = _window_count(dataset)
    planned = dataset.planned_at is not None
    found = {space_id: counts for space_id, *counts in _counted_by_space(dataset)}
    each = []
    for space in tree:
        known, complete, failed, provisional, faults = found.get(space.space_id, _NO_CHUNKS)
        done = windows - (known - complete) if planned else complete
        each.append(
            SpaceProgress(
                space.space_id,
                space.space_name,
                space.parent_space_id,
                done,
                windows,
                failed,
                provisional,
                faults,
            )
        )
    sums = {
        name: sum(getattr(space, name) for space in each)
        for name in ("done", "total", "failed", "provisional", "data_faults")
    }
    return Progress(each, **sums)


_NO_CHUNKS = (0, 0, 0, 0, 0)


def _counted_by_space(dataset: OccupancyDataset) -> Iterable[tuple[int, ...]]:
    """Space, chunks, and of them those complete, failed, complete and provisional; faults."""
    is_complete = Q(status=Status.COMPLETED)
    return (
        _all_chunks(dataset)
        .values("space_id")
        .annotate(
            known=Count("chunk_id"),
            complete=Count("chunk_id", filter=is_complete),
            failed=Count("chunk_id", filter=Q(status=Status.FAILED)),
            open=Count("chunk_id", filter=is_complete & Q(provisional=True)),
            faults=Sum("data_faults", filter=is_complete, default=0),
        )
        .values_list("space_id", "known", "complete", "failed", "open", "faults")
    )


def _refuse_outside(dataset: OccupancyDataset, space_id: int) -> None:
    if space_id == dataset.root_space_id:
        return
    above = {space.space_id for space in spaces.ancestors(space_id)}
    if dataset.root_space_id not in above:
        raise NotFound(f"Space {space_id} does not lie in space {dataset.root_space_id}.")


def _all_chunks(dataset: OccupancyDataset) -> "QuerySet[OccupancySpaceChunk]":
    """The chunks in the dataset's windows, of whatever space."""
    if dataset.chunks_start is None or dataset.chunks_end is None:
        return OccupancySpaceChunk.objects.none()
    # Of this width only: windows of other widths may lie inside these.
    return OccupancySpaceChunk.objects.filter(
        interval_seconds=dataset.interval_seconds,
        chunk_start__gte=dataset.chunks_start,
        chunk_end__lte=dataset.chunks_end,
        chunk_end=F("chunk_start") + Value(timedelta(days=dataset.chunk_days)),
    )


def _window_count(dataset: OccupancyDataset) -> int:
    if dataset.chunks_start is None or dataset.chunks_end is None:
        return 0
    return (dataset.chunks_end - dataset.chunks_start) // timedelta(days=dataset.chunk_days)


# --- keeping status true and work going -------------------------------------------------------


def tick() -> None:
    """Whatever was missed: lost chunks back, statuses true, waiting work under way."""
    chunks.sweep()
    settle()
    keep_going()


def keep_going() -> None:
    """Launch a drain for each slot of the long queue that has work, and the roll-up if it has any.

    Call it when the chunks in question are committed, and so is the end of the run which had the
    same key: a run that is about to end would otherwise swallow the launch.
    """
    slots = max(workers_alive("long"), 1)  # while none is seen, one drain waits for the first
    for slot in range(chunks.waiting_windows(slots)):
        launch("occupancy_drain", key=f"occupancy_drain:{slot}", args={})
    nudge_roll_up()


def nudge_roll_up() -> None:
    """Launch the roll-up if a derived chunk waits for nothing else."""
    if chunks.to_roll_up():
        launch("occupancy_rollup", key="occupancy_rollup", args={})


def settle() -> None:
    """Make the status of every dataset true; see the state machine in the model."""
    with connection.cursor() as cursor:
        cursor.execute(_REOPEN)
        cursor.execute(_FAIL)
    for dataset in OccupancyDataset.objects.raw(_READY):
        # One dataset whose files are gone must not keep the others, and all work, from going on.
        try:
            _complete(dataset)
        except chunks.Lost as lost:
            log.warning("dataset %s waits: %s", dataset.dataset_id, lost)
            chunks.compute_again(lost)
        except storage.StorageError as error:
            log.warning("dataset %s waits for the next tick: %s", dataset.dataset_id, error)


def _complete(dataset: OccupancyDataset) -> None:
    from concepts.column_stats import ColumnStats
    from occupancy.chunk_files import SCHEMA

    root = _all_chunks(dataset).filter(space_id=dataset.root_space_id, status=Status.COMPLETED)
    series = Series(dataset, list(root))
    stats = ColumnStats()
    stats.add(SCHEMA.empty_table())
    for table in series.tables():
        stats.add(table)
    folder = chunks.storage_folder(dataset.root_space_id, dataset.interval_seconds)
    with connection.cursor() as cursor:
        # Ready still, after the time it took to read: a plan may have put a chunk back meanwhile.
        cursor.execute(
            f"UPDATE occupancy_datasets SET status = 'COMPLETED', row_count = %s, "  # noqa: S608 - constants
            f"column_stats = %s, storage_path = %s, error_message = NULL, "
            f"completed_at = clock_timestamp() WHERE dataset_id IN ({_READY_IDS}) "
            f"AND dataset_id = %s",
            [
                series.total,
                json.dumps(stats.found()),
                storage.uri(folder),
                dataset.dataset_id,
            ],
        )


# The root's chunks are the last to be complete, and fail when anything below them does.
_OF_ROOT = """occupancy_space_chunks c
     WHERE c.space_id = d.root_space_id AND c.interval_seconds = d.interval_seconds
       AND c.chunk_start >= d.chunks_start AND c.chunk_end <= d.chunks_end
       AND c.chunk_end - c.chunk_start = make_interval(days => d.chunk_days)"""
_REOPEN = f"""
    UPDATE occupancy_datasets d SET status = 'RUNNING', completed_at = NULL, error_message = NULL
     WHERE d.status IN ('COMPLETED', 'FAILED') AND d.planned_at IS NOT NULL
       AND EXISTS (SELECT 1 FROM {_OF_ROOT} AND c.status IN ('PENDING', 'RUNNING'))
       AND NOT EXISTS (SELECT 1 FROM {_OF_ROOT} AND c.status = 'FAILED')
"""  # noqa: S608 - constants
# Until all is planned, what failed may be of another dataset, before the plan has put it back.
_FAIL = f"""
    UPDATE occupancy_datasets d
       SET status = 'FAILED', completed_at = clock_timestamp(), error_message = why.reason
      FROM (SELECT d.dataset_id, CASE WHEN d.planned_at IS NULL THEN
                (SELECT coalesce(r.error_message, 'The planning was cancelled.')
                   FROM runs_run r
                  WHERE r.run_id = d.run_id AND r.status IN ('FAILURE', 'CANCELLED'))
                ELSE (SELECT c.error_message FROM {_OF_ROOT} AND c.status = 'FAILED'
                       ORDER BY c.chunk_start LIMIT 1) END AS reason
              FROM occupancy_datasets d WHERE d.status = 'RUNNING') AS why
     WHERE d.dataset_id = why.dataset_id AND d.status = 'RUNNING' AND why.reason IS NOT NULL
"""  # noqa: S608 - constants
# While it is planned anew, the next windows may be about to be put back.
_READY_IDS = f"""
    SELECT d.dataset_id FROM occupancy_datasets d
     WHERE d.status = 'RUNNING' AND d.planned_at IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM runs_run r
                        WHERE r.run_id = d.run_id AND r.status IN ('PENDING', 'STARTED'))
       AND NOT EXISTS (SELECT 1 FROM {_OF_ROOT} AND c.status <> 'COMPLETED')
"""  # noqa: S608 - constants
_READY = f"SELECT * FROM occupancy_datasets WHERE dataset_id IN ({_READY_IDS})"  # noqa: S608 - constants
