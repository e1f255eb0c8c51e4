"""Files of spaces and Wi-Fi sessions, read and judged column by column as they stream.

CSV (RFC 4180 with a header, UTF-8) or Parquet. A row that cannot be loaded is refused with its line
(CSV) or its number from 1 (Parquet); one refused row refuses the file, after all have been seen.
"""

import bisect
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tippers.errors import CannotBeDone

SHOWN_PROBLEMS = 20
SPACE_COLUMNS = ("space_id", "space_name", "parent_space_id", "building_room")
SESSION_COLUMNS = ("mac_address", "sensor_id", "space_id", "start_time", "end_time")
OPTIONAL_COLUMNS = frozenset({"space_name", "building_room", "sensor_id"})
NAME_LENGTH = 200

_MOMENT = pa.timestamp("us")
_MOMENT_UTC = pa.timestamp("us", "UTC")
_TIME_SHAPE = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_WITH_OFFSET = r":\d{2}(\.\d+)?(Z|[+-]\d{2}(:?\d{2})?)$"

Progress = Callable[[int, int], None]


class LoadRefused(CannotBeDone):
    """Nothing was loaded. The sentence says why, and where in the files, up to twenty places."""

    code = "load_refused"


@dataclass
class _Source:
    """The rows of one file, batch by batch, and how to name a row to the person who wrote it."""

    path: Path
    columns: list[str]
    total: int
    batches: Iterator[pa.RecordBatch]
    position: Callable[[], int]
    unit: str
    torn: list[tuple[int, str]] = field(default_factory=list)

    def number(self, row: int) -> int:
        """The row's line in the file (CSV) or its number from 1 (Parquet).

        `row` counts from 0 over the rows that could be parsed.
        """
        if self.unit == "row":
            return row + 1
        line = row + 2
        for torn, _ in sorted(self.torn):
            if torn <= line:
                line += 1
        return line


def _open(path: Path, wanted: tuple[str, ...]) -> _Source:
    try:
        source = _open_parquet(path, wanted) if _is_parquet(path) else _open_csv(path, wanted)
    except OSError as error:
        raise LoadRefused(f"{path} cannot be read: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise LoadRefused(f"{path} cannot be read: {error}") from error
    missing = [
        name for name in wanted if name not in source.columns and name not in OPTIONAL_COLUMNS
    ]
    if missing:
        raise LoadRefused(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it has {', '.join(source.columns) or 'none'}"
        )
    return source


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _open_parquet(path: Path, wanted: tuple[str, ...]) -> _Source:
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    rows_read = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal rows_read
        for batch in file.iter_batches(65_536, columns=[name for name in wanted if name in names]):
            rows_read += batch.num_rows
            yield batch

    return _Source(path, names, file.metadata.num_rows, batches(), lambda: rows_read, "row")


def _open_csv(path: Path, wanted: tuple[str, ...]) -> _Source:
    with path.open(encoding="utf-8-sig", newline="") as text:
        try:
            names = next(csv.reader(text), [])
        except UnicodeDecodeError as error:
            raise LoadRefused(f"{path} is neither Parquet nor CSV in UTF-8") from error
    file = pa.OSFile(str(path))
    torn: list[tuple[int, str]] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        torn.append((row.number, f"has {row.actual_columns} columns, not {row.expected_columns}"))
        return "skip"

    def batches() -> Iterator[pa.RecordBatch]:
        kept = [name for name in wanted if name in names]
        yield from pa_csv.open_csv(
            file,
            # One thread: only then does Arrow know the line number of a torn row.
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=4 << 20),
            # An empty line must stay a row, or all later line numbers would be wrong.
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=refuse),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(kept, pa.string()),
                include_columns=kept,
                null_values=["", "NULL", "\\N"],
                strings_can_be_null=True,
            ),
        )

    size = path.stat().st_size
    return _Source(path, names, size, batches(), lambda: min(file.tell(), size), "line", torn)


