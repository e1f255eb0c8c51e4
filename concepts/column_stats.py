"""What is in each column of a table, found while the table passes in parts.

Memory is bounded by one part and by what is kept to count distinct values, whatever the size of
the table.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

TOP_VALUES = 5
# Above either of these, `distinct` is what was counted so far and `distinct_exact` is false.
DISTINCT_ROWS = 100_000
DISTINCT_BYTES = 8 * 1024 * 1024
LONGEST_TEXT = 200


class ColumnStats:
    """Gathers the statistics of a table's columns from its parts, which share one schema.

    A part of many rows (a row group's) costs less per row than many small ones.
    """

    def __init__(self) -> None:
        self._columns: list[_Column] | None = None

    def add(self, part: pa.Table) -> None:
        """Take the next rows into account; a part may be empty, and a table without rows is one."""
        if self._columns is None:
            self._columns = [_Column.of(field.name, field.type) for field in part.schema]
        for column, values in zip(self._columns, part.columns, strict=True):
            column.add(values)

    def found(self) -> list[dict[str, Any]]:
        """One JSON object per column, in the table's order.

        Every object has `name`, `dtype` (Arrow's name) and `nulls`. Columns whose values compare
        have `distinct` and `distinct_exact`; if that is true, `distinct_sha256` is a hash of the
        set of values, whatever order they came in. Numbers have `min max mean std` (of the finite
        values; std is the sample's, null below two values) and `non_finite` if there are such;
        times have `min max` as ISO text; text and booleans have `top_values`, `[{value, count}]`,
        the most frequent first, if all distinct values could be counted.
        """
        return [column.stats() for column in self._columns or []]


def column_stats(table: pa.Table) -> list[dict[str, Any]]:
    """The statistics of a table that is in memory; see `ColumnStats.found`."""
    stats = ColumnStats()
    stats.add(table)
    return stats.found()


@dataclass
class _Column:
    name: str
    dtype: str
    spread: _Spread | None
    least_most: _LeastMost | None
    values: _Distinct | None
    nulls: int = 0

    @classmethod
    def of(cls, name: str, kind: pa.DataType) -> _Column:
        import pyarrow as pa

        if pa.types.is_list(kind):  # as the Parquet file calls what is in it
            kind = pa.list_(kind.value_field.with_name("element"))
        return cls(
            name,
            str(kind),
            _Spread() if _is_numeric(kind) else None,
            _LeastMost() if pa.types.is_temporal(kind) else None,
            _Distinct() if _is_comparable(kind) else None,
        )

    def add(self, column: pa.ChunkedArray) -> None:
        self.nulls += column.null_count
        present = column.drop_null() if column.null_count else column
        if not len(present):
            return
        for part in (self.spread, self.least_most, self.values):
            if part is not None:
                part.add(present)

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "nulls": self.nulls}
        if self.values is not None:
            stats |= self.values.stats(with_top=self.spread is None and self.least_most is None)
        for part in (self.spread, self.least_most):
            if part is not None:
                stats |= part.stats()
        return stats


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_comparable(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_null(kind))


@dataclass
class _Spread:
    """Minimum, maximum, mean and standard deviation of numbers, merged part by part."""

    count: int = 0
    non_finite: int = 0
    least: Any = None
    most: Any = None
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def add(self, present: pa.ChunkedArray) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_floating(present.type):
            finite = present.filter(pc.is_finite(present))
            self.non_finite += len(present) - len(finite)
            present = finite
        if not len(present):
            return
        ends = pc.min_max(present).as_py()
        self.least = ends["min"] if self.least is None else min(self.least, ends["min"])
        self.most = ends["max"] if self.most is None else max(self.most, ends["max"])
        # As float64 first: a sum of int64 wraps around in silence.
        numbers = pc.cast(present, pa.float64(), safe=False)
        count = len(numbers)
        mean = pc.mean(numbers).as_py()
        squares = pc.variance(numbers).as_py() * count
        total = self.count + count
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = {
            "min": _as_json(self.least),
            "max": _as_json(self.most),
            "mean": _as_json(self.mean) if self.count else None,
            "std": _as_json(math.sqrt(self.squares / (self.count - 1))) if self.count > 1 else None,
        }
        return stats | ({"non_finite": self.non_finite} if self.non_finite else {})


@dataclass
class _LeastMost:
    """The earliest and the latest of times."""

    least: Any = None
    most: Any = None

    def add(self, present: pa.ChunkedArray) -> None:
        import pyarrow.compute as pc

        ends = pc.min_max(present).as_py()
        self.least = ends["min"] if self.least is None else min(self.least, ends["min"])
        self.most = ends["max"] if self.most is None else max(self.most, ends["max"])

    def stats(self) -> dict[str, Any]:
        return {"min": _as_json(self.least), "max": _as_json(self.most)}


@dataclass
class _Distinct:
    """Distinct values with their counts, until there are too many to keep."""

    values: pa.Array | None = None
    counts: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)  # beside `values`
    exact: bool = True
    _kept: int = field(default=0)

    def add(self, present: pa.ChunkedArray) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.exact:
            return
        new = present if self.values is None else self._count_known(present)
        if not len(new):
            return
        found = pc.value_counts(new)
        values, counts = found.field("values"), found.field("counts").to_numpy()
        if self.values is not None:
            values = pa.concat_arrays([self.values, values])
            counts = np.concatenate([self.counts, counts])
        self._kept = len(values)
        if len(values) > DISTINCT_ROWS or values.nbytes > DISTINCT_BYTES:
            self.exact, self.values = False, None
        else:
            self.values, self.counts = values, counts.copy()  # Arrow's own memory is read only

    def _count_known(self, present: pa.ChunkedArray) -> pa.ChunkedArray:
        """Count the values that came before, and return the others.

        Most values of most columns come again, and grouping each part by itself first takes half
        as long again.
        """
        import numpy as np
        import pyarrow.compute as pc

        at = pc.index_in(present, value_set=self.values)
        for chunk in at.drop_null().chunks:
            self.counts += np.bincount(chunk.to_numpy(), minlength=len(self.counts))
        return present.filter(at.is_null())

    def stats(self, *, with_top: bool) -> dict[str, Any]:
        stats: dict[str, Any] = {"distinct": self._kept, "distinct_exact": self.exact}
        if self.exact:
            stats["distinct_sha256"] = self._identity()
        if with_top and self.exact:
            stats["top_values"] = self._top()
        return stats

    def _identity(self) -> str:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.values is None:
            return hashlib.sha256().hexdigest()
        ordered = self.values.take(pc.array_sort_indices(self.values))
        digest = hashlib.sha256(str(ordered.type).encode())
        digest.update(pa.record_batch([ordered], names=["value"]).serialize())
        return digest.hexdigest()

    def _top(self) -> list[dict[str, Any]]:
        import pyarrow as pa

        if self.values is None:
            return []
        counted = pa.table({"value": self.values, "count": self.counts})
        order = [("count", "descending"), ("value", "ascending")]
        most = counted.sort_by(order).slice(0, TOP_VALUES).to_pylist()
        return [{"value": _as_json(row["value"]), "count": row["count"]} for row in most]


def _as_json(value: Any) -> Any:
    """A value that JSON can hold: times as ISO text, long text cut, no NaN."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value if len(value) <= LONGEST_TEXT else value[: LONGEST_TEXT - 1] + "…"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "as_integer_ratio"):  # a decimal
        return _as_json(float(value))
    return _as_json(str(value))
