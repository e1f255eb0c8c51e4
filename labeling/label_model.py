"""From a label matrix to labels: Snorkel's label model, behind one function. Arrays in and out.

A class is a position in the ascending order of the concept value ids that the functions may vote.
Functions that vote alike on many entities make few distinct rows of a large matrix, so everything
here works on those with how often each occurs. The numbers stay Snorkel's own, on the matrix as it
stands (a row on which all abstain tells how often functions abstain) or on `sample_size` of its
rows, with an explicit seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from snorkel.labeling.model import LabelModel, MajorityLabelVoter

ABSTAIN = -1
TIE = 1e-5  # Snorkel's own tolerance: probabilities this close are equal
LEAST_FUNCTIONS = 3  # below that Snorkel's model cannot tell who is right
BLOCK_ROWS = 4_096  # fits the processor's cache, and bounds what is held beside the matrix

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Patterns:
    """A label matrix (rows x functions) by its distinct rows.

    `votes[p, j]` is function j's vote in pattern p, as a position in `classes`, or -1; `counts[p]`
    rows are like that; row i of the matrix is pattern `of[i]`.
    """

    classes: list[int]
    votes: npt.NDArray[np.int16]
    counts: Ints
    of: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Labels:
    """One label per row. `labels`: a cv_id, or -1 where all abstained or the classes tie.

    `probabilities[i, j]` belongs to `classes[j]`; a row on which all abstain has nan. `confidence`
    is the label's probability; nan where there is no label. `weights[j]` is what function j's votes
    were found to be worth (None: by majority vote, or it never votes). `notes` are for the reader.
    """

    classes: list[int]
    labels: Ints
    confidence: Floats
    probabilities: Floats
    weights: list[float | None]
    notes: list[str]


@dataclass(frozen=True)
class FunctionAnalysis:
    """What one column of the matrix is like; fractions of all rows, as Snorkel counts them.

    `empirical_accuracy` is the share of right votes among those on rows whose truth is known; None
    where there are none.
    """

    polarity: list[int]
    coverage: float
    overlaps: float
    conflicts: float
    conflict_rows: int
    learned_weight: float | None
    empirical_accuracy: float | None


def distinct_rows(votes: npt.NDArray[np.integer], classes: Sequence[int]) -> Patterns:
    """The patterns of a matrix of cv_ids or -1; `classes` are the cv_ids, ascending."""
    base = len(classes) + 1
    # So many columns' digits make one key of 63 bits with the 31 of the columns before them.
    width = int(32 / math.log2(base))
    of = np.zeros(len(votes), dtype=np.int32)
    for start in range(0, votes.shape[1], width):
        keys = _keys(of, votes[:, start : start + width], classes)
        # From the system's allocator, which returns what Arrow's own would keep: 30 MB a million.
        encoded = pc.dictionary_encode(pa.array(keys), memory_pool=pa.system_memory_pool())
        of = encoded.indices.to_numpy()
    counts = np.bincount(of)
    # Patterns are numbered as they first appear: each where the greatest number so far grows.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(of), prepend=-1))
    positions = _digits(votes[first], classes).astype(np.int16) - np.int16(1)
    return Patterns(list(classes), positions, counts, of)


def label(
    patterns: Patterns, *, epochs: int, lr: float, seed: int, sample_size: int | None = None
) -> Labels:
    """Combine the votes into one label for each row."""
    votes, classes, of = patterns.votes, patterns.classes, patterns.of
    notes: list[str] = []
    silent = (votes == ABSTAIN).all(axis=1)
    weights: list[float | None] = [None] * votes.shape[1]
    by_pattern = np.full((len(votes), len(classes)), np.nan)
    if votes.shape[1] < LEAST_FUNCTIONS:
        notes.append(
            f"Majority vote was used: the label model needs at least {LEAST_FUNCTIONS} labeling "
            f"functions, and there are {votes.shape[1]}."
        )
        # The voter divides by the votes of a row, which are none for a silent one.
        by_pattern[~silent] = MajorityLabelVoter(len(classes)).predict_proba(votes[~silent])
    elif not silent.all():
        counts = patterns.counts
        sample = _sample(len(of), sample_size, seed)
        if sample is not None:
            counts = np.bincount(of[sample], minlength=len(votes))
            notes.append(f"The label model was trained on {len(sample)} of {len(of)} rows.")
        model = _CountedLabelModel(len(classes), votes[counts > 0], counts[counts > 0])
        model.fit_counted(epochs=epochs, lr=lr, seed=seed)
        weights = model.weights_where_voted()
        by_pattern = model.probabilities(votes)
        by_pattern[silent] = np.nan
    labels, confidence = _decide(by_pattern, classes)
    if silent.all():
        notes.append("No labeling function voted on any row.")
    return Labels(
        classes, labels[of], confidence[of], np.take(by_pattern, of, axis=0), weights, notes
    )


def analyse(
    patterns: Patterns, weights: Sequence[float | None], truth: Ints | None = None
) -> list[FunctionAnalysis]:
    """What each function's votes are like beside the others', and beside the truth.

    `truth`: a cv_id per row, which need not be one of the classes, or -1 where it is not known.
    """
    votes, counts, rows = patterns.votes, patterns.counts, len(patterns.of)
    if rows == 0:
        return [FunctionAnalysis([], 0.0, 0.0, 0.0, 0, weight, None) for weight in weights]
    voted = votes != ABSTAIN
    overlapped = voted.sum(axis=1) > 1
    lowest = np.where(voted, votes, len(patterns.classes)).min(axis=1)
    conflicted = overlapped & (votes.max(axis=1) != lowest)
    used = np.array([(votes == position).any(axis=0) for position in range(len(patterns.classes))])
    by_function = np.stack([counts, counts * overlapped, counts * conflicted]) @ voted
    accuracies = _accuracies(patterns, truth)
    return [
        FunctionAnalysis(
            polarity=[patterns.classes[position] for position in np.flatnonzero(used[:, column])],
            coverage=float(covered / rows),
            overlaps=float(overlapping / rows),
            conflicts=float(conflicting / rows),
            conflict_rows=int(conflicting),
            learned_weight=weight,
            empirical_accuracy=accuracies[column],
        )
        for column, (weight, (covered, overlapping, conflicting)) in enumerate(
            zip(weights, by_function.T, strict=True)
        )
    ]


def accuracy(labels: Labels, truth: Ints) -> float | None:
    """The share of right labels among rows that have one and whose truth is known (not -1)."""
    both = (labels.labels != ABSTAIN) & (truth != ABSTAIN)
    return float((labels.labels[both] == truth[both]).mean()) if both.any() else None


class _CountedLabelModel(LabelModel):  # type: ignore[misc]  # Snorkel has no types
    """Snorkel's model, trained on distinct rows with their counts instead of on every row.

    All that training reads of a matrix is how often two functions vote what together (`O`), how
    often each votes (`coverage`) and the number of rows (`n`). These are sums of whole numbers,
    hence exactly what Snorkel finds on the rows themselves, and all the rest is its own code.
    """

    def __init__(
        self, cardinality: int, votes: npt.NDArray[np.int16], counts: npt.NDArray[np.integer]
    ) -> None:
        super().__init__(cardinality=cardinality, verbose=False)
        self.votes = votes
        self.counts = counts

    def fit_counted(self, *, epochs: int, lr: float, seed: int) -> None:
        # One row tells how many functions there are; what else `fit` takes from it is set here.
        self.fit(self.votes[:1], n_epochs=epochs, lr=lr, seed=seed, progress_bar=False)
        self.coverage = self.counts @ (self.votes != ABSTAIN) / self.n

    def _generate_O(self, L: Any, higher_order: bool = False) -> None:  # noqa: N802, N803 - Snorkel's names
        super()._generate_O(L, higher_order)  # for its record of the functions
        together = np.zeros((self.d, self.d))
        for start in range(0, len(self.votes), BLOCK_ROWS):
            votes = np.ascontiguousarray(self.votes[start : start + BLOCK_ROWS].T)
            one_hot = np.empty((self.m, self.cardinality, votes.shape[1]))
            for position in range(self.cardinality):
                one_hot[:, position] = votes == position
            voted = one_hot.reshape(self.d, -1)
            together += (voted * self.counts[start : start + BLOCK_ROWS]) @ voted.T
        self.n = int(self.counts.sum())
        self.O = torch.from_numpy(together / self.n).float()

    def probabilities(self, votes: npt.NDArray[np.int16]) -> Floats:
        """Snorkel's `predict_proba`, looked up vote by vote where Snorkel makes one-hot rows."""
        learned = np.log(self.mu.detach().numpy()).reshape(self.m, self.cardinality, -1)
        nothing = np.zeros((self.m, 1, self.cardinality))
        said = np.concatenate([learned, nothing], axis=1)  # a vote of -1 finds the last row
        score: Floats = np.tile(np.log(self.p), (len(votes), 1))
        for function in range(self.m):
            score += np.take(said[function], votes[:, function], axis=0, mode="wrap")
        np.exp(score, out=score)
        score /= score.sum(axis=1, keepdims=True)
        return score

    def weights_where_voted(self) -> list[float | None]:
        """What the votes of each function are worth; None for one that never votes."""
        with np.errstate(divide="ignore"):  # one that never votes has a coverage of 0
            learned = self.get_weights()
        return [float(w) if c else None for w, c in zip(learned, self.coverage, strict=True)]