@dataclass
class _Problems:
    """The rows that cannot be loaded: all counted, the first of them kept in words."""

    source: _Source
    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, mask: pa.Array, offset: int, say: Callable[[int], str]) -> None:
        """Every row of the batch where `mask` is true; `offset` is the batch's first row."""
        rows = pc.indices_nonzero(mask.fill_null(False))
        self.count += len(rows)
        for row in rows[:SHOWN_PROBLEMS].to_pylist():
            bisect.insort(self.first, (offset + row, say(row)))
        del self.first[SHOWN_PROBLEMS:]

    def raise_any(self) -> None:
        count = self.count + len(self.source.torn)
        if not count:
            return
        said = [*self.source.torn, *((self.source.number(row), say) for row, say in self.first)]
        lines = [f"  {self.source.unit} {at}: {say}" for at, say in sorted(said)[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  ... and {count - SHOWN_PROBLEMS:,} more")
        bad = f"{count:,} bad row{'s' * (count > 1)} in {self.source.path.name}"
        raise LoadRefused("\n".join([f"Nothing was loaded: {bad}", *lines]))


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, kind)
    column = batch.column(name)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _shown(column: pa.Array, row: int) -> str:
    text = str(column[row].as_py())
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column as `kind`, null where a value cannot be read (found by halving)."""
    try:
        # Not safe: a nanosecond file keeps its microseconds.
        return column.cast(kind, safe=not pa.types.is_timestamp(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(column) == 1:
            return pa.nulls(1, kind)
    half = len(column) // 2
    return pa.concat_arrays([_cast(column[:half], kind), _cast(column[half:], kind)])


def _keep_shaped(column: pa.Array, shape: str) -> pa.Array:
    """Null where the text is not even of the right shape, so that halving finds the few others."""
    fits = pc.match_substring_regex(column, shape)
    return pc.if_else(fits, column, pa.nulls(len(column), column.type))


def _moments(column: pa.Array) -> pa.Array:
    """Microseconds in UTC, without a zone; null where the value cannot be read."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if getattr(column.type, "tz", None):
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))
        return _cast(column, _MOMENT)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return pa.nulls(len(column), _MOMENT)
    column = _keep_shaped(column, _TIME_SHAPE)
    none = pa.nulls(len(column), column.type)
    zoned = pc.match_substring_regex(column, _WITH_OFFSET)
    if not pc.any(zoned).as_py():
        return _cast(column, _MOMENT)
    plain = _cast(pc.if_else(zoned, none, column), _MOMENT)
    offset = _cast(pc.if_else(zoned, column, none), _MOMENT_UTC).cast(_MOMENT)
    return pc.coalesce(plain, offset)


