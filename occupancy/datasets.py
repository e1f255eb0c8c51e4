"""Datasets: create, read, retry, delete; and what keeps their status true and their work going."""

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import connection, transaction
from django.db.models import F, QuerySet, Value

from occupancy import chunks, sessions, spaces
from occupancy.models import OccupancyDataset, OccupancySpaceChunk, Status
from tippers import storage
from tippers.errors import CannotBeDone, NotFound
from tippers.partitions import Window, aligned_windows
from tippers.runs.claims import Clock
from tippers.runs.engine import launch, workers_alive
from tippers.runs.models import Run

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

MAX_WINDOWS = 10_000


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
    if not _cover_sessions(dataset):
        return _without_data(dataset)
    with transaction.atomic():
        dataset.save()
        _launch_planning("occupancy_plan", dataset, created_by)
    dataset.refresh_from_db()
    return dataset


def _cover_sessions(dataset: OccupancyDataset) -> bool:
    """Set the bounds that are missing, and the windows; False when there are no sessions in them."""
    space_ids = spaces.parents_below(dataset.root_space_id).keys()
    start, end = dataset.start_time, dataset.end_time
    if start is None or end is None:
        extent = sessions.extent(space_ids, now=datetime.now(UTC))
        if extent is None:
            return False
        start, end = start or extent[0], end or extent[1]
    covered = _covered(start, end, timedelta(days=dataset.chunk_days))
    dataset.start_time, dataset.end_time = start, end
    if not sessions.overlap_anywhere(space_ids, covered):
        return False
    dataset.chunks_start, dataset.chunks_end = covered.start, covered.end
    return True


