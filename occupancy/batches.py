"""The work of the background: claim chunks of one window, pull its sessions once, publish them all."""

import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from django.db import OperationalError

from occupancy import chunks, datasets, sessions
from occupancy.binning import Binned, Bins, bin_sessions, cut
from occupancy.chunk_files import as_parquet, table_of, tables_of
from occupancy.chunks import Batch, Known, Made
from occupancy.models import OccupancySpaceChunk
from occupancy.rollup import added_up
from tippers.errors import CannotBeDone, Unavailable
from tippers.partitions import Window
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped

# Then another run gets the slot, so that a large dataset never keeps a small job waiting.
YIELD_AFTER_S = 20.0
SLICE_SESSIONS = 500_000  # pulled and counted at once


def drain(run: RunHandle) -> None:
    """Compute sources, and what is complete above them, until none waits or the time is up."""
    deadline = time.monotonic() + YIELD_AFTER_S
    limits = _Limits()
    done = 0
    while time.monotonic() < deadline and (batch := chunks.claim_sources(run.token)):
        done += _perform(run, batch, limits)
        run.progress(done, unit="chunks")
        datasets.settle()
        datasets.nudge_roll_up()


def roll_up(run: RunHandle) -> None:
    """Compute the derived chunks that wait for nothing, until none does or the time is up."""
    deadline = time.monotonic() + YIELD_AFTER_S
    limits = _Limits()
    done = 0
    while time.monotonic() < deadline and (batch := chunks.claim_to_roll_up(run.token)):
        done += _perform(run, batch, limits)
        run.progress(done, unit="chunks")
        datasets.settle()


class TooLong(Exception):
    """A batch took longer than its time limit."""


class _Limited:
    """A run during one batch, which has a time limit of its own: run time only, queues apart."""

    def __init__(self, run: RunHandle, limit: timedelta) -> None:
        self._run = run
        self._limit = limit
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._over = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time runs while the block does; past it, what the block waits for is stopped."""
        timer = threading.Timer(self._limit.total_seconds(), self._stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def on_stop(self, stop: Callable[[], None]) -> Iterator[None]:
        """As `RunHandle.on_stop`, and also when the time is over."""
        with self._lock:
            self._stops.append(stop)
        try:
            self.check()
            with self._run.on_stop(stop):
                yield
        finally:
            with self._lock:
                self._stops.remove(stop)
        self.check()

    def check(self) -> None:
        """Raise Stopped as the run does, or TooLong."""
        self._run.check()
        if self._over:
            raise TooLong(f"It took longer than {self._limit}.")

    def _stop(self) -> None:
        self._over = True
        with self._lock:
            stops = list(self._stops)
        for stop in stops:
            stop()


class _Limits(dict[tuple[int, str], timedelta]):
    """The time limits of one run's batches, asked for once: they change slowly."""

    def __missing__(self, kind: tuple[int, str]) -> timedelta:
        self[kind] = chunks.time_limit(*kind)
        return self[kind]


def _perform(run: RunHandle, batch: Batch, limits: _Limits) -> int:
    """Make and publish a batch; what goes wrong becomes the state of its chunks. Chunks published."""
    began = time.monotonic()
    # A batch of sources is known by its first; what is above them comes last.
    limited = _Limited(run, limits[batch.place.interval_seconds, batch.held[0].space_type])
    dataset_ids = {chunk.dataset_id for chunk in batch.held}
    try:
        with limited.running():
            made = _made(limited, batch)
            limited.check()
        published = chunks.publish(run.token, made)
    except (Stopped, LostLease):
        raise  # the token is void; the sweep gives the chunks to another run
    except chunks.Lost as lost:
        run.log(f"{lost}; they are computed again", "WARNING")
        chunks.compute_again(lost, token=run.token)
        return 0
    except CannotBeDone as refused:
        run.log(f"{_shown(batch)}: {refused.detail}", "ERROR")
        chunks.fail_or_divide(run.token, refused.detail, for_good=True)
        return 0
    except (Unavailable, OperationalError) as outage:
        run.check()  # a query that was stopped from outside is no failure
        run.log(f"{_shown(batch)}: {outage}", "WARNING")
        chunks.retry_after_outage(run.token, f"{type(outage).__name__}: {outage}")
        return 0
    except Exception as error:  # noqa: BLE001 - recorded on the chunks, which are tried again or failed
        run.check()  # as above
        reason = _said(error, limited)
        run.log(f"{_shown(batch)}: {traceback.format_exc()}", "ERROR")
        if isinstance(reason, MemoryError | TooLong):
            chunks.take_less(dataset_ids)
        chunks.fail_or_divide(run.token, f"{type(reason).__name__}: {reason}", for_good=False)
        return 0
    chunks.take_more(dataset_ids)
    if discarded := len(batch.held) - published:
        run.log(f"{discarded} chunks were no longer ours and are discarded", "WARNING")
    if faults := sum(each.data_faults for each in made):
        run.log(f"{faults} sessions end before they start and are not counted", "WARNING")
    run.log(f"{_shown(batch)}: {published} published in {time.monotonic() - began:.1f} s")
    return published


