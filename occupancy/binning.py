"""Sessions to bins: how many distinct devices were where, bin by bin. Pure; NumPy on whole columns.

A session counts in every bin that it overlaps (`start < bin_end and end > bin_start`). One of zero
length counts once inside a bin and nowhere on a bin's edge. One that ends before it starts is a
fault in the data, not occupancy: it is left out and counted. One without an end is still open: it
lasts until `now`, and the bins it touches are provisional.

Distinct devices do not add over spaces (a roaming device is in three rooms of one hour) but they
do over slices of time cut at bin edges; so one pass gives every room and every space above it, and
a window with too many cells for memory is taken slice by slice.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from occupancy.tree import Ints, Tree
from tippers.partitions import EPOCH, Window

# Cells (space, bin, device; before de-duplication) held at once: some ten int64 arrays of this
# length at the peak, the levels of the tree included.
CELLS_AT_ONCE = 8_000_000
ONE_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Bins:
    """Non-empty bins of one space: their begin (seconds since the epoch, ascending) and a count."""

    begin: Ints
    count: Ints

    @classmethod
    def none(cls) -> "Bins":
        """A space in which nobody was."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    @classmethod
    def joined(cls, parts: "list[Bins]") -> "Bins":
        """One after the other; the parts follow each other in time."""
        return cls(
            np.concatenate([part.begin for part in parts]),
            np.concatenate([part.count for part in parts]),
        )


@dataclass(frozen=True)
class Binned:
    """What a pile of sessions says about one window.

    `connections` has the distinct devices per bin of each space that has sessions of its own;
    `devices` those of each space with all that lies below it. `faults` are numbers of sessions per
    space (only spaces that have some); `open_sessions` the spaces in which a session is still open.
    """

    connections: dict[int, Bins]
    devices: dict[int, Bins]
    faults: dict[int, int]
    open_sessions: set[int]


def bin_sessions(
    slices: Iterable[tuple[Window, pa.Table]],
    spaces: Collection[int],
    *,
    interval_seconds: int,
    now: datetime,
    parents: Mapping[int, int | None],
) -> Binned:
    """Count the spaces' distinct devices per bin of the slices' windows, which follow each other.

    A slice's table has the sessions that overlap its window, and perhaps others, in the columns
    mac_address (text), space_id (integer), start_time and end_time (timestamps in UTC with or
    without a zone; a null end is an open session). A row without a device, a space or a start says
    nothing and is passed over. `parents` names every space that has sessions or is asked for with the
    one above it, or None. Raises ValueError when it does not, when the parents run in a circle, when
    `interval_seconds` does not divide a window, or when spaces, bins and devices together are more
    than an int64 can number.
    """
    tree = Tree.of(parents, parents)
    wanted = np.zeros(len(tree.ids), dtype=np.bool_)
    wanted[tree.codes(np.array(sorted(spaces), dtype=np.int64))] = True
    own: list[_Counts] = []
    subtree: list[_Counts] = []
    faults = np.zeros(len(tree.ids), dtype=np.int64)
    still_open = np.zeros(len(tree.ids), dtype=np.int64)
    for window, sessions in slices:
        grid = _Grid(window, interval_seconds)
        read = _Read.of(sessions, grid, tree, now)
        faults += np.bincount(read.faults, minlength=len(tree.ids))
        still_open += np.bincount(read.open_sessions, minlength=len(tree.ids))
        packing = _Packing.of(read.presence, spaces=len(tree.ids), bins=grid.bins)
        for bins in _slices(read.presence, grid.bins):
            cells = packing.cells(read.presence, bins)
            of_inner = _Counts.of(_with_something_below(cells, packing, tree), packing, grid)
            own.append(of_inner.only(wanted))
            of_all = _Counts.of(_with_ancestors(cells, packing, tree), packing, grid)
            subtree.append(of_all.only(wanted))
    devices = _by_space(subtree, tree.ids)
    # Where nothing lies below, the two are the same.
    above = set(tree.ids[tree.inner].tolist())
    alone = {space_id: bins for space_id, bins in devices.items() if space_id not in above}
    return Binned(
        connections=alone | _by_space(own, tree.ids),
        devices=devices,
        faults={int(tree.ids[code]): int(faults[code]) for code in np.flatnonzero(faults * wanted)},
        open_sessions=set(tree.ids[np.flatnonzero(still_open * wanted)].tolist()),
    )