def _digits(
    votes: npt.NDArray[np.integer], classes: Sequence[int]
) -> npt.NDArray[np.unsignedinteger]:
    """Votes as 0 for abstain, 1 for the first class and so on."""
    digits = np.zeros(votes.shape, dtype=np.min_scalar_type(len(classes)))
    for digit, cv_id in enumerate(classes, start=1):
        digits += (votes == cv_id) * digits.dtype.type(digit)
    return digits


def _keys(
    before: npt.NDArray[np.int32], votes: npt.NDArray[np.integer], classes: Sequence[int]
) -> Ints:
    """One number for each row, the same for the same votes after the same `before`."""
    keys = before.astype(np.int64)
    for start in range(0, len(votes), BLOCK_ROWS):
        some = keys[start : start + BLOCK_ROWS]
        for digit in _digits(np.ascontiguousarray(votes[start : start + BLOCK_ROWS].T), classes):
            some *= len(classes) + 1
            some += digit
    return keys


def _accuracies(patterns: Patterns, truth: Ints | None) -> list[float | None]:
    """By function: the share of its votes that are right, where the truth is known."""
    functions = patterns.votes.shape[1]
    if truth is None:
        return [None] * functions
    voted = patterns.votes != ABSTAIN
    cast = np.bincount(patterns.of[truth != ABSTAIN], minlength=len(voted)) @ voted
    right = np.zeros(functions, dtype=np.int64)
    for position, cv_id in enumerate(patterns.classes):
        with_it = np.bincount(patterns.of[truth == cv_id], minlength=len(voted))
        right += with_it @ (patterns.votes == position)
    return [float(r / c) if c else None for r, c in zip(right, cast, strict=True)]


def _sample(rows: int, size: int | None, seed: int) -> Ints | None:
    if size is None or size >= rows:
        return None
    return np.random.default_rng(seed).choice(rows, size, replace=False)


def _decide(probabilities: Floats, classes: Sequence[int]) -> tuple[Ints, Floats]:
    """The most probable class, or -1 on a tie (Snorkel's "abstain") and where nothing is known."""
    known = np.logical_not(np.isnan(probabilities).any(axis=1))
    best = np.where(known[:, None], probabilities, 0.0)
    top = best.max(axis=1, initial=0.0)
    clear = known & ((top[:, None] - best < TIE).sum(axis=1) == 1)
    order = np.asarray(classes, dtype=np.int64)
    labels = np.where(clear, order[best.argmax(axis=1)], ABSTAIN)
    return labels, np.where(clear, top, np.nan)
