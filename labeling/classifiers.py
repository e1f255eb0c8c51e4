"""From labels and features to the table that classifiers learn from. Tables and arrays, no database.

A label counts when it is sure enough; classes are balanced by leaving rows out; features are joined
on the entity and turned into numbers. Training itself is `labeling.bank`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tippers.errors import CannotBeDone

ABSTAIN = -1
RELAX_STEP = 0.05
RELAX_LEAST = 0.5
SHORT_TEXT = 20  # distinct values that a text column may have to become one column each

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FilterOptions:
    """Which labels are used, as the launch asked for."""

    threshold_method: str = "max_confidence"  # or "entropy"
    threshold_value: float = 0.7
    min_labels_per_class: int = 10
    imbalance_factor: float = 3.0
    relax_threshold: bool = False
    random_state: int = 42


@dataclass(frozen=True)
class Filtered:
    """`rows`: positions of the labels that are used, ascending. `stats`: as shown to the user."""

    rows: Ints
    stats: dict[str, Any]
    threshold: float
    notes: list[str]


@dataclass(frozen=True)
class FeatureTable:
    """A feature's current product. `columns`: those to learn from; None for all but the key."""

    name: str
    table: pa.Table
    key_column: str
    columns: Sequence[str] | None = None


@dataclass(frozen=True)
class Column:
    """A feature's column and how its values become numbers, as learned from the labelled rows.

    `name` is the column's own, with its feature's before it where two features have the same one;
    `type` Arrow's. `encoding`: "number" as it is, "seconds" for what measures time, "one_hot" for a
    text, one number for each of `categories` (any other value is 0 in all of them).
    """

    feature: str
    column: str
    name: str
    type: str
    encoding: str
    categories: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """The names of the numbers that it becomes."""
        return [f"{self.name} = {each}" for each in self.categories] or [self.name]


@dataclass(frozen=True)
class FeatureMatrix:
    """`x`: rows x the columns' outputs, nan for what is missing.

    `left_out`: column -> why it is no feature. `known`: whether any feature has a row for it.
    """

    x: Floats
    columns: list[Column]
    left_out: dict[str, str]
    known: npt.NDArray[np.bool_]

    @property
    def names(self) -> list[str]:
        """What the columns of `x` are."""
        return [output for column in self.columns for output in column.outputs]


def sureness(confidence: Floats, probabilities: Floats | None, method: str) -> Floats:
    """How sure each label is, 0 to 1: its probability, or 1 - H/ln k of all classes' probabilities.

    Labels without probabilities (hard labels) count with their confidence, which is 1. nan stays.
    """
    if method == "max_confidence" or probabilities is None:
        return confidence
    positive = np.where(probabilities > 0, probabilities, 1.0)
    entropy = -(positive * np.log(positive)).sum(axis=1)
    sure = 1.0 - entropy / np.log(probabilities.shape[1])
    return np.where(np.isnan(confidence), np.nan, sure)


def filter_labels(
    labels: Ints, sure: Floats, names: Mapping[int, str], options: FilterOptions
) -> Filtered:
    """Choose the labels to learn from. `labels`: cv_ids or -1; `names`: cv_id -> value's name.

    CannotBeDone, with the counts, when a class has fewer than `min_labels_per_class` (one that
    nobody voted for has none), or when fewer than two classes are there. Rows without a label are
    never used.
    """
    labelled = labels != ABSTAIN
    classes = np.unique(labels[labelled])
    if len(classes) < 2:
        raise CannotBeDone(
            f"Classifiers need labels of at least two concept values; there are {len(classes)}."
        )
    threshold, kept, notes = options.threshold_value, labelled, []
    while True:
        kept = labelled & (sure >= threshold)
        counts = {value: int((labels[kept] == value).sum()) for value in sorted(names)}
        if min(counts.values()) >= options.min_labels_per_class:
            break
        if not options.relax_threshold or threshold <= RELAX_LEAST:
            raise CannotBeDone(_too_few(counts, names, threshold, options))
        threshold = round(max(threshold - RELAX_STEP, RELAX_LEAST), 4)
    if threshold != options.threshold_value:
        notes.append(
            f"The threshold was lowered from {options.threshold_value} to {threshold}, so that "
            f"every class has at least {options.min_labels_per_class} labels."
        )
    rows = np.flatnonzero(kept)
    cap = int(options.imbalance_factor * min(counts.values()))
    if max(counts.values()) > cap:
        rows = _balanced(rows, labels[rows], cap, options.random_state)
        notes.append(f"Classes were cut to {cap} rows, {options.imbalance_factor} times the least.")
    values, sizes = np.unique(labels[rows], return_counts=True)
    before = int(labelled.sum())
    stats = {
        "samples_before_filter": before,
        "samples_after_filter": len(rows),
        "confidence_before_filter": round(float(sure[labelled].mean()), 4),
        "confidence_after_filter": round(float(sure[rows].mean()), 4),
        "filter_retention_rate": round(len(rows) / before, 4),
        "class_distribution_after_filter": {
            names[int(value)]: int(size) for value, size in zip(values, sizes, strict=True)
        },
    }
    return Filtered(rows, stats, threshold, notes)