def cut(window: Window, *, step: timedelta, parts: int) -> Iterator[Window]:
    """The window in about as many pieces of equal width, at least one, cut at multiples of `step`.

    `step` divides the window.
    """
    width = -(-(window.width // step) // max(parts, 1)) * step
    begin = window.start
    while begin < window.end:
        yield Window(begin, min(begin + width, window.end))
        begin += width


@dataclass(frozen=True)
class _Grid:
    """The bins of a window, numbered from 0."""

    window: Window
    interval_seconds: int

    def __post_init__(self) -> None:
        if self.window.width.total_seconds() % self.interval_seconds:
            raise ValueError(f"{self.interval_seconds} s do not divide {self.window.width}")

    @property
    def bins(self) -> int:
        return int(self.window.width.total_seconds()) // self.interval_seconds

    @property
    def begin(self) -> int:
        """Of bin 0, in seconds since the epoch."""
        return int((self.window.start - EPOCH).total_seconds())

    def reach(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """First and last bin that each session overlaps; last < first when there is none.

        Rounding the end up makes it exclusive, and gives a session of zero length one bin inside a
        bin and none on an edge, where it would be `first` to `first - 1`.
        """
        width = self.interval_seconds * 1_000_000
        origin = self.begin * 1_000_000
        first = (start - origin) // width
        last = -((origin - end) // width) - 1
        return np.maximum(first, 0), np.minimum(last, self.bins - 1)


@dataclass(frozen=True)
class _Presence:
    """Parallel arrays, one entry a session: codes of space and device, first and last bin."""

    space: Ints
    device: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True)
class _Read:
    """A slice's sessions: those that count; the spaces' codes of those at fault, and of open ones."""

    presence: _Presence
    faults: Ints
    open_sessions: Ints

    @classmethod
    def of(cls, sessions: pa.Table, grid: _Grid, tree: Tree, now: datetime) -> "_Read":
        sessions = _said(sessions)
        space = tree.codes(_integers(sessions["space_id"]))
        start = _microseconds(sessions["start_time"])
        still_open = sessions["end_time"].is_null().to_numpy()
        until_now = (now - EPOCH) // ONE_MICROSECOND
        end = np.where(still_open, until_now, _microseconds(sessions["end_time"]))
        faulty = ~still_open & (end < start)
        not_begun = still_open & (start >= end)
        counts = ~(faulty | not_begun)
        first, last = grid.reach(start[counts], end[counts])
        device = _codes(sessions["mac_address"])[counts]
        return cls(
            _Presence(space[counts], device, first, last),
            faults=space[faulty],
            open_sessions=space[still_open & ~not_begun],
        )


@dataclass(frozen=True)
class _Counts:
    """Parallel arrays, one entry a non-empty bin of a space: by the space's code, then by time."""

    space: Ints
    begin: Ints
    count: Ints

    @classmethod
    def of(cls, cells: Ints, packing: "_Packing", grid: _Grid) -> "_Counts":
        place = cells // packing.devices
        edge = _edges(place)
        place = place[edge]
        return cls(
            space=place // packing.bins,
            begin=grid.begin + place % packing.bins * grid.interval_seconds,
            count=np.diff(np.append(edge, len(cells))),
        )

    def only(self, wanted: NDArray[np.bool_]) -> "_Counts":
        """Those of the spaces that are wanted, by code."""
        some = wanted[self.space]
        return _Counts(self.space[some], self.begin[some], self.count[some])


@dataclass(frozen=True)
class _Packing:
    """(space, bin, device) as one int64, so that sorting and de-duplicating is one pass."""

    bins: int
    devices: int

    @classmethod
    def of(cls, presence: _Presence, *, spaces: int, bins: int) -> "_Packing":
        devices = int(presence.device.max()) + 1 if len(presence.device) else 1
        if spaces * bins * devices >= 2**63:
            raise ValueError(
                f"{spaces} spaces, {bins} bins, {devices} devices are too many at once"
            )
        return cls(bins, devices)

    def cells(self, presence: _Presence, bins: range) -> Ints:
        """The distinct cells of these bins, sorted."""
        begin = np.maximum(presence.first, bins.start)
        times = np.maximum(np.minimum(presence.last, bins.stop - 1) - begin + 1, 0)
        # The bin of each copy: its session's first bin plus its position among that one's copies.
        begin -= np.cumsum(times) - times
        cells = np.arange(int(times.sum()), dtype=np.int64)
        cells += np.repeat(begin + presence.space * self.bins, times)
        cells *= self.devices
        cells += np.repeat(presence.device, times)
        return _distinct(cells)


def _with_ancestors(cells: Ints, packing: _Packing, tree: Tree) -> Ints:
    """The cells of every space including those of all that lies below it, distinct and sorted.

    From the deepest level up: each is de-duplicated once, and a building starts from its floors'
    cells and not again from its rooms'.
    """
    per_space = packing.bins * packing.devices
    edges = np.searchsorted(cells, np.arange(len(tree.ids) + 1) * per_space)
    levels = [cells[:0]]
    from_below = cells[:0]
    for level in tree.levels:
        here = cells[edges[level.start] : edges[level.stop]]
        if len(from_below):
            here = _distinct(np.concatenate([here, from_below]))
        levels.append(here)
        if level.stop < len(tree.ids):
            codes = np.arange(level.start, level.stop + 1)
            of_each = np.diff(np.searchsorted(here, codes * per_space))
            upwards = (tree.parent[level.start : level.stop] - codes[:-1]) * per_space
            from_below = here + np.repeat(upwards, of_each)
    return np.concatenate(levels)


def _with_something_below(cells: Ints, packing: _Packing, tree: Tree) -> Ints:
    """The cells of spaces that have others below them."""
    per_space = packing.bins * packing.devices
    lows = np.searchsorted(cells, tree.inner * per_space)
    highs = np.searchsorted(cells, (tree.inner + 1) * per_space)
    some = zip(lows[lows < highs], highs[lows < highs], strict=True)
    return np.concatenate([cells[:0], *(cells[low:high] for low, high in some)])


def _by_space(parts: list[_Counts], ids: Ints) -> dict[int, Bins]:
    """One pair of arrays for each space; the parts follow each other in time."""
    none = np.empty(0, dtype=np.int64)
    space = np.concatenate([none, *(part.space for part in parts)])
    order = np.argsort(space, kind="stable")
    space = space[order]
    begin = np.concatenate([none, *(part.begin for part in parts)])[order]
    count = np.concatenate([none, *(part.count for part in parts)])[order]
    edge = _edges(space)
    return {
        int(ids[space[low]]): Bins(begin[low:high], count[low:high])
        for low, high in zip(edge, np.append(edge, len(space))[1:], strict=True)
    }


def _slices(presence: _Presence, bins: int) -> Iterator[range]:
    """Ranges of bins that together have every bin once, each of at most CELLS_AT_ONCE cells.

    A single bin may have more than that: it has one cell for every session at most.
    """
    some = presence.last >= presence.first
    begins = np.bincount(presence.first[some], minlength=bins + 1)
    ends = np.bincount(presence.last[some] + 1, minlength=bins + 1)
    cells = np.cumsum(np.cumsum(begins - ends))[:bins]  # up to and including each bin
    lowest = 0
    while lowest < bins:
        before = int(cells[lowest - 1]) if lowest else 0
        fitting = int(np.searchsorted(cells, before + CELLS_AT_ONCE, side="right"))
        stop = max(fitting, lowest + 1)
        yield range(lowest, stop)
        lowest = stop


def _distinct(values: Ints) -> Ints:
    values = np.sort(values)
    return values[_begins(values)]


def _edges(values: Ints) -> Ints:
    """Where a new value begins in sorted values."""
    return np.flatnonzero(_begins(values)).astype(np.int64)


def _begins(values: Ints) -> NDArray[np.bool_]:
    new = np.ones(len(values), dtype=np.bool_)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new


def _said(sessions: pa.Table) -> pa.Table:
    """Without the rows that lack a device, a space or a start."""
    needed = [sessions[name] for name in ("mac_address", "space_id", "start_time")]
    if not any(column.null_count for column in needed):
        return sessions
    complete = reduce(pc.and_, (pc.is_valid(column) for column in needed))
    return sessions.filter(complete)


def _codes(column: pa.ChunkedArray) -> Ints:
    """Each value as a small number, the same for the same value."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _integers(column: pa.ChunkedArray) -> Ints:
    integers: Ints = column.cast(pa.int64()).to_numpy()
    return integers


def _microseconds(column: pa.ChunkedArray) -> Ints:
    """Timestamps as microseconds since the epoch; 0 where null."""
    moments = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.int64())
    return _integers(moments.fill_null(0))
