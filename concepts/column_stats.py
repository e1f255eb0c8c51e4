"""What is in each column of a Parquet file, read one column at a time in batches.

Memory is bounded by one batch and by what is kept to count distinct values, whatever the size of
the file.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 250_000  # a row group of ours, which is bounded in bytes too
TOP_VALUES = 5
# Above either of these, `distinct` is what was counted so far and `distinct_exact` is false.
DISTINCT_ROWS = 100_000
DISTINCT_BYTES = 8 * 1024 * 1024
LONGEST_TEXT = 200


def column_stats(file: pq.ParquetFile) -> list[dict[str, Any]]:
    """One JSON object per column, in the file's order.

    Every object has `name`, `dtype` (Arrow's name) and `nulls`. Columns whose values compare have
    `distinct` and `distinct_exact`; if that is true, `distinct_sha256` is a hash of the set of
    values, whatever order they came in. Numbers have `min max mean std` (of the finite values; std is
    the sample's, null below two values) and `non_finite` if there are such; times have `min max`
    as ISO text; text and booleans have `top_values`, `[{value, count}]`, the most frequent first,
    if all distinct values could be counted.
    """
    return [_one_column(file, position) for position in range(len(file.schema_arrow))]


def _one_column(file: pq.ParquetFile, position: int) -> dict[str, Any]:
    import pyarrow as pa

    name, kind = file.schema_arrow.names[position], file.schema_arrow.types[position]
    numeric = _is_numeric(kind)
    spread = _Spread() if numeric else None
    least_most = _LeastMost() if pa.types.is_temporal(kind) else None
    values = _Distinct() if _is_comparable(kind) else None
    nulls = 0
    for group in range(file.num_row_groups):
        # Where nothing is left to count, the file's own notes say the rest: half of the time.
        if values is not None and not values.exact and not numeric:
            noted = _noted(file, group, position, with_ends=least_most is not None)
            if noted is not None:
                nulls += noted.null_count
                if least_most is not None:
                    least_most.widen(noted.min, noted.max)
                continue
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[name]):
            column = batch.column(name)
            nulls += column.null_count
            present = column.drop_null()
            if not len(present):
                continue
            for part in (spread, least_most, values):
                if part is not None:
                    part.add(present)
    stats: dict[str, Any] = {"name": name, "dtype": str(kind), "nulls": nulls}
    if values is not None:
        stats |= values.stats(with_top=not numeric and least_most is None)
    for part in (spread, least_most):
        if part is not None:
            stats |= part.stats()
    return stats


def _noted(file: pq.ParquetFile, group: int, position: int, *, with_ends: bool) -> Any:
    """What the file notes of a column in a row group; None where that is not all we need."""
    if file.metadata.num_columns != len(file.schema_arrow):
        return None  # nested columns take several places each
    noted = file.metadata.row_group(group).column(position).statistics
    if noted is None or not noted.has_null_count or (with_ends and not noted.has_min_max):
        return None
    return noted


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
    """Minimum, maximum, mean and standard deviation of numbers, merged batch by batch."""

    count: int = 0
    non_finite: int = 0
    least: Any = None
    most: Any = None
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def add(self, present: pa.Array) -> None:
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

    def add(self, present: pa.Array) -> None:
        import pyarrow.compute as pc

        ends = pc.min_max(present).as_py()
        self.widen(ends["min"], ends["max"])

    def widen(self, least: Any, most: Any) -> None:
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)

    def stats(self) -> dict[str, Any]:
        return {"min": _as_json(self.least), "max": _as_json(self.most)}


@dataclass
class _Distinct:
    """Distinct values with their counts, until there are too many to keep."""

    values: pa.Array | None = None
    counts: np.ndarray[Any, np.dtype[np.int64]] | None = None
    exact: bool = True
    _kept: int = field(default=0)

    def add(self, present: pa.Array) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.exact:
            return
        found = pc.value_counts(present)
        values, counts = found.field("values"), found.field("counts").to_numpy()
        if self.values is not None and self.counts is not None:
            # By position in what is known: grouping both together takes ten times as long.
            at = pc.index_in(values, value_set=self.values)
            known = at.is_valid()
            known_here = known.to_numpy(zero_copy_only=False)
            self.counts[at.drop_null().to_numpy()] += counts[known_here]
            values = pa.concat_arrays([self.values, values.filter(pc.invert(known))])
            counts = np.concatenate([self.counts, counts[~known_here]])
        self._kept = len(values)
        if len(values) > DISTINCT_ROWS or values.nbytes > DISTINCT_BYTES:
            self.exact, self.values, self.counts = False, None, None
        else:
            self.values, self.counts = values, counts.copy()  # Arrow's own memory is read only

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