def _too_few(
    counts: Mapping[int, int], names: Mapping[int, str], threshold: float, options: FilterOptions
) -> str:
    listed = ", ".join(f"{names[value]}: {count}" for value, count in counts.items())
    advice = (
        "Lower min_labels_per_class, or have more labels."
        if options.relax_threshold
        else "Lower threshold_value or min_labels_per_class, or set relax_threshold."
    )
    return (
        f"At a threshold of {threshold} a class has fewer than "
        f"{options.min_labels_per_class} labels ({listed}). {advice}"
    )


def _balanced(rows: Ints, labels: Ints, cap: int, seed: int) -> Ints:
    rng = np.random.default_rng(seed)
    kept = []
    for value in np.unique(labels):
        members = rows[labels == value]
        kept.append(members if len(members) <= cap else rng.choice(members, cap, replace=False))
    return np.sort(np.concatenate(kept))


def check_split(sizes: Mapping[str, int], test_size: float) -> None:
    """CannotBeDone unless every class can have a row in both parts of a stratified split."""
    rows = sum(sizes.values())
    test = math.ceil(rows * test_size)
    if min(sizes.values()) < 2 or min(test, rows - test) < len(sizes):
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise CannotBeDone(
            f"{rows} rows ({listed}) cannot be split so that a test_size of {test_size} leaves "
            "every class in both parts; have more labels."
        )


# --- features -------------------------------------------------------------------------------


def feature_matrix(
    keys: pa.Array,
    key_column: str,
    features: Sequence[FeatureTable],
    *,
    learn_from: Ints | None = None,
) -> FeatureMatrix:
    """The features of each of `keys`, in that order; an entity that a feature lacks has nan there.

    No key is ever a feature: neither `key_column`, the index's, nor any feature's own. What a
    column is like (whether it has values, a text's categories) is learned from the rows at
    `learn_from`, or from all of them.

    Numbers are as they are, times in seconds, booleans 0 and 1, texts of at most SHORT_TEXT
    distinct values one column for each. CannotBeDone names a duplicate key, a missing column, or
    says that no usable column is left.
    """
    key_columns = {key_column, *(feature.key_column for feature in features)}
    raw: dict[str, pa.ChunkedArray] = {}
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    known = np.zeros(len(keys), dtype=np.bool_)
    for feature in features:
        at = _positions(keys, feature)
        known |= pc.is_valid(at).to_numpy(zero_copy_only=False)
        for column in _chosen(feature, key_columns):
            name = column if column not in raw else f"{feature.name}.{column}"
            if name in raw:
                raise CannotBeDone(f"Two columns would be called {name}; rename one of them.")
            raw[name] = feature.table.column(column).take(at)
            sample = raw[name] if learn_from is None else raw[name].take(pa.array(learn_from))
            try:
                encoding, categories = _encoding(sample)
            except _NotANumber as reason:
                left_out[name] = str(reason)
                continue
            kind = str(raw[name].type)
            columns.append(Column(feature.name, column, name, kind, encoding, categories))
    if not columns:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise CannotBeDone(
            f"The features have no column to learn from{f' ({why})' if why else ''}."
        )
    return FeatureMatrix(encode(raw, columns), columns, left_out, known)


