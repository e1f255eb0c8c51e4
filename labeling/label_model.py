"""From a label matrix to labels: Snorkel's label model, behind one function. Arrays in and out.

A class is a position in the ascending order of the concept value ids that the functions may vote.
The numbers are Snorkel's own: the model is fitted on the matrix as it stands (a row on which all
abstain tells how often functions abstain), or on `sample_size` of its rows, with an explicit seed.
Prediction is done once for every distinct pattern of votes and handed out to the rows.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from snorkel.labeling import LFAnalysis
from snorkel.labeling.model import LabelModel, MajorityLabelVoter

ABSTAIN = -1
TIE = 1e-5  # Snorkel's own tolerance: probabilities this close are equal
LEAST_FUNCTIONS = 3  # below that Snorkel's model cannot tell who is right

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


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
    """What one column of the matrix is like; fractions of all rows, as Snorkel counts them."""

    polarity: list[int]
    coverage: float
    overlaps: float
    conflicts: float
    conflict_rows: int
    learned_weight: float | None


def label(
    votes: npt.NDArray[np.integer],
    classes: Sequence[int],
    *,
    epochs: int,
    lr: float,
    seed: int,
    sample_size: int | None = None,
) -> Labels:
    """Combine the votes (rows x functions; cv_ids or -1) into one label for each row."""
    matrix = as_classes(votes, classes)
    notes: list[str] = []
    patterns, pattern_of = np.unique(matrix, axis=0, return_inverse=True)
    pattern_of = pattern_of.reshape(-1)
    silent = (patterns == ABSTAIN).all(axis=1)
    weights: list[float | None] = [None] * matrix.shape[1]
    if matrix.shape[1] < LEAST_FUNCTIONS:
        notes.append(
            f"Majority vote was used: the label model needs at least {LEAST_FUNCTIONS} labeling "
            f"functions, and there are {matrix.shape[1]}."
        )
        # The voter divides by the votes of a row, which are none for a silent one.
        by_pattern = np.full((len(patterns), len(classes)), np.nan)
        by_pattern[~silent] = MajorityLabelVoter(len(classes)).predict_proba(patterns[~silent])
    elif silent.all():
        by_pattern = np.full((len(patterns), len(classes)), np.nan)
    else:
        model = LabelModel(cardinality=len(classes), verbose=False)
        sample = _sample(len(matrix), sample_size, seed)
        trained_on = matrix if sample is None else matrix[sample]
        model.fit(trained_on, n_epochs=epochs, lr=lr, seed=seed, progress_bar=False)
        if sample is not None:
            notes.append(f"The label model was trained on {len(sample)} of {len(matrix)} rows.")
        with np.errstate(divide="ignore"):  # one that never votes has a coverage of 0
            learned = model.get_weights()
        voted = (trained_on != ABSTAIN).any(axis=0)
        weights = [float(w) if v else None for w, v in zip(learned, voted, strict=True)]
        by_pattern = model.predict_proba(patterns)
        by_pattern[silent] = np.nan
    labels, confidence = _decide(by_pattern, classes)
    if silent.all():
        notes.append("No labeling function voted on any row.")
    return Labels(
        list(classes), labels[pattern_of], confidence[pattern_of], by_pattern[pattern_of],
        weights, notes,
    )  # fmt: skip


def as_classes(votes: npt.NDArray[np.integer], classes: Sequence[int]) -> Ints:
    """Votes as class positions; -1 stays."""
    order = np.asarray(classes, dtype=np.int64)
    positions = np.searchsorted(order, votes)
    return np.where(votes == ABSTAIN, ABSTAIN, positions).astype(np.int64)


def analyse(
    votes: npt.NDArray[np.integer], classes: Sequence[int], weights: Sequence[float | None]
) -> list[FunctionAnalysis]:
    """What each function's votes are like beside the others'."""
    rows = len(votes)
    if rows == 0:
        return [FunctionAnalysis([], 0.0, 0.0, 0.0, 0, weight) for weight in weights]
    found = LFAnalysis(as_classes(votes, classes))
    with warnings.catch_warnings():
        # Snorkel's use of scipy.sparse.diags warns of a dtype that a later scipy will keep.
        warnings.simplefilter("ignore", FutureWarning)
        conflicts = found.lf_conflicts()
    coverage, overlaps = found.lf_coverages(), found.lf_overlaps()
    return [
        FunctionAnalysis(
            polarity=[classes[int(position)] for position in found.lf_polarities()[column]],
            coverage=float(coverage[column]),
            overlaps=float(overlaps[column]),
            conflicts=float(conflicts[column]),
            conflict_rows=round(float(conflicts[column]) * rows),
            learned_weight=weight,
        )
        for column, weight in enumerate(weights)
    ]


def _sample(rows: int, size: int | None, seed: int) -> Ints | None:
    if size is None or size >= rows:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))


def _decide(probabilities: Floats, classes: Sequence[int]) -> tuple[Ints, Floats]:
    """The most probable class, or -1 on a tie (Snorkel's "abstain") and where nothing is known."""
    known = np.logical_not(np.isnan(probabilities).any(axis=1))
    best = np.where(known[:, None], probabilities, 0.0)
    top = best.max(axis=1, initial=0.0)
    clear = known & ((top[:, None] - best < TIE).sum(axis=1) == 1)
    order = np.asarray(classes, dtype=np.int64)
    labels = np.where(clear, order[best.argmax(axis=1)], ABSTAIN)
    return labels, np.where(clear, top, np.nan)
