"""Labels from votes: Snorkel's own numbers, and what Snorkel leaves open."""

import numpy as np
import numpy.typing as npt
import pytest
from snorkel.labeling import LFAnalysis
from snorkel.labeling.model import LabelModel

from labeling.label_model import analyse, label

CLASSES = [4, 7, 19]
Ints = npt.NDArray[np.int64]


def votes_of(rows: int, functions: int, *, seed: int = 0, classes: int = 3) -> Ints:
    """Class positions or -1, of functions that are right three times out of four."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    right = rng.random((rows, functions)) < 0.75
    votes = np.where(right, truth[:, None], rng.integers(0, classes, (rows, functions)))
    return np.where(rng.random((rows, functions)) < 0.5, votes, -1)


def as_ids(positions: Ints) -> Ints:
    return np.where(positions < 0, -1, np.array(CLASSES)[positions])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_numbers_are_snorkels_own(seed: int) -> None:
    positions = votes_of(3000, 6, seed=seed)
    ours = label(as_ids(positions), CLASSES, epochs=80, lr=0.02, seed=seed)
    theirs = LabelModel(cardinality=3, verbose=False)
    theirs.fit(positions, n_epochs=80, lr=0.02, seed=seed, progress_bar=False)
    voted = (positions >= 0).any(axis=1)
    expected = theirs.predict_proba(positions)
    assert np.abs(ours.probabilities[voted] - expected[voted]).max() < 1e-6
    assert np.abs(np.array(ours.weights, dtype=float) - theirs.get_weights()).max() < 1e-6
    assert (ours.labels[voted] == as_ids(theirs.predict(positions))[voted]).all()
    assert (ours.confidence[voted] == ours.probabilities[voted].max(axis=1)).all()


def test_a_row_on_which_all_abstain_has_no_label_and_no_confidence() -> None:
    votes = as_ids(votes_of(500, 4))
    votes[10] = -1
    found = label(votes, CLASSES, epochs=20, lr=0.01, seed=1)
    assert found.labels[10] == -1
    assert np.isnan(found.confidence[10])
    assert np.isnan(found.probabilities[10]).all()


def test_the_same_seed_gives_the_same_labels() -> None:
    votes = as_ids(votes_of(500, 4))
    first = label(votes, CLASSES, epochs=20, lr=0.01, seed=5, sample_size=100)
    again = label(votes, CLASSES, epochs=20, lr=0.01, seed=5, sample_size=100)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_a_sample_limits_what_trains_and_not_what_is_labelled() -> None:
    positions = votes_of(2000, 4)
    ours = label(as_ids(positions), CLASSES, epochs=50, lr=0.01, seed=5, sample_size=300)
    rows = np.sort(np.random.default_rng(5).choice(2000, 300, replace=False))
    theirs = LabelModel(cardinality=3, verbose=False)
    theirs.fit(positions[rows], n_epochs=50, lr=0.01, seed=5, progress_bar=False)
    voted = (positions >= 0).any(axis=1)
    difference = ours.probabilities[voted] - theirs.predict_proba(positions)[voted]
    assert np.abs(difference).max() < 1e-6
    assert len(ours.labels) == 2000
    assert ours.notes == ["The label model was trained on 300 of 2000 rows."]


def test_with_two_functions_the_majority_decides_and_the_job_says_so() -> None:
    votes = np.array([[4, 4], [4, -1], [4, 7], [-1, -1], [-1, 19]])
    found = label(votes, CLASSES, epochs=100, lr=0.01, seed=1)
    assert found.labels.tolist() == [4, 4, -1, -1, 19]
    np.testing.assert_array_equal(found.confidence, [1, 1, np.nan, np.nan, 1])
    assert found.probabilities[2].tolist() == [0.5, 0.5, 0]
    assert found.weights == [None, None]
    assert "at least 3 labeling functions, and there are 2" in found.notes[0]


def test_nobody_votes() -> None:
    found = label(np.full((4, 3), -1), CLASSES, epochs=10, lr=0.01, seed=1)
    assert found.labels.tolist() == [-1] * 4
    assert found.notes == ["No labeling function voted on any row."]


def test_no_rows() -> None:
    found = label(np.empty((0, 3), dtype=np.int32), CLASSES, epochs=10, lr=0.01, seed=1)
    assert len(found.labels) == 0
    assert [a.coverage for a in analyse(np.empty((0, 3), dtype=int), CLASSES, found.weights)] == [
        0.0
    ] * 3


def test_a_function_that_never_votes_has_no_weight() -> None:
    votes = as_ids(votes_of(300, 4))
    votes[:, 2] = -1
    found = label(votes, CLASSES, epochs=10, lr=0.01, seed=1)
    assert found.weights[2] is None
    assert all(weight is not None for weight in (found.weights[0], found.weights[3]))


@pytest.mark.filterwarnings("ignore:Input has data type:FutureWarning")  # Snorkel's use of scipy
def test_analysis_counts_as_snorkel_does() -> None:
    positions = votes_of(400, 4)
    theirs = LFAnalysis(positions)
    ours = analyse(as_ids(positions), CLASSES, [0.5, 0.6, 0.7, None])
    np.testing.assert_allclose([a.coverage for a in ours], theirs.lf_coverages())
    np.testing.assert_allclose([a.overlaps for a in ours], theirs.lf_overlaps())
    np.testing.assert_allclose([a.conflicts for a in ours], theirs.lf_conflicts())
    assert [a.learned_weight for a in ours] == [0.5, 0.6, 0.7, None]


def test_analysis_by_hand() -> None:
    votes = np.array([[4, 4, -1], [4, 7, -1], [-1, 7, -1], [-1, -1, -1]])
    first, second, third = analyse(votes, CLASSES, [None] * 3)
    assert (first.polarity, first.coverage, first.overlaps) == ([4], 0.5, 0.5)
    assert (second.polarity, second.conflicts, second.conflict_rows) == ([4, 7], 0.25, 1)
    assert (third.polarity, third.coverage) == ([], 0.0)
