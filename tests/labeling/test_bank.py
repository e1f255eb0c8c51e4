"""The bank: everything is tried, each failure has its reason, and it stops when it is told to."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import RidgeClassifier

from labeling import bank
from labeling.bank import BankResult, Candidate, Shape, answers, train_bank
from tests.labeling.watching import ROOT, Stop, Watching, wait_until


def table(rows: int = 300, features: int = 4, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, classes, rows)
    x = rng.normal(size=(rows, features)) + y[:, None]
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, y


@dataclass
class Trained:
    """A bank's result, what it learned from, and how its pipelines read."""

    result: BankResult
    watching: Watching
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    pipelines: dict[str, Any]


@pytest.fixture(scope="module")
def trained() -> Trained:
    watching = Watching()
    x, y = table()
    rows = np.arange(30, 300)
    with tempfile.TemporaryFile() as packed:
        result = train_bank(
            x, rows, y[rows], test_size=0.2, random_state=42, watch=watching, packed=packed
        )
        pipelines = {}
        for fitted in result.fitted:
            packed.seek(fitted.offset)
            pipelines[fitted.model] = joblib.load(io.BytesIO(packed.read(fitted.size)))
    return Trained(result, watching, x, y, rows, pipelines)


def test_thirty_and_more_are_ranked_and_the_rest_have_reasons(trained: Trained) -> None:
    result = trained.result
    assert len(result.scores) >= 30
    assert {skipped.model for skipped in result.skipped} <= {
        "FixedThresholdClassifier", "TunedThresholdClassifierCV", "LGBMClassifier", "XGBClassifier"
    }, result.skipped  # fmt: skip
    assert all(skipped.reason for skipped in result.skipped)
    assert len(result.scores) + len(result.skipped) == len(bank.candidates()) >= 34


def test_scores_have_exactly_the_keys_of_the_wire(trained: Trained) -> None:
    for score in trained.result.scores:
        assert list(score) == ["Model", "Accuracy", "Balanced Accuracy", "F1 Score", "Time Taken"]
        assert 0 <= score["Balanced Accuracy"] <= 1


def test_they_are_ranked_by_balanced_accuracy_then_f1(trained: Trained) -> None:
    scores = trained.result.scores
    ranks = [(s["Balanced Accuracy"], s["F1 Score"]) for s in scores]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0][0] > 0.7 > ranks[-1][0]
    assert scores[-1]["Model"] in {"DummyClassifier", "MultinomialNB"}


def test_progress_says_how_many_of_how_many_and_who_is_at_work(trained: Trained) -> None:
    total = len(trained.result.scores) + len(trained.result.skipped)
    said = trained.watching.said
    assert {each[1] for each in said} == {total}
    assert {each[3] for each in said} >= {"now SVC", "now RandomForestClassifier"}
    assert [each[0] for each in said] == sorted(each[0] for each in said)
    assert said[-1] == (total, total, "classifiers", "now predicting all rows")


def test_the_pipelines_of_the_best_five_are_kept_and_take_unprepared_columns(
    trained: Trained,
) -> None:
    best = [score["Model"] for score in trained.result.scores[:5]]
    assert list(trained.pipelines) == best
    found = trained.result.predictions
    assert found is not None
    test = found.used == bank.TEST
    for score in trained.result.scores[:5]:
        said = trained.pipelines[score["Model"]].predict(trained.x[test])
        assert (said == trained.y[test]).mean() == pytest.approx(score["Accuracy"])


def test_the_best_one_answers_for_every_row_and_the_split_is_told(trained: Trained) -> None:
    found, best = trained.result.predictions, trained.pipelines[trained.result.scores[0]["Model"]]
    assert found is not None
    np.testing.assert_array_equal(found.classes, best.predict(trained.x))
    if hasattr(best, "predict_proba"):
        np.testing.assert_allclose(found.confidence, best.predict_proba(trained.x).max(axis=1))
    used = {
        kind: np.flatnonzero(found.used == kind) for kind in (bank.UNUSED, bank.TRAIN, bank.TEST)
    }
    assert used[bank.UNUSED].tolist() == list(range(30))
    assert (len(used[bank.TRAIN]), len(used[bank.TEST])) == (216, 54)


