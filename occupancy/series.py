"""The rows of one space of a dataset, in order of time or against it, sparse or with every bin.

Whatever part of them is asked for, only the chunks' files that hold it are read, one at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import IO, TYPE_CHECKING

from occupancy import chunks
from occupancy.models import OccupancyDataset, OccupancySpaceChunk
from tippers import downloads
from tippers.partitions import EPOCH, Window, aligned_windows

if TYPE_CHECKING:
    import pyarrow as pa

ORDERS = ("interval_begin_time", "-interval_begin_time")


@dataclass(frozen=True)
class Shape:
    """One of ORDERS; and whether bins in which nobody was there are rows, with zeros."""

    order: str = ORDERS[0]
    dense: bool = False


@dataclass(frozen=True)
class _Part:
    """The rows of one window; how many is known before they are read."""

    rows: int
    read: "Callable[[], pa.Table]"


class Series:
    """The rows whose bin overlaps the dataset's range, from a space's chunks, all complete.

    Tables are of `chunk_files.SCHEMA`. Where a file is lost, `chunks.Lost` names all that are.
    """

    def __init__(
        self,
        dataset: OccupancyDataset,
        complete: Sequence[OccupancySpaceChunk],
        shape: Shape = Shape(),
    ) -> None:
        self.descending = shape.order.startswith("-")
        make = _dense if shape.dense else _sparse
        self.parts = make(dataset, sorted(complete, key=lambda chunk: chunk.chunk_start))
        self.total = sum(part.rows for part in self.parts)

    def tables(self, skip: int = 0, limit: int | None = None) -> "Iterator[pa.Table]":
        """At most `limit` rows from `skip`, window by window."""
        stop = self.total if limit is None else min(skip + limit, self.total)
        low, high = (self.total - stop, self.total - skip) if self.descending else (skip, stop)
        lost: list[OccupancySpaceChunk] = []
        for part, first, rows in self._slices(low, high):
            try:
                table = part.read().slice(first, rows)
            except chunks.Lost as missing:
                lost += missing.chunks
                continue
            if not lost:  # after a loss, what follows is read only to see whether it is there
                yield _reversed(table) if self.descending else table
        if lost:
            raise chunks.Lost(lost)

    def _slices(self, low: int, high: int) -> list[tuple[_Part, int, int]]:
        """The parts that hold the rows from `low` up to `high`, with first row and number."""
        slices, before = [], 0
        for part in self.parts:
            first, end = max(low - before, 0), min(high - before, part.rows)
            if first < end:
                slices.append((part, first, end - first))
            before += part.rows
        return slices[::-1] if self.descending else slices


def as_file(tables: "Iterable[pa.Table]", file_format: str) -> IO[bytes]:
    """The tables of a series as a CSV or Parquet file; CSV has the times as JSON has them."""
    import pyarrow as pa

    from occupancy.chunk_files import SCHEMA

    if file_format == "csv":
        text = SCHEMA.set(0, pa.field(SCHEMA.names[0], pa.string()))
        return downloads.as_file(map(_with_times_as_text, tables), text, file_format)
    return downloads.as_file(tables, SCHEMA, file_format)


def _with_times_as_text(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    seconds = table[0].cast(pa.timestamp("s"))
    return table.set_column(0, table.schema.names[0], pc.strftime(seconds, "%Y-%m-%dT%H:%M:%S"))


def _sparse(dataset: OccupancyDataset, complete: Sequence[OccupancySpaceChunk]) -> list[_Part]:
    """The stored rows. Chunks that stick out of the range are read to know how many are inside."""
    bins = _bins(dataset)
    out = [chunk for chunk in complete if bins is not None and not _lies_in(bins, chunk)]
    clipped = {
        chunk.pk: _clipped(table, bins)
        for chunk, table in zip(out, chunks.tables(out), strict=True)
        if bins is not None
    }
    return [
        _Part(clipped[chunk.pk].num_rows, partial(clipped.__getitem__, chunk.pk))
        if chunk.pk in clipped
        else _Part(chunk.row_count or 0, partial(_stored, chunk))
        for chunk in complete
    ]


def _dense(dataset: OccupancyDataset, complete: Sequence[OccupancySpaceChunk]) -> list[_Part]:
    """Every bin of the range, window by window; none for a dataset without a range."""
    bins = _bins(dataset)
    if bins is None or dataset.start_time is None or dataset.end_time is None:
        return []
    width = timedelta(days=dataset.chunk_days)
    by_start = {chunk.chunk_start: chunk for chunk in complete}
    parts = []
    for window in aligned_windows(dataset.start_time, dataset.end_time, width=width):
        inside = _common(bins, window)
        parts.append(_Part(len(inside), partial(_filled, inside, by_start.get(window.start))))
    return parts


def _bins(dataset: OccupancyDataset) -> range | None:
    """The beginnings, in epoch seconds, of all bins that overlap the dataset's range."""
    if dataset.start_time is None or dataset.end_time is None:
        return None
    width = timedelta(seconds=dataset.interval_seconds)
    first = (dataset.start_time - EPOCH) // width
    end = -((EPOCH - dataset.end_time) // width)
    return range(
        first * dataset.interval_seconds, end * dataset.interval_seconds, dataset.interval_seconds
    )


def _common(bins: range, window: Window) -> range:
    low, high = _epoch(window.start), _epoch(window.end)
    return range(max(bins.start, low), min(bins.stop, high), bins.step)


def _lies_in(bins: range, chunk: OccupancySpaceChunk) -> bool:
    return bins.start <= _epoch(chunk.chunk_start) and _epoch(chunk.chunk_end) <= bins.stop


def _stored(chunk: OccupancySpaceChunk) -> "pa.Table":
    (table,) = chunks.tables([chunk])
    return table


def _clipped(table: "pa.Table", bins: range) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    begin = table["interval_begin_time"]
    low, high = (
        pa.scalar(seconds, pa.timestamp("s")).cast(begin.type)
        for seconds in (bins.start, bins.stop)
    )
    return table.filter(pc.and_(pc.greater_equal(begin, low), pc.less(begin, high)))


def _filled(bins: range, chunk: OccupancySpaceChunk | None) -> "pa.Table":
    """These bins, with what the chunk has in them."""
    import numpy as np
    import pyarrow as pa

    from occupancy.chunk_files import SCHEMA

    columns = np.zeros((len(SCHEMA.names), len(bins)), dtype=np.int64)
    columns[0] = np.arange(bins.start, bins.stop, bins.step)
    if chunk is not None:
        table = _clipped(_stored(chunk), bins)
        begin = table[0].cast(pa.int64()).to_numpy() // 1_000_000
        place = (begin - bins.start) // bins.step
        for number in range(1, len(columns)):
            columns[number, place] = table[number].to_numpy()
    times = (columns[0] * 1_000_000).view("datetime64[us]")
    return pa.Table.from_arrays([pa.array(times), *map(pa.array, columns[1:])], schema=SCHEMA)


def _reversed(table: "pa.Table") -> "pa.Table":
    import numpy as np

    return table.take(np.arange(table.num_rows)[::-1])


def _epoch(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(seconds=1)
