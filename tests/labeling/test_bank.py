"""The bank: everything is tried, each failure has its reason, and it stops when it is told to."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labeling import bank
from labeling.bank import BankResult, Candidate, Shape, train_bank
from tests.labeling.watching import ROOT, Stop, Watching, wait_until


def table(rows: int = 300, features: int = 4, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, classes, rows)
    x = rng.normal(size=(rows, features)) + y[:, None]
    x[rng.random(x.shape) < 0.05] = np.nan
    return x, y


@pytest.fixture(scope="module")
def trained() -> tuple[BankResult, Watching]:
    watching = Watching()
    x, y = table()
    return train_bank(x, y, test_size=0.2, random_state=42, watch=watching), watching


def test_thirty_and_more_are_ranked_and_the_rest_have_reasons(
    trained: tuple[BankResult, Watching],
) -> None:
    result, _ = trained
    assert len(result.scores) >= 30
    assert {skipped.model for skipped in result.skipped} <= {
        "FixedThresholdClassifier", "TunedThresholdClassifierCV", "LGBMClassifier", "XGBClassifier"
    }, result.skipped  # fmt: skip
    assert all(skipped.reason for skipped in result.skipped)
    assert len(result.scores) + len(result.skipped) == len(bank.candidates()) >= 34


def test_scores_have_exactly_the_keys_of_the_wire(trained: tuple[BankResult, Watching]) -> None:
    for score in trained[0].scores:
        assert list(score) == ["Model", "Accuracy", "Balanced Accuracy", "F1 Score", "Time Taken"]
        assert 0 <= score["Balanced Accuracy"] <= 1


def test_they_are_ranked_by_balanced_accuracy_then_f1(trained: tuple[BankResult, Watching]) -> None:
    ranks = [(s["Balanced Accuracy"], s["F1 Score"]) for s in trained[0].scores]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0][0] > 0.7 > ranks[-1][0]
    assert trained[0].scores[-1]["Model"] in {"DummyClassifier", "MultinomialNB"}


def test_progress_says_how_many_of_how_many_and_who_is_at_work(
    trained: tuple[BankResult, Watching],
) -> None:
    result, watching = trained
    total = len(result.scores) + len(result.skipped)
    assert {said[1] for said in watching.said} == {total}
    assert {said[3] for said in watching.said} >= {"now SVC", "now RandomForestClassifier"}
    done = [said[0] for said in watching.said]
    assert done == sorted(done)


def few(monkeypatch: pytest.MonkeyPatch, *wanted: Candidate) -> list[dict[str, Any]]:
    """Run these candidates in this process's own forks; the events."""
    x, y = table(rows=120)
    parts = bank._prepare(x, y, 0.25, 1)
    shape = Shape(len(parts.y_train), 4, np.bincount(parts.y_train).tolist(), 1)
    monkeypatch.setattr(bank, "ESTIMATOR_SECONDS", 2.0)
    return [e for e in bank._run(list(wanted), shape, parts) if e["event"] != "now"]


class Endless:
    def fit(self, x: Any, y: Any) -> None:
        while True:
            pass


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
        "Endless": "it took longer than 2 s",
        "Greedy": reasons["Greedy"],
        "Dying": "its process ended: signal SIGKILL",
        "Failing": "ValueError: these classes are odd",
        "Large": "it is too slow above 10 training rows; there are 90",
    }
    assert "MB of memory" in reasons["Greedy"] or "MemoryError" in reasons["Greedy"]
    assert [e["model"] for e in events if e["event"] == "score"] == ["Fine"]


def test_a_missing_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_: Shape) -> Any:
        raise OSError("libgomp.so.1: cannot open shared object file")

    (event,) = few(monkeypatch, Candidate("LGBMClassifier", build))
    assert "libgomp" in event["reason"]


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
    parts = bank._prepare(x, y, 0.5, 0)
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


def test_a_stopped_run_ends_the_bank_and_all_its_children() -> None:
    watching = Watching()
    x, y = table(rows=2000)

    before = at_work()

    def stop_when_training() -> None:
        deadline = time.monotonic() + 60
        while not watching.said and time.monotonic() < deadline:
            time.sleep(0.02)
        watching.stop()

    stopper = threading.Thread(target=stop_when_training)
    stopper.start()
    with pytest.raises(Stop):
        train_bank(x, y, test_size=0.2, random_state=42, watch=watching)
    stopper.join()
    assert wait_until(lambda: not at_work() - before)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_is_left_behind_when_the_worker_is_killed() -> None:
    script = (
        "import numpy as np\n"
        "from labeling.bank import train_bank\n"
        "from tests.labeling.watching import Watching\n"
        "class Telling(Watching):\n"
        "    def progress(self, *said):\n"
        "        print(said, flush=True)\n"
        "y = np.arange(20_000) % 3\n"
        "x = np.random.default_rng(0).normal(size=(20_000, 8)) + y[:, None]\n"
        "train_bank(x, y, test_size=0.2, random_state=0, watch=Telling())\n"
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
