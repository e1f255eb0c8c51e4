"""Labels from votes: Snorkel's own numbers, and what Snorkel leaves open."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from snorkel.labeling import LFAnalysis
from snorkel.labeling.model import LabelModel

from labeling import label_model
from labeling.label_model import accuracy, analyse, distinct_rows, label

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
    ours = label(distinct_rows(as_ids(positions), CLASSES), epochs=80, lr=0.02, seed=seed)
    theirs = LabelModel(cardinality=3, verbose=False)
    theirs.fit(positions, n_epochs=80, lr=0.02, seed=seed, progress_bar=False)
    voted = (positions >= 0).any(axis=1)
    expected = theirs.predict_proba(positions)
    assert np.abs(ours.probabilities[voted] - expected[voted]).max() < 1e-6
    assert np.abs(np.array(ours.weights, dtype=float) - theirs.get_weights()).max() < 1e-6
    assert (ours.labels[voted] == as_ids(theirs.predict(positions))[voted]).all()
    assert (ours.confidence[voted] == ours.probabilities[voted].max(axis=1)).all()


@pytest.mark.parametrize(("functions", "classes"), [(3, 2), (9, 5), (40, 3)])
def test_they_are_so_for_any_number_of_functions_and_classes(functions: int, classes: int) -> None:
    """Votes of forty functions do not fit into one key."""
    positions = votes_of(2500, functions, classes=classes)
    positions[:500] = positions[500:1000]
    cv_ids = (np.arange(classes) * 7 + 100_000).tolist()
    votes = np.where(positions < 0, -1, np.array(cv_ids)[positions]).astype(np.int32)
    ours = label(distinct_rows(votes, cv_ids), epochs=10, lr=0.001, seed=3)
    theirs = LabelModel(cardinality=classes, verbose=False)
    theirs.fit(positions, n_epochs=10, lr=0.001, seed=3, progress_bar=False)
    voted = (positions >= 0).any(axis=1)
    expected = theirs.predict_proba(positions[voted])
    assert np.abs(ours.probabilities[voted] - expected).max() < 1e-6
    assert np.abs(np.array(ours.weights, dtype=float) - theirs.get_weights()).max() < 1e-6


@pytest.mark.parametrize(("functions", "classes"), [(1, 2), (5, 3), (10, 300), (64, 7)])
def test_the_distinct_rows_are_the_matrix(
    monkeypatch: pytest.MonkeyPatch, functions: int, classes: int
) -> None:
    """300 classes do not fit into a byte, nor 64 functions into one key."""
    monkeypatch.setattr(label_model, "BLOCK_ROWS", 64)  # the last block is a part of one
    positions = votes_of(1000, functions, classes=classes)
    positions[:300] = positions[600:900]
    cv_ids = np.arange(classes) * 7 + 100_000
    votes = np.where(positions < 0, -1, cv_ids[positions]).astype(np.int32)
    found = distinct_rows(np.asfortranarray(votes), cv_ids.tolist())
    assert (found.votes[found.of] == positions).all()
    counts = Counter(map(tuple, positions.tolist()))
    assert dict(zip(map(tuple, found.votes.tolist()), found.counts, strict=True)) == counts


def test_a_row_on_which_all_abstain_has_no_label_and_no_confidence() -> None:
    votes = as_ids(votes_of(500, 4))
    votes[10] = -1
    found = label(distinct_rows(votes, CLASSES), epochs=20, lr=0.01, seed=1)
    assert found.labels[10] == -1
    assert np.isnan(found.confidence[10])
    assert np.isnan(found.probabilities[10]).all()


def test_the_same_seed_gives_the_same_labels() -> None:
    votes = as_ids(votes_of(500, 4))
    first = label(distinct_rows(votes, CLASSES), epochs=20, lr=0.01, seed=5, sample_size=100)
    again = label(distinct_rows(votes, CLASSES), epochs=20, lr=0.01, seed=5, sample_size=100)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


def test_a_sample_limits_what_trains_and_not_what_is_labelled() -> None:
    positions = votes_of(2000, 4)
    ours = label(
        distinct_rows(as_ids(positions), CLASSES), epochs=50, lr=0.01, seed=5, sample_size=300
    )
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
    found = label(distinct_rows(votes, CLASSES), epochs=100, lr=0.01, seed=1)
    assert found.labels.tolist() == [4, 4, -1, -1, 19]
    np.testing.assert_array_equal(found.confidence, [1, 1, np.nan, np.nan, 1])
    assert found.probabilities[2].tolist() == [0.5, 0.5, 0]
    assert found.weights == [None, None]
    assert "at least 3 labeling functions, and there are 2" in found.notes[0]


def test_nobody_votes() -> None:
    found = label(distinct_rows(np.full((4, 3), -1), CLASSES), epochs=10, lr=0.01, seed=1)
    assert found.labels.tolist() == [-1] * 4
    assert found.notes == ["No labeling function voted on any row."]


def test_no_rows() -> None:
    nothing = distinct_rows(np.empty((0, 3), dtype=np.int32), CLASSES)
    found = label(nothing, epochs=10, lr=0.01, seed=1)
    assert len(found.labels) == 0
    assert [a.coverage for a in analyse(nothing, found.weights)] == [0.0] * 3


def test_a_function_that_never_votes_has_no_weight() -> None:
    votes = as_ids(votes_of(300, 4))
    votes[:, 2] = -1
    found = label(distinct_rows(votes, CLASSES), epochs=10, lr=0.01, seed=1)
    assert found.weights[2] is None
    assert all(weight is not None for weight in (found.weights[0], found.weights[3]))


@pytest.mark.filterwarnings("ignore:Input has data type:FutureWarning")  # Snorkel's use of scipy
def test_analysis_counts_as_snorkel_does() -> None:
    positions = votes_of(400, 4)
    theirs = LFAnalysis(positions)
    ours = analyse(distinct_rows(as_ids(positions), CLASSES), [0.5, 0.6, 0.7, None])
    np.testing.assert_allclose([a.coverage for a in ours], theirs.lf_coverages())
    np.testing.assert_allclose([a.overlaps for a in ours], theirs.lf_overlaps())
    np.testing.assert_allclose([a.conflicts for a in ours], theirs.lf_conflicts())
    assert [a.learned_weight for a in ours] == [0.5, 0.6, 0.7, None]


def test_analysis_by_hand() -> None:
    votes = np.array([[4, 4, -1], [4, 7, -1], [-1, 7, -1], [-1, -1, -1]])
    first, second, third = analyse(distinct_rows(votes, CLASSES), [None] * 3)
    assert (first.polarity, first.coverage, first.overlaps) == ([4], 0.5, 0.5)
    assert (second.polarity, second.conflicts, second.conflict_rows) == ([4, 7], 0.25, 1)
    assert (third.polarity, third.coverage) == ([], 0.0)


@pytest.mark.filterwarnings("ignore:Input has data type:FutureWarning")  # Snorkel's use of scipy
def test_functions_are_right_as_often_as_snorkel_says() -> None:
    """Among rows whose truth is known; it may be a value that no function votes for."""
    positions = votes_of(600, 4)
    positions[:, 3] = -1
    rng = np.random.default_rng(1)
    truth = np.array([*CLASSES, 99])[rng.integers(0, 4, 600)]
    truth[rng.random(600) < 0.3] = -1
    known = truth != -1
    found = analyse(distinct_rows(as_ids(positions), CLASSES), [None] * 4, truth)
    as_positions = np.select([truth == cv_id for cv_id in CLASSES], [0, 1, 2], 3)
    theirs = LFAnalysis(positions[known]).lf_empirical_accuracies(as_positions[known])
    assert [a.empirical_accuracy for a in found[:3]] == pytest.approx(theirs[:3].tolist())
    assert found[3].empirical_accuracy is None


def test_labels_are_compared_with_the_truth_where_both_are_there() -> None:
    votes = np.array([[4, 4], [7, 7], [4, 7], [-1, -1], [19, 19], [4, 4]])
    labels = label(distinct_rows(votes, CLASSES), epochs=1, lr=0.01, seed=1)
    assert accuracy(labels, np.array([4, 4, 4, 4, -1, 4])) == pytest.approx(2 / 3)
    assert accuracy(labels, np.array([-1, -1, 4, 4, -1, -1])) is None
    no_truth = analyse(distinct_rows(votes, CLASSES), labels.weights)
    assert [a.empirical_accuracy for a in no_truth] == [None, None]
    nothing_known = analyse(distinct_rows(votes, CLASSES), labels.weights, np.full(6, -1))
    assert [a.empirical_accuracy for a in nothing_known] == [None, None]
