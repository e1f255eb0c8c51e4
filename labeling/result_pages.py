"""Stored predictions page by page: filtered, ordered, and read no further than the page needs.

A file of predictions has `sample_id`, `predicted_label` (a cv_id, or -1 where there is none) and
`confidence` (null where there is no label), rows in their stable order, in row groups so small that
a page costs little. There may be `prob_class_0...` and more.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from labeling.models import ABSTAIN
from tippers import downloads, storage
from tippers.errors import CannotBeDone

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP_ROWS = 20_000
PROBABILITY = "prob_class_"
ORDERS = ("confidence", "-confidence")


@dataclass(frozen=True)
class Choice:
    """Which predictions, and in which of ORDERS; None is the stored order.

    A row without a label has no confidence: none is high enough, and such rows come last.
    """

    predicted_class: int | None = None
    min_confidence: float | None = None
    order: str | None = None

    def check(self, cv_ids: Iterable[int]) -> None:
        """CannotBeDone for a class that is none of these, nor -1."""
        known = (ABSTAIN, *cv_ids)
        if self.predicted_class not in {None, *known}:
            there = ", ".join(str(cv_id) for cv_id in known)
            raise CannotBeDone(
                f"This job predicts no {self.predicted_class}; it predicts: {there}.",
                field="predicted_class",
            )


@dataclass(frozen=True)
class Page:
    """Some rows of a file, and how many were chosen in all."""

    rows: "pa.Table"
    total: int


def as_parquet(table: "pa.Table") -> bytes:
    """A table of predictions as a file to page through."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", row_group_size=ROW_GROUP_ROWS)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def page(key: str, choice: Choice, *, skip: int, limit: int) -> Page:
    """At most `limit` of the chosen rows from `skip`; only the row groups that hold them are read."""
    import numpy as np

    with storage.open_parquet(key) as file:
        if choice == Choice():
            total = file.metadata.num_rows
            positions = np.arange(min(skip, total), min(skip + limit, total))
        else:
            chosen = _chosen(file, choice)
            total, positions = len(chosen), chosen[skip : skip + limit]
        return Page(_rows(file, positions), total)


def predictions(rows: "pa.Table", names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Rows as the API shows them; `names` are those of the cv_ids that may be predicted."""
    probabilities = [name for name in rows.column_names if name.startswith(PROBABILITY)]
    known = {"sample_id", "predicted_label", "confidence", *probabilities}
    shown = []
    for row in rows.to_pylist():
        prediction = {
            "sample_id": row["sample_id"],
            "predicted_class": row["predicted_label"],
            "predicted_name": names.get(row["predicted_label"]),
            "confidence": row["confidence"],
        }
        if probabilities:
            said = [row[name] for name in probabilities]
            prediction["probs"] = None if None in said else said
        shown.append(prediction | {name: row[name] for name in row if name not in known})
    return shown


def download(key: str, file_format: str) -> IO[bytes] | Generator[bytes]:
    """The stored Parquet file, or its rows as CSV, a row group at a time.

    It is opened here and now, so that one that is missing is known before an answer begins.
    """
    return (
        _csv_parts(storage.open_parquet(key)) if file_format == "csv" else storage.open_bytes(key)
    )


def _csv_parts(file: "pq.ParquetFile") -> Generator[bytes]:
    with file:
        batches = file.iter_batches(batch_size=ROW_GROUP_ROWS)
        yield from downloads.csv_parts(file.schema_arrow, batches)


def _chosen(file: "pq.ParquetFile", choice: Choice) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The positions of the chosen rows in their order."""
    import numpy as np
    import pyarrow.compute as pc

    there = file.read(columns=["predicted_label", "confidence"])
    confidence = there.column("confidence")
    mask = np.ones(there.num_rows, dtype=bool)
    if choice.predicted_class is not None:
        mask &= pc.equal(there.column("predicted_label"), choice.predicted_class).to_numpy()
    if choice.min_confidence is not None:
        mask &= pc.greater_equal(confidence, choice.min_confidence).fill_null(False).to_numpy()
    positions: np.ndarray[Any, np.dtype[np.int64]] = np.flatnonzero(mask)
    if choice.order is None:
        return positions
    direction = "descending" if choice.order.startswith("-") else "ascending"
    # A stable sort, nulls last: rows of one confidence stay in the stored order.
    order = pc.array_sort_indices(confidence.take(positions), order=direction)
    ordered: np.ndarray[Any, np.dtype[np.int64]] = positions[order.to_numpy()]
    return ordered


def _rows(file: "pq.ParquetFile", positions: "np.ndarray[Any, np.dtype[np.int64]]") -> "pa.Table":
    """The rows at these positions, in this order."""
    import numpy as np
    import pyarrow as pa

    counts = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    ends = np.cumsum(counts, dtype=np.int64)
    groups = np.searchsorted(ends, positions, side="right")
    parts, places = [file.schema_arrow.empty_table()], []
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        start = ends[group] - counts[group]
        parts.append(file.read_row_group(int(group)).take(positions[inside] - start))
        places.append(inside)
    back = np.argsort(np.concatenate([np.empty(0, dtype=np.int64), *places]))
    return pa.concat_tables(parts).take(back)
