"""The work of the background: claim chunks of one window, pull its sessions once, publish them all."""

import time
import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from occupancy import chunks, datasets, sessions
from occupancy.binning import Binned, Bins, bin_sessions, cut, joined
from occupancy.chunks import Batch, Known, Made
from occupancy.models import OccupancySpaceChunk
from occupancy.rollup import added_up
from occupancy.tree import Ints
from tippers.errors import CannotBeDone
from tippers.runs.claims import LostLease
from tippers.runs.engine import RunHandle, Stopped

# Then another run gets the slot, so that a large dataset never keeps a small job waiting.
YIELD_AFTER_S = 20.0

# What a chunk's file holds; times are UTC without a zone.
SCHEMA = pa.schema(
    [
        ("interval_begin_time", pa.timestamp("us")),
        ("number_connections", pa.int64()),
        ("number_devices", pa.int64()),
    ]
)


def drain(run: RunHandle) -> None:
    """Compute sources, and what is complete above them, until none waits or the time is up."""
    deadline = time.monotonic() + YIELD_AFTER_S
    done = 0
    while time.monotonic() < deadline and (batch := chunks.claim_sources(run.token)):
        done += _perform(run, batch)
        run.progress(done, unit="chunks")
        datasets.settle()
        datasets.nudge_roll_up()


def roll_up(run: RunHandle) -> None:
    """Compute the derived chunks that wait for nothing, until none does or the time is up."""
    deadline = time.monotonic() + YIELD_AFTER_S
    done = 0
    while time.monotonic() < deadline and (batch := chunks.claim_to_roll_up(run.token)):
        done += _perform(run, batch)
        run.progress(done, unit="chunks")
        datasets.settle()


def _perform(run: RunHandle, batch: Batch) -> int:
    """Make and publish a batch; what goes wrong becomes the state of its chunks. Chunks published."""
    began = time.monotonic()
    try:
        made = _made(run, batch)
        run.check()
        published = chunks.publish(run.token, made)
    except (Stopped, LostLease):
        raise  # the token is void; the sweep gives the chunks to another run
    except chunks.Lost as lost:
        run.log(f"{lost}; they are computed again", "WARNING")
        chunks.compute_again(lost, token=run.token)
        return 0
    except CannotBeDone as refused:
        run.log(refused.detail, "ERROR")
        chunks.fail(run.token, refused.detail)
        return 0
    except Exception as error:  # noqa: BLE001 - recorded on the chunks, which are tried again or failed
        run.check()  # a query that was stopped from outside is no failure
        run.log(traceback.format_exc(), "ERROR")
        chunks.retry_or_fail(run.token, f"{type(error).__name__}: {error}")
        return 0
    if discarded := len(batch.held) - published:
        run.log(f"{discarded} chunks were no longer ours and are discarded", "WARNING")
    if faults := sum(each.data_faults for each in made):
        run.log(f"{faults} sessions end before they start and are not counted", "WARNING")
    run.log(
        f"{published} chunks from {batch.place.window.start:%Y-%m-%d %H:%M} "
        f"in {time.monotonic() - began:.1f} s"
    )
    return published


@dataclass(frozen=True)
class _Part:
    """A chunk as a part of the one above it."""

    space_id: int
    connections: Bins
    content_hash: str
    provisional: bool


def _made(run: RunHandle, batch: Batch) -> list[Made]:
    """The batch's files, each space after all that lies below it."""
    below: dict[int | None, list[Known]] = defaultdict(list)
    for known in batch.known:
        below[known.parent_space_id].append(known)
    parts = _stored_below(batch.held, below)  # before the long pull: a file may be lost
    binned = _binned(run, batch, _with_all_below([chunk.space_id for chunk in batch.held], below))
    settled = chunks.is_settled(batch.place.window, batch.claimed_at)
    made = []
    for chunk in batch.held:
        parts_below = [parts[known.space_id] for known in below[chunk.space_id]]
        connections = binned.connections.get(chunk.space_id, Bins.none())
        if parts_below:
            connections = added_up([connections, *(part.connections for part in parts_below)])
        table = _table(connections, binned.devices.get(chunk.space_id, Bins.none()))
        new = Made(
            chunk=chunk,
            data=_as_parquet(table),
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
        parts[chunk.space_id] = _Part(
            chunk.space_id, connections, new.content_hash, new.provisional
        )
    return made


def _binned(run: RunHandle, batch: Batch, spaces: set[int]) -> Binned:
    """The sessions of the spaces in the batch's window, counted; some BATCH_SESSIONS at a time."""
    parents = {
        known.space_id: known.parent_space_id
        for known in batch.known
        if known.space_id in spaces and known.parent_space_id in spaces
    }
    expected = sum(known.sessions for known in batch.known if known.space_id in spaces)
    interval = batch.place.interval_seconds
    slices = cut(
        batch.place.window,
        step=timedelta(seconds=interval),
        parts=-(-expected // chunks.BATCH_SESSIONS),
    )
    return joined(
        bin_sessions(
            sessions.pulled(spaces, window, on_stop=run.on_stop),
            window=window,
            interval_seconds=interval,
            now=batch.claimed_at,
            parents=parents,
        )
        for window in slices
    )


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


def _table(connections: Bins, devices: Bins) -> pa.Table:
    """The file's table; a bin that one of the two lacks counts 0 there."""
    begin = connections.begin
    columns = [connections.count, devices.count]
    if not np.array_equal(begin, devices.begin):
        begin = np.union1d(connections.begin, devices.begin)
        columns = [_filled(begin, bins) for bins in (connections, devices)]
    times = (begin * 1_000_000).view("datetime64[us]")
    return pa.Table.from_arrays([pa.array(times), *map(pa.array, columns)], schema=SCHEMA)


def _filled(begin: Ints, bins: Bins) -> Ints:
    counts = np.zeros(len(begin), dtype=np.int64)
    counts[np.searchsorted(begin, bins.begin)] = bins.count
    return counts


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="snappy",
        # A dictionary of times that are all distinct would only make the small file larger, and
        # nobody skips a part of it by statistics; Parquet's own schema says all that Arrow's does.
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data