def test_each_ranked_model_has_a_confusion_matrix_of_the_test_rows(trained: Trained) -> None:
    found = trained.result
    assert found.predictions is not None
    assert set(found.confusion) == {score["Model"] for score in found.scores}
    test = found.predictions.used == bank.TEST
    best = found.scores[0]["Model"]
    counted = np.zeros((3, 3), dtype=int)
    np.add.at(counted, (trained.y[test], trained.pipelines[best].predict(trained.x[test])), 1)
    assert found.confusion[best] == counted.tolist()
    for score in found.scores:
        matrix = np.array(found.confusion[score["Model"]])
        assert np.trace(matrix) / matrix.sum() == pytest.approx(score["Accuracy"])


def test_a_pipeline_without_probabilities_is_not_said_to_be_sure() -> None:
    x, y = table(rows=60)
    x = np.nan_to_num(x)
    classes, sure = answers(RidgeClassifier().fit(x, y), x)
    assert classes.tolist() == RidgeClassifier().fit(x, y).predict(x).tolist()
    assert np.isnan(sure).all()


def few(monkeypatch: pytest.MonkeyPatch, *wanted: Candidate) -> list[dict[str, Any]]:
    """Run these candidates in this process's own forks; the events."""
    x, y = table(rows=120)
    parts = bank._prepare(x, np.arange(120), y, 0.25, 1)
    shape = Shape(len(parts.y_train), 4, np.bincount(parts.y_train).tolist(), 1)
    monkeypatch.setattr(bank, "ESTIMATOR_SECONDS", 2.0)
    with tempfile.TemporaryFile() as packed:
        events = list(bank._run(list(wanted), shape, parts, x, packed))
    return [each for each in events if each["event"] in {"score", "skipped", "no predictions"}]


class Endless:
    def fit(self, x: Any, y: Any) -> None:
        while True:
            pass


class Waiting:
    def fit(self, x: Any, y: Any) -> None:
        threading.Event().wait()


class Greedy:
    def fit(self, x: Any, y: Any) -> None:
        self.all = np.ones((1 << 36,))


class Dying:
    def fit(self, x: Any, y: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Failing:
    def fit(self, x: Any, y: Any) -> None:
        raise ValueError("these classes are odd")


def test_what_hangs_swells_dies_or_fails_appears_with_its_reason_and_harms_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sklearn.naive_bayes import GaussianNB

    events = few(
        monkeypatch,
        Candidate("Endless", lambda _: Endless()),
        Candidate("Greedy", lambda _: Greedy()),
        Candidate("Dying", lambda _: Dying()),
        Candidate("Failing", lambda _: Failing()),
        Candidate("Large", lambda _: GaussianNB(), most_rows=10),
        Candidate("Fine", lambda _: GaussianNB()),
    )
    reasons = {e["model"]: e["reason"] for e in events if e["event"] == "skipped"}
    assert reasons == {
        "Endless": "it took longer than 2 s of a core's time",
        "Greedy": reasons["Greedy"],
        "Dying": "its process ended: signal SIGKILL",
        "Failing": "ValueError: these classes are odd",
        "Large": "it is too slow above 10 training rows; there are 90",
    }
    assert "MB of memory" in reasons["Greedy"] or "MemoryError" in reasons["Greedy"]
    assert [e["model"] for e in events if e["event"] == "score"] == ["Fine"]


def test_what_waits_for_ever_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "PATIENCE", 0.5)
    (event,) = few(monkeypatch, Candidate("Waiting", lambda _: Waiting()))
    assert event["reason"] == "it took longer than 1 s"


def test_of_banks_at_the_same_time_one_has_all_cores_and_the_others_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where no other bank of the machine is
    with bank._room() as second:
        with bank._room() as first:
            assert (first.at_once(), second.at_once()) == (first.cores, 1)
            assert (first.at_once(), second.at_once()) == (first.cores, 1)
        assert second.at_once() == second.cores


