"""How the key space of a query is cut into parts: the parts there are, and the rows of each.

The key space comes from the data: one query over the asset's own, as a subselect, finds the keys
that occur. A part is named by its `partition_key` and described by its bounds, a JSON value:

    time          {"start": "2024-02-01T00:00:00+00:00", "end": "2024-03-01T00:00:00+00:00"}
    id_range      {"start": 0, "end": 1000}
    categorical   {"value": "Library"}; {"value": "12.50", "as_text": true} for a type whose
                  values are told apart by how the server writes them
    each          null: the rows without a key

Ranges are half-open and times in UTC. What a database needs said differently stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from concepts.models import PartitionType
from tippers import partitions, sql
from tippers.errors import CannotBeDone

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PARTITIONS = 2_000
MAX_SIZE = 10**18
DAYS_OF_A_MONTH = 31
Bounds = dict[str, Any] | None


@dataclass(frozen=True)
class Part:
    """A part of the key space."""

    key: str
    bounds: Bounds


def check(kind: str | None, config: dict[str, Any] | None) -> None:
    """CannotBeDone unless both are null or `config` has the shape that `kind` asks for.

    time: {column, granularity}; id_range: {column, size}; categorical: {column}.
    """
    if kind is None and config is None:
        return
    if kind is None:
        raise CannotBeDone(
            f"partition_config needs a partition_type: {', '.join(PartitionType.values)}.",
            field="partition_type",
        )
    needed = {"column"}
    if kind == PartitionType.TIME:
        needed |= {"granularity"}
    elif kind == PartitionType.ID_RANGE:
        needed |= {"size"}
    config = config or {}
    if config.keys() != needed:
        raise _refused(f"For {kind} it must have exactly: {', '.join(sorted(needed))}.")
    if not isinstance(config["column"], str) or not config["column"].strip():
        raise _refused("column must be the name of a column.")
    if "granularity" in needed and config["granularity"] not in partitions.GRANULARITIES:
        raise _refused(f"granularity must be one of {', '.join(partitions.GRANULARITIES)}.")
    if "size" in needed and not (type(config["size"]) is int and 0 < config["size"] <= MAX_SIZE):
        raise _refused(f"size must be a whole number above 0, at most {MAX_SIZE:,}.")


def columns_query(text: str) -> str:
    """No row, but all the columns of the query `text` with their types."""
    return f"SELECT * FROM ({text}\n) AS q LIMIT 0"  # noqa: S608 - the query was judged before


def keys_query(
    text: str, kind: str, config: dict[str, Any], *, schema: pa.Schema, dialect: str
) -> str:
    """The distinct keys in the result of `text`, which has `schema`: one column for `parts`.

    Somewhat more rows than parts may be, so that too many of them show. CannotBeDone when the
    column is not there, or has a type that cannot be cut like this.
    """
    column = config["column"]
    if column not in schema.names:
        raise _refused(f"The result has no column {column}; it has: {', '.join(schema.names)}.")
    field = schema.field(column)
    name = sql.quoted_name(column, dialect)
    limit = MAX_PARTITIONS + 2  # the rows without a key, and one too many
    if kind == PartitionType.TIME:
        _require_type(field, kind, "a date or a time", _is_time)
        key = _truncated(name, "hour" if config["granularity"] == "hourly" else "day", dialect)
        limit *= DAYS_OF_A_MONTH
    elif kind == PartitionType.ID_RANGE:
        _require_type(field, kind, "whole numbers", _is_whole)
        key = _range_start(name, config["size"], dialect)
    else:
        key = _as_text(name, dialect) if _compares_as_text(field) else name
    return f"SELECT DISTINCT {key} AS {name} FROM ({text}\n) AS q LIMIT {limit}"  # noqa: S608 - the query was judged before, the name is quoted


def parts(
    kind: str, config: dict[str, Any], keys: pa.ChunkedArray, schema: pa.Schema
) -> list[Part]:
    """The parts that the result of `keys_query` stands for, in order; rows without a key last.

    At least one, so that an empty result has a part that knows its columns. CannotBeDone when
    there are more than `MAX_PARTITIONS`.
    """
    present = keys.drop_null().to_pylist()
    if kind == PartitionType.TIME:
        found, advice = _windows(present, config["granularity"]), "a coarser granularity"
    elif kind == PartitionType.ID_RANGE:
        found, advice = _ranges(map(int, present), config["size"]), "a larger size"
    else:
        found = _categories(present, as_text=_compares_as_text(schema.field(config["column"])))
        advice = "a column with fewer values"
    if len(found) > MAX_PARTITIONS:
        raise _refused(f"There would be more than {MAX_PARTITIONS:,} partitions; choose {advice}.")
    if keys.null_count or not found:
        found.append(Part(partitions.NULL_KEY, None))
    return found


def part_query(
    text: str, kind: str, config: dict[str, Any], *, bounds: Bounds, dialect: str
) -> str:
    """The rows of the query `text` that belong to the part."""
    column = sql.quoted_name(config["column"], dialect)
    if bounds is None:
        condition = f"{column} IS NULL"
    elif kind == PartitionType.CATEGORICAL:
        compared = _as_text(column, dialect) if bounds.get("as_text") else column
        condition = f"{compared} = {sql.literal(bounds['value'], dialect)}"
    else:
        write = _time if kind == PartitionType.TIME else sql.literal
        start, end = (write(bounds[edge], dialect) for edge in ("start", "end"))
        condition = f"{column} >= {start} AND {column} < {end}"
    return f"SELECT * FROM ({text}\n) AS q WHERE {condition}"  # noqa: S608 - the query was judged before, names and values are written by tippers.sql


# The key space, in Python


def _windows(instants: Iterable[date], granularity: str) -> list[Part]:
    try:
        windows = {partitions.calendar_window(_aware(each), granularity) for each in instants}
    except OverflowError as error:
        raise _refused("A time lies at the end of the calendar; choose the rows.") from error
    return [
        Part(
            partitions.window_key(window, granularity),
            {"start": window.start.isoformat(), "end": window.end.isoformat()},
        )
        for window in sorted(windows)
    ]


def _aware(instant: date) -> datetime:
    """A time without a zone is in UTC; a date is its first instant."""
    if not isinstance(instant, datetime):
        instant = datetime(instant.year, instant.month, instant.day, tzinfo=UTC)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _ranges(starts: Iterable[int], size: int) -> list[Part]:
    return [
        Part(partitions.range_key(start, size), {"start": start, "end": start + size})
        for start in sorted(starts)
    ]


def _categories(values: list[Any], *, as_text: bool) -> list[Part]:
    mark = {"as_text": True} if as_text else {}
    return [
        Part(partitions.category_key(_shown(value)), {"value": value} | mark)
        for value in sorted(values)
    ]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Types


def _require_type(field: pa.Field, kind: str, wanted: str, is_it: Any) -> None:
    if not is_it(field.type):
        raise _refused(
            f"The column {field.name} has the type {field.type}; {kind} needs {wanted}, so cast "
            "it in the query or choose another column."
        )


def _is_time(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def _is_whole(type_: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(type_))


def _compares_as_text(field: pa.Field) -> bool:
    """Not for text, numbers without a fraction, and booleans: they are compared as they are."""
    import pyarrow as pa

    plain = pa.types.is_string(field.type) or pa.types.is_boolean(field.type)
    return b"source_type" in (field.metadata or {}) or not (plain or _is_whole(field.type))


# What the databases say differently


def _truncated(column: str, unit: str, dialect: str) -> str:
    """The hour or the day that a time lies in; the session is in UTC."""
    if dialect == "postgresql":
        return f"date_trunc('{unit}', {column})"
    if unit == "day":
        return f"DATE({column})"
    return f"CAST(DATE_FORMAT({column}, '%Y-%m-%d %H:00:00') AS DATETIME)"


def _range_start(column: str, size: int, dialect: str) -> str:
    """The greatest multiple of `size` that is not above, as text: it may exceed every integer type.

    By remainders, which are exact: a quotient is rounded, and up across the edge at 17 digits.
    """
    exact = f"CAST({column} AS {'numeric' if dialect == 'postgresql' else 'DECIMAL(40, 0)'})"
    return _as_text(f"({exact} - mod(mod({exact}, {size}) + {size}, {size}))", dialect)


def _as_text(value: str, dialect: str) -> str:
    return f"CAST({value} AS {'text' if dialect == 'postgresql' else 'CHAR'})"


def _time(written: str, dialect: str) -> str:
    instant = datetime.fromisoformat(written)
    if dialect == "postgresql":  # compares with dates and with times of both kinds
        return f"TIMESTAMP WITH TIME ZONE {sql.literal(instant, dialect)}"
    return f"TIMESTAMP {sql.literal(instant.replace(tzinfo=None), dialect)}"


def _refused(sentence: str) -> CannotBeDone:
    return CannotBeDone(sentence, field="partition_config")