def encode(table: pa.Table | Mapping[str, pa.ChunkedArray], columns: Sequence[Column]) -> Floats:
    """A table's columns as numbers: rows x the columns' outputs, nan for what is missing.

    CannotBeDone names a column that is missing or of another kind than it was.
    """
    there = table.column_names if isinstance(table, pa.Table) else list(table)
    found: list[Floats] = []
    for column in columns:
        if column.name not in there:
            raise CannotBeDone(f"There is no column {column.name}; there are: {', '.join(there)}.")
        values = _plain(table[column.name])
        if _kind(values.type) != column.encoding:
            raise CannotBeDone(
                f"The column {column.name} is {values.type}; the classifiers learned from "
                f"{column.type}."
            )
        found += _numbers(values, column)
    return np.column_stack(found)


def _chosen(feature: FeatureTable, key_columns: set[str]) -> list[str]:
    there = feature.table.column_names
    missing = [name for name in feature.columns or () if name not in there]
    if missing:
        raise CannotBeDone(
            f"The feature {feature.name} has no column {missing[0]}; it has: {', '.join(there)}."
        )
    wanted = there if feature.columns is None else feature.columns
    return [name for name in wanted if name not in key_columns]


def _positions(keys: pa.Array, feature: FeatureTable) -> pa.Array:
    """For each key, its row in the feature's table; null where it has none."""
    if feature.key_column not in feature.table.column_names:
        raise CannotBeDone(
            f"The feature {feature.name} has no column {feature.key_column}; it has: "
            f"{', '.join(feature.table.column_names)}."
        )
    named = feature.table.column(feature.key_column)
    try:
        named = named.cast(keys.type).combine_chunks()
    except pa.ArrowInvalid as error:
        raise CannotBeDone(
            f"{feature.key_column} of the feature {feature.name} is {named.type}, "
            f"which cannot be compared with the index's {keys.type}."
        ) from error
    counts = pc.value_counts(named.drop_null())
    if len(counts) and (most := pc.max(counts.field("counts")).as_py()) > 1:
        twice = counts.field("values")[pc.index(counts.field("counts"), most).as_py()]
        raise CannotBeDone(
            f"The feature {feature.name} has {most} rows for {feature.key_column} = {twice}; "
            "a feature gives one row for each entity (GROUP BY)."
        )
    return pc.index_in(keys, value_set=named)


class _NotANumber(Exception):
    """Why a column is no feature."""


def _kind(type_: pa.DataType) -> str | None:
    """How a column of this type becomes numbers; None: in no way."""
    is_type = pa.types
    if is_type.is_string(type_) or is_type.is_large_string(type_):
        return "one_hot"
    if is_type.is_temporal(type_) and not is_type.is_interval(type_):
        return "seconds"
    numeric = (is_type.is_boolean, is_type.is_integer, is_type.is_floating, is_type.is_decimal)
    return "number" if any(is_one(type_) for is_one in numeric) else None


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_dictionary = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_dictionary else column


def _encoding(column: pa.ChunkedArray) -> tuple[str, list[str]]:
    """How these values become numbers, and a text's categories."""
    column = _plain(column)
    if column.null_count == len(column):
        raise _NotANumber("it has no value in any row")
    kind = _kind(column.type)
    if kind is None:
        raise _NotANumber(f"{column.type} cannot be turned into a number")
    if kind != "one_hot":
        return kind, []
    distinct = pc.unique(column.drop_null()).sort()
    if len(distinct) > SHORT_TEXT:
        raise _NotANumber(f"it is text with {len(distinct)} values; {SHORT_TEXT} is the most")
    return kind, distinct.to_pylist()


def _numbers(values: pa.ChunkedArray, column: Column) -> list[Floats]:
    """One array for each of the column's outputs."""
    if column.encoding == "one_hot":
        return [_floats(pc.equal(values, each).fill_null(False)) for each in column.categories]
    if column.encoding == "seconds":
        return [
            _floats(values.cast(_in_microseconds(values.type), safe=False).cast(pa.int64())) / 1e6
        ]
    return [_floats(values)]


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_time(kind):
        return pa.time64("us")
    return pa.timestamp("us", tz=getattr(kind, "tz", None))


def _floats(column: pa.ChunkedArray) -> Floats:
    """Numbers as float64: null and what is not finite become nan."""
    values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)