def look_for_sessions(dataset: OccupancyDataset) -> None:
    """COMPLETED -> RUNNING for one that was without any data and now is not."""
    if _cover_sessions(dataset):
        OccupancyDataset.objects.filter(pk=dataset.pk, chunks_start=None).update(
            start_time=dataset.start_time,
            end_time=dataset.end_time,
            chunks_start=dataset.chunks_start,
            chunks_end=dataset.chunks_end,
            status=Status.RUNNING,
            completed_at=None,
            planned_at=None,
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
    """What there is of one space of a dataset; `rows` only when every chunk is complete."""

    space_id: int
    status: str
    completed_chunks: int
    total_chunks: int
    error: str | None = None
    rows: list[dict[str, Any]] | None = None
    total_rows: int = 0


def results(dataset: OccupancyDataset, *, space_id: int, skip: int, limit: int) -> Results:
    """The rows of a space of the dataset's tree, those whose bin overlaps [start, end), in order.

    While something is missing, how much there is; when something failed, why. NotFound for a space
    outside the tree.
    """
    _refuse_outside(dataset, space_id)
    total = _window_count(dataset)
    found = list(_all_chunks(dataset).filter(space_id=space_id).order_by("chunk_start"))
    complete = [chunk for chunk in found if chunk.status == Status.COMPLETED]
    failed = next((chunk for chunk in found if chunk.status == Status.FAILED), None)
    planned = dataset.planned_at is not None
    # Once planned, a window without a chunk is one in which nobody was there.
    done = total - (len(found) - len(complete)) if planned else len(complete)
    so_far = Results(space_id, Status.RUNNING.value, done, total)
    if failed is not None:
        return replace(so_far, status=Status.FAILED.value, error=failed.error_message)
    if not planned and dataset.status == Status.FAILED:
        return replace(so_far, status=Status.FAILED.value, error=dataset.error_message)
    if not planned or done < total:
        return so_far
    try:
        table, total_rows = _page(dataset, complete, skip, limit)
    except chunks.Lost as lost:
        chunks.compute_again(lost)
        keep_going()
        return replace(so_far, completed_chunks=done - len(lost.chunks))
    rows = [
        {**row, "interval_begin_time": row["interval_begin_time"].isoformat()}
        for row in table.to_pylist()
    ]
    return replace(so_far, status=Status.COMPLETED.value, rows=rows, total_rows=total_rows)


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


def _page(
    dataset: OccupancyDataset, complete: Sequence[OccupancySpaceChunk], skip: int, limit: int
) -> "tuple[pa.Table, int]":
    """A slice of the rows of these chunks, in order of time, and how many rows there are in all.

    Read are the files that the page needs, and those that stick out of the dataset's range.
    """
    cut = [chunk for chunk in complete if not _is_inside(dataset, chunk)]
    tables = {
        chunk.pk: _in_range(dataset, table)
        for chunk, table in zip(cut, chunks.tables(cut), strict=True)
    }
    total = 0
    wanted: list[tuple[OccupancySpaceChunk, int, int]] = []
    for chunk in complete:
        rows = tables[chunk.pk].num_rows if chunk.pk in tables else chunk.row_count or 0
        low, high = max(skip - total, 0), min(skip + limit - total, rows)
        if low < high:
            wanted.append((chunk, low, high - low))
        total += rows
    whole = [chunk for chunk, _, _ in wanted if chunk.pk not in tables]
    tables |= {chunk.pk: table for chunk, table in zip(whole, chunks.tables(whole), strict=True)}
    return _together([tables[chunk.pk].slice(low, rows) for chunk, low, rows in wanted]), total


def _rows_in_range(
    dataset: OccupancyDataset, complete: Sequence[OccupancySpaceChunk]
) -> "pa.Table":
    """The rows of these chunks whose bin overlaps [start_time, end_time), in order of time."""
    return _in_range(dataset, _together(chunks.tables(complete)))


def _together(tables: "list[pa.Table]") -> "pa.Table":
    import pyarrow as pa

    from occupancy.batches import SCHEMA

    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def _is_inside(dataset: OccupancyDataset, chunk: OccupancySpaceChunk) -> bool:
    """Whether every bin of the chunk overlaps the dataset's range."""
    if dataset.start_time is None or dataset.end_time is None:
        return True
    width = timedelta(seconds=dataset.interval_seconds)
    first, last = chunk.chunk_start, chunk.chunk_end - width
    return first + width > dataset.start_time and last < dataset.end_time


def _in_range(dataset: OccupancyDataset, table: "pa.Table") -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    if dataset.start_time is None or dataset.end_time is None:
        return table
    begin = table["interval_begin_time"]
    first = _naive(dataset.start_time - timedelta(seconds=dataset.interval_seconds))
    until = _naive(dataset.end_time)
    inside = pc.and_(
        pc.greater(begin, pa.scalar(first, pa.timestamp("us"))),
        pc.less(begin, pa.scalar(until, pa.timestamp("us"))),
    )
    return table.filter(inside)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


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
    from concepts.column_stats import column_stats

    root = _all_chunks(dataset).filter(space_id=dataset.root_space_id, status=Status.COMPLETED)
    table = _rows_in_range(dataset, list(root.order_by("chunk_start")))
    folder = chunks.storage_folder(dataset.root_space_id, dataset.interval_seconds)
    with connection.cursor() as cursor:
        # Ready still, after the time it took to read: a plan may have put a chunk back meanwhile.
        cursor.execute(
            f"UPDATE occupancy_datasets SET status = 'COMPLETED', row_count = %s, "  # noqa: S608 - constants
            f"column_stats = %s, storage_path = %s, error_message = NULL, "
            f"completed_at = clock_timestamp() WHERE dataset_id IN ({_READY_IDS}) "
            f"AND dataset_id = %s",
            [
                table.num_rows,
                json.dumps(column_stats(table)),
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
_FAIL = f"""
    UPDATE occupancy_datasets d
       SET status = 'FAILED', completed_at = clock_timestamp(), error_message = why.reason
      FROM (SELECT d.dataset_id, coalesce(
                CASE WHEN d.planned_at IS NULL THEN
                    (SELECT coalesce(r.error_message, 'The planning was cancelled.')
                       FROM runs_run r
                      WHERE r.run_id = d.run_id AND r.status IN ('FAILURE', 'CANCELLED')) END,
                (SELECT c.error_message FROM {_OF_ROOT} AND c.status = 'FAILED'
                  ORDER BY c.chunk_start LIMIT 1)) AS reason
              FROM occupancy_datasets d WHERE d.status = 'RUNNING') AS why
     WHERE d.dataset_id = why.dataset_id AND d.status = 'RUNNING' AND why.reason IS NOT NULL
"""  # noqa: S608 - constants
_READY_IDS = f"""
    SELECT d.dataset_id FROM occupancy_datasets d
     WHERE d.status = 'RUNNING' AND d.planned_at IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM {_OF_ROOT} AND c.status <> 'COMPLETED')
"""  # noqa: S608 - constants
_READY = f"SELECT * FROM occupancy_datasets WHERE dataset_id IN ({_READY_IDS})"  # noqa: S608 - constants
