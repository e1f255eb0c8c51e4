"""Stored predictions, page by page; what is expected comes from plain lists."""

import csv
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from labeling import result_pages
from labeling.result_pages import Choice, as_parquet, download, page, predictions
from tippers import storage
from tippers.errors import CannotBeDone
from tippers.storage import NotStored

KEY = "snorkel_results/job_1/pages.parquet"
ROWS = 470
NAMES = {5: "STATIC", 9: "PHONE"}


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Rows in ten row groups, of few confidences, so that many are equal; some without a label."""
    monkeypatch.setattr(result_pages, "ROW_GROUP_ROWS", 50)
    rng = np.random.default_rng(3)
    labels = rng.choice([5, 9, -1], ROWS)
    confidence = np.where(labels < 0, np.nan, rng.choice([0.5, 0.75, 0.9, 1.0], ROWS))
    table = pa.table(
        {
            "sample_id": [f'mac, "{number}"' for number in range(ROWS)],
            "predicted_label": labels,
            "confidence": pa.array(confidence, from_pandas=True),
            "prob_class_0": pa.array(confidence, from_pandas=True),
            "split": rng.choice(["train", "test"], ROWS),
        }
    )
    storage.put_bytes(KEY, as_parquet(table))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


@pytest.mark.parametrize("order", [None, "confidence", "-confidence"])
@pytest.mark.parametrize("min_confidence", [None, 0.0, 0.75, 0.76])
@pytest.mark.parametrize("predicted_class", [None, -1, 9])
def test_rows_are_chosen_and_ordered(
    stored: list[dict[str, Any]],
    predicted_class: int | None,
    min_confidence: float | None,
    order: str | None,
) -> None:
    chosen = [
        row
        for row in stored
        if predicted_class in {None, row["predicted_label"]}
        and (min_confidence is None or (row["confidence"] or -1) >= min_confidence)
    ]
    if order is not None:
        # Python's sort is stable, and what has no confidence comes last in either order.
        sign = -1 if order.startswith("-") else 1
        chosen.sort(key=lambda row: sign * row["confidence"] if row["confidence"] else 9)
    choice = Choice(predicted_class, min_confidence, order)
    for skip, limit in ((0, 1000), (0, 1), (45, 60), (len(chosen) - 1, 5), (len(chosen), 5)):
        found = page(KEY, choice, skip=max(skip, 0), limit=limit)
        assert found.total == len(chosen)
        assert found.rows.to_pylist() == chosen[max(skip, 0) : max(skip, 0) + limit]


def test_predictions_are_shown_with_names_and_probabilities(stored: list[dict[str, Any]]) -> None:
    rows = page(KEY, Choice(), skip=0, limit=ROWS).rows
    for row, shown in zip(stored, predictions(rows, NAMES), strict=True):
        assert shown == {
            "sample_id": row["sample_id"],
            "predicted_class": row["predicted_label"],
            "predicted_name": {5: "STATIC", 9: "PHONE", -1: None}[row["predicted_label"]],
            "confidence": row["confidence"],
            "probs": None if row["confidence"] is None else [row["confidence"]],
            "split": row["split"],
        }


def test_csv_comes_a_row_group_at_a_time_under_one_header(stored: list[dict[str, Any]]) -> None:
    parts = list(download(KEY, "csv"))
    assert len(parts) == 1 + -(-ROWS // 50)
    read = list(csv.DictReader(io.StringIO(b"".join(parts).decode(), newline="")))
    texts = [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in stored
    ]
    numbers = ("confidence", "prob_class_0")
    for row in (*read, *texts):
        row.update({name: str(float(row[name])) for name in numbers if row[name]})
    assert read == texts


def test_a_file_without_rows_has_pages_and_a_header() -> None:
    nothing = pa.table({"sample_id": pa.array([], pa.string()), "predicted_label": pa.array([], pa.int64()),
                        "confidence": pa.array([], pa.float64())})  # fmt: skip
    storage.put_bytes(KEY, as_parquet(nothing))
    for choice in (Choice(), Choice(order="confidence", min_confidence=0.5)):
        found = page(KEY, choice, skip=0, limit=10)
        assert (found.total, found.rows.num_rows) == (0, 0)
    assert b"".join(download(KEY, "csv")) == b'"sample_id","predicted_label","confidence"\n'


def test_what_is_missing_is_known_before_an_answer_begins() -> None:
    with pytest.raises(NotStored):
        download("snorkel_results/job_1/no.parquet", "csv")


def test_a_class_that_is_never_predicted_is_refused_with_those_that_are() -> None:
    Choice(predicted_class=-1).check(NAMES)
    Choice(predicted_class=9).check(NAMES)
    with pytest.raises(CannotBeDone, match="no 7; it predicts: -1, 5, 9"):
        Choice(predicted_class=7).check(NAMES)