def _said(error: Exception, limited: _Limited) -> Exception:
    """What went wrong; a query that our time limit stopped only says that it was stopped."""
    try:
        limited.check()
    except TooLong as too_long:
        return too_long
    return error


def _shown(batch: Batch) -> str:
    return f"{len(batch.held)} chunks from {batch.place.window.start:%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class _Part:
    """A chunk as a part of the one above it."""

    space_id: int
    connections: Bins
    content_hash: str
    provisional: bool


def _made(run: RunHandle | _Limited, batch: Batch) -> list[Made]:
    """The batch's files, each space after all that lies below it."""
    below: dict[int | None, list[Known]] = defaultdict(list)
    for known in batch.known:
        below[known.parent_space_id].append(known)
    parts = _stored_below(batch.held, below)  # before the long pull: a file may be lost
    binned = _binned(run, batch, _with_all_below([chunk.space_id for chunk in batch.held], below))
    settled = chunks.is_settled(batch.place.window, batch.claimed_at)
    lone = tables_of({chunk.space_id for chunk in batch.held if not below[chunk.space_id]}, binned)
    made = []
    for chunk in batch.held:
        parts_below = [parts[known.space_id] for known in below[chunk.space_id]]
        connections = binned.connections.get(chunk.space_id, Bins.none())
        if parts_below:
            connections = added_up([connections, *(part.connections for part in parts_below)])
            table = table_of(connections, binned.devices.get(chunk.space_id, Bins.none()))
        else:
            table = lone[chunk.space_id]
        new = Made(
            chunk=chunk,
            data=as_parquet(table),
            rows=table.num_rows,
            inputs_hash=chunks.inputs_hash(
                (part.space_id, part.content_hash) for part in parts_below
            ),
            provisional=not settled
            or chunk.space_id in binned.open_sessions
            or any(part.provisional for part in parts_below),
            data_faults=binned.faults.get(chunk.space_id, 0),
        )
        made.append(new)
        run.check()
        parts[chunk.space_id] = _Part(
            chunk.space_id, connections, new.content_hash, new.provisional
        )
    return made


def _binned(run: RunHandle | _Limited, batch: Batch, spaces: set[int]) -> Binned:
    """The sessions of the spaces in the batch's window, counted; some at a time.

    While the ones are counted the server sends the next, so memory holds two slices.
    """
    here = {known.space_id: known for known in batch.known if known.space_id in spaces}
    interval = batch.place.interval_seconds
    expected = sum(known.sessions for known in here.values())
    slices = cut(
        batch.place.window,
        step=timedelta(seconds=interval),
        parts=-(-expected // min(SLICE_SESSIONS, batch.sessions_at_once)),
    )
    return bin_sessions(
        _pulled_ahead(run, spaces, slices),
        {chunk.space_id for chunk in batch.held},
        interval_seconds=interval,
        now=batch.claimed_at,
        parents={
            space_id: known.parent_space_id if known.parent_space_id in here else None
            for space_id, known in here.items()
        },
    )


def _pulled_ahead(
    run: RunHandle | _Limited, spaces: set[int], slices: Iterator[Window]
) -> Iterator[tuple[Window, pa.Table]]:
    """Each slice with its sessions, the next one on its way meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="pull") as puller:

        def pull(window: Window) -> Future[pa.Table]:
            return puller.submit(sessions.pulled, spaces, window, on_stop=run.on_stop)

        window = next(slices)
        coming = pull(window)
        for following in slices:
            table, coming = coming.result(), pull(following)
            yield window, table
            window = following
        yield window, coming.result()


def _with_all_below(space_ids: list[int], below: Mapping[int | None, list[Known]]) -> set[int]:
    found: set[int] = set()
    waiting = list(space_ids)
    while waiting:
        space_id = waiting.pop()
        if space_id not in found:
            found.add(space_id)
            waiting += [known.space_id for known in below.get(space_id, [])]
    return found


def _stored_below(
    held: list[OccupancySpaceChunk], below: Mapping[int | None, list[Known]]
) -> dict[int, _Part]:
    """By space: the chunks below those held that are complete already, from their files."""
    of_batch = {chunk.space_id for chunk in held}
    needed = [
        known.chunk_id
        for chunk in held
        for known in below.get(chunk.space_id, [])
        if known.space_id not in of_batch
    ]
    parts = {}
    below_these = list(OccupancySpaceChunk.objects.filter(chunk_id__in=needed))
    for chunk, table in zip(below_these, chunks.tables(below_these), strict=True):
        connections = Bins(
            begin=table[0].cast(pa.int64()).to_numpy() // 1_000_000, count=table[1].to_numpy()
        )
        parts[chunk.space_id] = _Part(
            chunk.space_id, connections, chunk.content_hash or "", chunk.provisional
        )
    return parts