@pytest.mark.skipif(sys.platform != "linux", reason="only there a bank knows the machine's memory")
def test_all_banks_together_stay_within_the_machines_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIPPERS_MAX_CONCURRENT", "1000")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with bank._room() as room:
        assert 0 < room.memory * (room.cores + 999) <= machine * 3 / 4


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Shape) -> Any:
        raise OSError("libgomp.so.1: cannot open shared object file")

    (event,) = few(monkeypatch, Candidate("LGBMClassifier", build))
    assert "libgomp" in event["reason"]


class Speechless(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Answers the test rows, and no more than those."""

    def fit(self, x: Any, y: Any) -> "Speechless":
        self.fitted_ = True
        return self

    def predict(self, x: Any) -> Any:
        if len(x) > 30:
            raise ValueError("so many rows")
        return np.zeros(len(x), dtype=int)


def test_the_scores_remain_when_the_best_one_cannot_answer_for_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = few(monkeypatch, Candidate("Speechless", lambda _: Speechless()))
    assert [each["event"] for each in events] == ["score", "no predictions"]
    assert events[1]["reason"] == "ValueError: so many rows"


def test_scores_depend_on_the_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"RandomForestClassifier", "MLPClassifier", "SGDClassifier", "LGBMClassifier"}
    chosen = [c for c in bank.candidates() if c.name in names]

    def scores() -> dict[str, Any]:
        events = few(monkeypatch, *chosen)
        return {
            e["model"]: {k: v for k, v in e["score"].items() if k != "Time Taken"} for e in events
        }

    assert scores() == scores()


def test_columns_are_prepared_by_what_the_training_part_says_alone() -> None:
    x: npt.NDArray[np.float64] = np.arange(40, dtype=float).reshape(20, 2)
    x[0, 0] = np.nan
    y = np.array([0, 1] * 10)
    parts = bank._prepare(x, np.arange(20), y, 0.5, 0)
    np.testing.assert_allclose(parts.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(parts.x_train.std(axis=0), 1)
    assert not np.isnan(parts.x_test).any()
    assert np.abs(parts.x_test.mean(axis=0)).max() > 0.01
    assert sorted(parts.y_test.tolist()) == [0] * 5 + [1] * 5


def at_work() -> set[str]:
    """The processes of every bank on this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if b"labeling.bank\0" in (entry / "cmdline").read_bytes():
                    found.add(entry.name)
    return found


def test_a_stopped_run_ends_the_bank_and_all_its_children_within_five_seconds() -> None:
    watching = Watching()
    x, y = table(rows=2000)
    before = at_work()
    stopped: list[float] = []

    def stop_when_training() -> None:
        wait_until(lambda: bool(watching.said), seconds=60)
        stopped.append(time.monotonic())
        watching.stop()

    stopper = threading.Thread(target=stop_when_training)
    stopper.start()
    with pytest.raises(Stop), tempfile.TemporaryFile() as packed:
        train_bank(
            x, np.arange(2000), y, test_size=0.2, random_state=42, watch=watching, packed=packed
        )
    stopper.join()
    assert wait_until(lambda: not at_work() - before)
    assert time.monotonic() - stopped[0] < 5


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_is_left_behind_when_the_worker_is_killed() -> None:
    script = (
        "import tempfile\n"
        "import numpy as np\n"
        "from labeling.bank import train_bank\n"
        "from tests.labeling.watching import Watching\n"
        "class Telling(Watching):\n"
        "    def progress(self, *said):\n"
        "        print(said, flush=True)\n"
        "y = np.arange(20_000) % 3\n"
        "x = np.random.default_rng(0).normal(size=(20_000, 8)) + y[:, None]\n"
        "with tempfile.TemporaryFile() as packed:\n"
        "    train_bank(x, np.arange(20_000), y, test_size=0.2, random_state=0, watch=Telling(),\n"
        "               packed=packed)\n"
    )
    before = at_work()
    worker = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert "classifiers" in worker.stdout.readline()
    assert at_work() - before
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert wait_until(lambda: not at_work() - before, seconds=2)
