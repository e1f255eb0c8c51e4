"""What is said of a column is what Python's own statistics say, and nothing makes it fail."""

import json
import random
import statistics
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from concepts import column_stats as subject
from concepts.column_stats import ColumnStats, column_stats


def of(column: pa.Array, rows: int = 10**6) -> dict[str, Any]:
    """The statistics of a column that comes in parts of so many rows, as JSON keeps them."""
    table = pa.table({"x": column})
    gathered = ColumnStats()
    for start in range(0, max(len(column), 1), rows):
        gathered.add(table.slice(start, rows))
    (stats,) = json.loads(json.dumps(gathered.found(), allow_nan=False))
    assert isinstance(stats, dict)
    return stats


def test_it_describes_numbers_merged_over_many_parts() -> None:
    chance = random.Random(7)
    numbers = [None if chance.random() < 0.1 else chance.gauss(1e6, 3.5) for _ in range(2500)]
    present = [number for number in numbers if number is not None]

    stats = of(pa.array(numbers), rows=97)

    assert stats["nulls"] == len(numbers) - len(present)
    assert stats["distinct"] == len(set(present))
    assert stats["distinct_exact"] is True
    assert stats["min"] == min(present)
    assert stats["max"] == max(present)
    assert stats["mean"] == pytest.approx(statistics.fmean(present))
    assert stats["std"] == pytest.approx(statistics.stdev(present), rel=1e-9)


def test_it_keeps_the_order_and_the_names_of_the_columns() -> None:
    stats = column_stats(pa.table({"z": [1], "a.b": ["dot"], "a": [2.5], "?column?": [True]}))
    assert [(s["name"], s["dtype"]) for s in stats] == [
        ("z", "int64"),
        ("a.b", "string"),
        ("a", "double"),
        ("?column?", "bool"),
    ]
    assert stats[1]["top_values"] == [{"value": "dot", "count": 1}]
    assert stats[2]["mean"] == 2.5


def test_it_lists_the_most_frequent_texts_first_and_ties_by_value() -> None:
    texts = ["b"] * 3 + ["a"] * 3 + ["c"] * 9 + list("defgh") + [None]
    stats = of(pa.array(texts), rows=4)
    assert stats["distinct"] == 8
    assert stats["nulls"] == 1
    assert stats["top_values"] == [
        {"value": "c", "count": 9},
        {"value": "a", "count": 3},
        {"value": "b", "count": 3},
        {"value": "d", "count": 1},
        {"value": "e", "count": 1},
    ]


def test_it_cuts_a_long_text() -> None:
    stats = of(pa.array(["x" * 100_000]))
    assert len(stats["top_values"][0]["value"]) == subject.LONGEST_TEXT


@pytest.mark.parametrize("limit", ["DISTINCT_ROWS", "DISTINCT_BYTES"])
def test_it_stops_counting_distinct_values_at_a_limit_and_says_so(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(subject, limit, 50)
    stats = of(pa.array([f"value {n}" for n in range(1000)]), rows=40)
    assert stats["distinct_exact"] is False
    assert 0 < stats["distinct"] < 1000
    assert "top_values" not in stats


def test_a_set_of_values_has_one_hash_whatever_their_order_and_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hash_of(values: list[Any]) -> Any:
        return of(pa.array(values), rows=2)["distinct_sha256"]

    assert hash_of(["b", "a", None, "b", "c"]) == hash_of(["c", "b", "a", "a"])
    different: list[list[Any]] = [
        ["a", "b"],
        ["a", "b", "c"],
        ["ab", "c"],
        [""],
        [1, 2],
        [1.0, 2.0],
        [True, False],
    ]
    assert len({hash_of(values) for values in different}) == len(different)
    monkeypatch.setattr(subject, "DISTINCT_ROWS", 2)
    assert "distinct_sha256" not in of(pa.array(["a", "b", "c"]))


def test_it_says_of_booleans_how_often_each_occurs() -> None:
    stats = of(pa.array([True, False, True, None]))
    assert stats["top_values"] == [{"value": True, "count": 2}, {"value": False, "count": 1}]
    assert "mean" not in stats


def test_it_says_the_first_and_the_last_of_times() -> None:
    stats = of(
        pa.array([datetime(2024, 3, 1, 12, tzinfo=UTC), None, datetime(2023, 1, 1, tzinfo=UTC)]),
    )
    assert stats["min"] == "2023-01-01T00:00:00+00:00"
    assert stats["max"] == "2024-03-01T12:00:00+00:00"
    assert stats["distinct"] == 2
    assert of(pa.array([date(2024, 2, 29)]))["max"] == "2024-02-29"


def test_it_survives_one_row() -> None:
    stats = of(pa.array([4]))
    assert (stats["min"], stats["max"], stats["mean"], stats["std"]) == (4, 4, 4.0, None)


@pytest.mark.parametrize(
    "kind", [pa.int32(), pa.float64(), pa.bool_(), pa.string(), pa.timestamp("us"), pa.null()]
)
@pytest.mark.parametrize("rows", [0, 3])
def test_it_survives_columns_without_a_value(kind: pa.DataType, rows: int) -> None:
    stats = of(pa.nulls(rows, kind))
    assert stats["nulls"] == rows
    assert stats.get("mean") is None
    assert stats.get("top_values", []) == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], None, []]),
        pa.array([{"a": 1}, {"a": None}, None]),
    ],
)
def test_it_counts_only_nulls_of_lists_and_structs(column: pa.Array) -> None:
    stats = of(column)
    assert stats.keys() == {"name", "dtype", "nulls"}
    assert stats["dtype"] in {"list<element: int64>", "struct<a: int64>"}
    assert stats["nulls"] == 1


def test_it_leaves_infinite_and_undefined_numbers_out_and_counts_them() -> None:
    stats = of(pa.array([1.0, float("inf"), float("nan"), 3.0, float("-inf")]), rows=2)
    assert (stats["min"], stats["max"], stats["mean"]) == (1.0, 3.0, 2.0)
    assert stats["non_finite"] == 3


def test_it_does_not_overflow_on_large_numbers() -> None:
    large = 2**63 - 1
    stats = of(pa.array([large, large, large - 2]))
    assert stats["max"] == large
    assert stats["mean"] == pytest.approx(large)
    decimals = of(pa.array([Decimal("1.5"), Decimal("2.5")]))
    assert (decimals["min"], decimals["mean"]) == (1.5, 2.0)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (pa.timestamp("us", "UTC"), "1970-01-01T00:00:05+00:00", "1970-01-01T00:16:39+00:00"),
        (pa.timestamp("us"), "1970-01-01T00:00:05", "1970-01-01T00:16:39"),
        (pa.date32(), "1970-01-06", "1972-09-26"),
        (pa.time64("us"), "00:00:05", "00:16:39"),
        (pa.string(), None, None),
    ],
)
def test_it_goes_on_past_the_limit_of_distinct_values(
    monkeypatch: pytest.MonkeyPatch,
    kind: pa.DataType,
    least: str | None,
    most: str | None,
) -> None:
    monkeypatch.setattr(subject, "DISTINCT_ROWS", 50)
    unit = 1 if kind == pa.date32() else 1_000_000
    numbers = [*range(400, 1000), *range(5, 400), None, None]
    values = pa.array([None if n is None else n * unit for n in numbers], pa.int64())
    if kind == pa.date32():
        values = values.cast(pa.int32())
    values = values.cast(kind)
    stats = of(values, rows=200)
    assert (stats["nulls"], stats["distinct_exact"]) == (2, False)
    assert (stats.get("min"), stats.get("max")) == (least, most)