def _whole_numbers(column: pa.Array) -> pa.Array:
    """32-bit integers; `7.0`, as pandas writes a column with gaps, is 7. Null when unreadable."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _keep_shaped(pc.replace_substring_regex(column, r"\.0+$", ""), r"^-?\d{1,10}$")
    return _cast(column, pa.int32())


def _written(columns: dict[str, pa.Array]) -> pa.Array:
    """False where a row holds nothing at all: an empty line between rows is no row."""
    return reduce(pc.or_, (pc.is_valid(column) for column in columns.values()))


def _blank(text: pa.Array) -> pa.Array:
    return pc.or_kleene(
        pc.is_null(text), pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0)
    )


class SessionStream(io.RawIOBase):
    """What COPY reads: the session file, checked and re-written as CSV batch by batch.

    `known` are the ids of the file `spaces`. `progress` hears (done, total) in bytes of a CSV file or
    rows of a Parquet file. `loaded` and `open_sessions` count the rows handed over.

    Once a row is refused nothing more is handed over, but the rest of the file is still checked.
    An exception inside `read` would reach the caller as a database error, so it is kept.
    """

    def __init__(
        self, path: Path, known: pa.ChunkedArray, spaces: str, progress: Progress | None
    ) -> None:
        super().__init__()
        source = _open(path, SESSION_COLUMNS)
        self.loaded = self.open_sessions = 0
        self._source = source
        self._known = known
        self._spaces = spaces
        self._progress = progress
        self._problems = _Problems(source)
        self._failure: LoadRefused | None = None
        self._rest = memoryview(b"")
        self._row = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            try:
                batch = next(self._source.batches, None)
            except (pa.ArrowInvalid, OSError) as error:
                self._failure = LoadRefused(f"{self._source.path} cannot be read: {error}")
                return b""
            if batch is None:
                return b""
            checked = self._check(batch)
            if self._progress:
                self._progress(self._source.position(), self._source.total)
            if checked.num_rows and not self._problems.count:
                self._rest = memoryview(as_csv(pa.Table.from_batches([checked])))
        size = len(self._rest) if size < 0 else size
        taken, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return taken

    def raise_refused(self) -> None:
        if self._failure:
            raise self._failure
        self._problems.raise_any()

    def _check(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        raw = {name: _column(batch, name, pa.string()) for name in SESSION_COLUMNS}
        mac, sensor = (_cast(raw[name], pa.string()) for name in ("mac_address", "sensor_id"))
        space = _whole_numbers(raw["space_id"])
        start, end = _moments(raw["start_time"]), _moments(raw["end_time"])

        written = _written(raw)

        good = written  # one reason for each row is enough

        def refuse(mask: pa.Array, say: Callable[[int], str]) -> None:
            nonlocal good
            mask = pc.and_(good, mask.fill_null(False))
            good = pc.and_not(good, mask)
            self._problems.add(mask, self._row, say)

        refuse(_blank(mac), lambda _: "mac_address is missing")
        unknown = pc.invert(pc.is_in(space, self._known))
        refuse(
            unknown,
            lambda row: (
                f"space_id {_shown(raw['space_id'], row)} is not in {self._spaces}"
                if raw["space_id"][row].is_valid
                else "space_id is missing"
            ),
        )
        refuse(
            pc.is_null(start),
            lambda row: (
                f"start_time {_shown(raw['start_time'], row)} is not a time"
                if raw["start_time"][row].is_valid
                else "start_time is missing"
            ),
        )
        refuse(
            pc.and_(pc.is_null(end), pc.is_valid(raw["end_time"])),
            lambda row: f"end_time {_shown(raw['end_time'], row)} is not a time",
        )
        refuse(
            pc.less(end, start),
            lambda row: (
                f"the session ends ({end[row].as_py()}) before it starts ({start[row].as_py()})"
            ),
        )
        self._row += batch.num_rows
        checked = pa.record_batch([mac, sensor, space, start, end], list(SESSION_COLUMNS))
        checked = checked.filter(written)
        self.loaded += checked.num_rows
        self.open_sessions += checked.column("end_time").null_count
        return checked


def as_csv(table: pa.Table) -> bytes:
    """A null is an empty field without quotes, which is what COPY takes for NULL."""
    out = pa.BufferOutputStream()
    pa_csv.write_csv(table, out, pa_csv.WriteOptions(include_header=False))
    return bytes(out.getvalue())


def read_spaces(path: Path) -> pa.Table:
    """The space table, checked: ids unique, parents known, no space above itself."""
    source = _open(path, SPACE_COLUMNS)
    try:
        batches = [batch for batch in source.batches if batch.num_rows]
    except (pa.ArrowInvalid, OSError) as error:
        raise LoadRefused(f"{path} cannot be read: {error}") from error
    problems = _Problems(source)
    if not batches:
        problems.raise_any()
        raise LoadRefused(f"{path} holds no space")
    batch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    raw = {name: _column(batch, name, pa.string()) for name in SPACE_COLUMNS}
    ids, parents = (_whole_numbers(raw[name]) for name in ("space_id", "parent_space_id"))
    names, codes = (_cast(raw[name], pa.string()) for name in ("space_name", "building_room"))
    written = _written(raw)
    problems.add(
        pc.and_(pc.is_null(ids), written),
        0,
        lambda row: f"space_id {_shown(raw['space_id'], row)} is not a whole number",
    )
    problems.add(
        pc.and_(pc.is_null(parents), pc.is_valid(raw["parent_space_id"])),
        0,
        lambda row: f"parent_space_id {_shown(raw['parent_space_id'], row)} is not a whole number",
    )
    too_long = pc.or_kleene(
        *(pc.greater(pc.utf8_length(text), NAME_LENGTH) for text in (names, codes))
    )
    problems.add(too_long, 0, lambda _: f"a name is longer than {NAME_LENGTH} characters")
    problems.raise_any()
    checked = pa.record_batch([ids, names, parents, codes], list(SPACE_COLUMNS))
    table = pa.Table.from_batches([checked.filter(written)])
    _judge_tree(path.name, table)
    return table


def _judge_tree(name: str, table: pa.Table) -> None:
    ids = table.column("space_id").to_pylist()
    parents = dict(zip(ids, table.column("parent_space_id").to_pylist(), strict=True))
    if len(parents) < len(ids):
        twice = {space for space, times in Counter(ids).items() if times > 1}
        raise LoadRefused(f"{name}: space_id stands more than once: {_listed(twice)}")
    orphans = {
        space for space, parent in parents.items() if parent is not None and parent not in parents
    }
    if orphans:
        unknown = {parents[space] for space in orphans}
        raise LoadRefused(
            f"{name}: unknown parent_space_id {_listed(unknown)} of space {_listed(orphans)}"
        )
    # Leaves are taken off until none is left; what remains goes round in circles.
    children = dict.fromkeys(parents, 0)
    for parent in parents.values():
        if parent is not None:
            children[parent] += 1
    leaves = [space for space, count in children.items() if not count]
    while leaves:
        space = leaves.pop()
        parent = parents[space]
        del children[space]
        if parent is not None:
            children[parent] -= 1
            if not children[parent]:
                leaves.append(parent)
    if children:
        raise LoadRefused(f"{name}: these spaces lie within each other: {_listed(set(children))}")


def _listed(ids: set[Any]) -> str:
    ordered = sorted(ids)
    more = f" and {len(ordered) - SHOWN_PROBLEMS} more" if len(ordered) > SHOWN_PROBLEMS else ""
    return ", ".join(map(str, ordered[:SHOWN_PROBLEMS])) + more
