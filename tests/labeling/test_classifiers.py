"""Which labels are learned from, and which numbers features become."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from labeling.classifiers import (
    FeatureTable,
    FilterOptions,
    check_split,
    feature_matrix,
    filter_labels,
    sureness,
)
from tippers.errors import CannotBeDone

NAMES = {1: "STATIC", 2: "LAPTOP", 3: "PHONE"}
TWO = {1: "STATIC", 2: "LAPTOP"}


def counts(stats: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = stats["class_distribution_after_filter"]
    return found


def labelled(*sizes: int, sure: float = 0.95) -> tuple[Any, Any]:
    """Labels 1, 2, ... of the given sizes, equally sure."""
    labels = np.concatenate([np.full(size, value) for value, size in enumerate(sizes, start=1)])
    return labels, np.full(len(labels), sure)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [((0.7, 0.2, 0.1), 0.2702), ((1 / 3, 1 / 3, 1 / 3), 0.0), ((1.0, 0.0, 0.0), 1.0)],
)
def test_entropy_says_how_far_from_uniform_the_probabilities_are(
    probabilities: tuple[float, ...], expected: float
) -> None:
    rows = np.array([probabilities])
    found = sureness(rows.max(axis=1), rows, "entropy")
    assert found[0] == pytest.approx(expected, abs=5e-5)


def test_max_confidence_is_the_labels_own_probability() -> None:
    found = sureness(np.array([0.7, np.nan]), np.array([[0.7, 0.3], [np.nan, np.nan]]),
                     "max_confidence")  # fmt: skip
    np.testing.assert_array_equal(found, [0.7, np.nan])


def test_hard_labels_are_sure_whatever_the_method() -> None:
    assert sureness(np.array([1.0]), None, "entropy").tolist() == [1.0]


def test_rows_below_the_threshold_and_rows_without_a_label_are_left_out() -> None:
    labels = np.array([1, 1, 2, 2, -1, 1, 2])
    sure = np.array([0.9, 0.7, 0.7, 0.69, np.nan, 0.2, 1.0])
    found = filter_labels(labels, sure, TWO, FilterOptions(min_labels_per_class=2))
    assert found.rows.tolist() == [0, 1, 2, 6]
    assert found.stats == {
        "samples_before_filter": 6,
        "samples_after_filter": 4,
        "confidence_before_filter": round((0.9 + 0.7 + 0.7 + 0.69 + 0.2 + 1.0) / 6, 4),
        "confidence_after_filter": round((0.9 + 0.7 + 0.7 + 1.0) / 4, 4),
        "filter_retention_rate": round(4 / 6, 4),
        "class_distribution_after_filter": {"STATIC": 2, "LAPTOP": 2},
    }


def test_a_class_with_too_few_labels_is_an_error_that_gives_the_counts() -> None:
    labels, sure = labelled(100, 20, 4)
    with pytest.raises(CannotBeDone) as caught:
        filter_labels(labels, sure, NAMES, FilterOptions())
    assert "(STATIC: 100, LAPTOP: 20, PHONE: 4)" in caught.value.detail
    assert "relax_threshold" in caught.value.detail


def test_a_class_without_any_label_is_one_with_too_few() -> None:
    labels, sure = labelled(100, 0, 20)
    with pytest.raises(CannotBeDone, match=r"\(STATIC: 100, LAPTOP: 0, PHONE: 20\)"):
        filter_labels(labels, sure, NAMES, FilterOptions())


def test_unlabelled_rows_never_come_back_however_far_the_threshold_is_lowered() -> None:
    """The predecessor took 50 uniform rows for class 0 when it lowered the threshold."""
    labels, sure = labelled(100, 20, 4)
    labels, sure = np.append(labels, np.full(50, -1)), np.append(sure, np.full(50, np.nan))
    options = FilterOptions(relax_threshold=True)
    with pytest.raises(
        CannotBeDone, match=r"threshold of 0\.5 .*STATIC: 100, LAPTOP: 20, PHONE: 4"
    ):
        filter_labels(labels, sure, NAMES, options)


def test_classes_are_cut_to_a_multiple_of_the_smallest_in_their_order() -> None:
    labels, sure = labelled(100, 20, 4)
    options = FilterOptions(min_labels_per_class=4, imbalance_factor=3.0, random_state=7)
    found = filter_labels(labels, sure, NAMES, options)
    assert counts(found.stats) == {"STATIC": 12, "LAPTOP": 12, "PHONE": 4}
    assert found.rows.tolist() == sorted(found.rows.tolist())
    again = filter_labels(labels, sure, NAMES, options)
    assert again.rows.tolist() == found.rows.tolist()
    other = filter_labels(
        labels, sure, NAMES,
        FilterOptions(min_labels_per_class=4, imbalance_factor=3.0, random_state=8),
    )  # fmt: skip
    assert other.rows.tolist() != found.rows.tolist()


def test_the_threshold_is_lowered_in_steps_when_that_is_asked_for_and_says_so() -> None:
    labels = np.array([1] * 10 + [2] * 10)
    sure = np.array([0.9] * 10 + [0.63] * 10)
    found = filter_labels(labels, sure, TWO, FilterOptions(relax_threshold=True))
    assert found.threshold == 0.6
    assert counts(found.stats) == {"STATIC": 10, "LAPTOP": 10}
    assert "lowered from 0.7 to 0.6" in found.notes[0]


def test_one_class_alone_cannot_be_learned() -> None:
    with pytest.raises(CannotBeDone, match="at least two concept values; there are 1"):
        filter_labels(*labelled(50), NAMES, FilterOptions())


@pytest.mark.parametrize(("sizes", "test_size"), [((5, 1), 0.2), ((2, 2), 0.1), ((2, 2), 0.9)])
def test_a_table_that_cannot_be_split_is_told(sizes: tuple[int, ...], test_size: float) -> None:
    with pytest.raises(CannotBeDone, match="cannot be split"):
        check_split(dict(zip("ab", sizes, strict=True)), test_size)


def test_features_join_on_the_key_in_the_order_of_the_labels() -> None:
    keys = pa.array(["b", "a", "c"])
    stays = FeatureTable("stays", pa.table({"mac": ["a", "b"], "n": [1, 2]}), "mac")
    rooms = FeatureTable("rooms", pa.table({"mac": ["c", "a"], "r": [7.5, None]}), "mac")
    found = feature_matrix(keys, "mac", [stays, rooms])
    assert found.names == ["n", "r"]
    np.testing.assert_array_equal(found.x, [[2, np.nan], [1, np.nan], [np.nan, 7.5]])


def test_every_kind_of_column_becomes_numbers_or_is_left_out_with_its_reason() -> None:
    at = datetime(2024, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    table = pa.table(
        {
            "id": [1, 2, 3],
            "whole": [1, None, 3],
            "real": [0.5, math.inf, 1.5],
            "flag": [True, False, None],
            "time": [at, None, at],
            "floor": ["x", "y", None],
            "empty": pa.array([None, None, None], pa.int64()),
            "list": [[1], [2], [3]],
        }
    )
    found = feature_matrix(pa.array([1, 2, 3]), "id", [FeatureTable("f", table, "id")])
    assert found.names == ["whole", "real", "flag", "time", "floor = x", "floor = y"]
    seconds = at.timestamp()
    np.testing.assert_array_equal(
        found.x,
        [
            [1, 0.5, 1, seconds, 1, 0],
            [np.nan, np.nan, 0, np.nan, 0, 1],
            [3, 1.5, np.nan, seconds, 0, 0],
        ],
    )
    assert found.left_out["empty"] == "it has no value in any row"
    assert "cannot be turned into a number" in found.left_out["list"]


def test_long_text_is_left_out() -> None:
    table = pa.table({"id": list(range(30)), "n": list(range(30)),
                      "t": [f"text {n}" for n in range(30)]})  # fmt: skip
    found = feature_matrix(pa.array(range(30)), "id", [FeatureTable("f", table, "id")])
    assert found.names == ["n"]
    assert "text with 30 values" in found.left_out["t"]


def test_no_key_is_ever_a_feature() -> None:
    one = FeatureTable("one", pa.table({"id": [1, 2], "n": [5, 6]}), "id")
    two = FeatureTable("two", pa.table({"device": [1, 2], "id": [8, 9], "m": [7, 8]}), "device")
    assert feature_matrix(pa.array([1, 2]), "id", [one, two]).names == ["n", "m"]


def test_columns_of_the_same_name_are_told_apart_by_their_feature() -> None:
    one = FeatureTable("one", pa.table({"id": [1], "n": [5]}), "id")
    two = FeatureTable("two", pa.table({"id": [1], "n": [6]}), "id")
    assert feature_matrix(pa.array([1]), "id", [one, two]).names == ["n", "two.n"]


def test_only_the_declared_columns_are_learned_from() -> None:
    table = pa.table({"id": [1], "n": [5], "m": [6]})
    assert feature_matrix(pa.array([1]), "id", [FeatureTable("f", table, "id", ["m"])]).names == [
        "m"
    ]
    with pytest.raises(CannotBeDone, match="The feature f has no column q"):
        feature_matrix(pa.array([1]), "id", [FeatureTable("f", table, "id", ["q"])])


def test_a_duplicate_key_is_an_error_that_names_it() -> None:
    table = pa.table({"mac": ["a", "b", "b"], "n": [1, 2, 3]})
    with pytest.raises(CannotBeDone, match="The feature f has 2 rows for mac = b"):
        feature_matrix(pa.array(["a"]), "mac", [FeatureTable("f", table, "mac")])


def test_nothing_to_learn_from_is_an_error_with_the_reasons() -> None:
    table = pa.table({"mac": ["a"], "l": [[1]]})
    with pytest.raises(CannotBeDone, match=r"no column to learn from .*l: list"):
        feature_matrix(pa.array(["a"]), "mac", [FeatureTable("f", table, "mac")])
