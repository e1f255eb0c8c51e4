"""The bank: every candidate classifier, each in a process of its own, in parallel over the cores.

`train_bank` is the caller's side: it starts `python -m labeling.bank`, hands the table over and
reads what it says. One process of our own is needed because a Celery worker's child is daemonic and
may have none of the usual ones, and because it must fork before anything has used OpenMP (libgomp
does not survive a fork). It imports the libraries once; each candidate is then a fork, bounded in
time and memory, so that one which fails, hangs or swells appears with its reason and harms no other.

Equal inputs and `random_state` give equal scores, save `Time Taken`.
"""

import io
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labeling.sandbox.child import die_with
from labeling.watch import Watch

ESTIMATOR_SECONDS = 60.0
ESTIMATOR_BYTES = 4 << 30  # at most; less on a machine with less to spare
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Skipped:
    """A candidate that has no score, and why."""

    model: str
    reason: str


@dataclass
class BankResult:
    """Scores, best first, with exactly the keys of the wire; and who is missing."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


# --- the caller's side ----------------------------------------------------------------------


def train_bank(
    x: Floats, y: Ints, *, test_size: float, random_state: int, watch: Watch
) -> BankResult:
    """Train and rank every candidate on a stratified split of (x, y).

    `x`: rows x features, nan for missing; `y`: classes 0 to k-1, all present. What is fitted to
    prepare the columns is fitted on the training part alone.
    """
    table = io.BytesIO()
    options = json.dumps({"test_size": test_size, "random_state": random_state})
    np.savez(table, x=x, y=y, options=np.array(options))
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "labeling.bank", str(os.getpid())],
            cwd=Path(__file__).parent.parent,
            env={k: v for k, v in os.environ.items() if k in KEPT_ENVIRONMENT} | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )

        def stop() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        try:
            with watch.on_stop(stop):
                result = _follow(process, table.getvalue(), watch)
        finally:
            if process.poll() is None:
                stop()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if result is None:
            watch.check()  # killed because the run was stopped
            said.seek(0)
            last = said.read()[-2000:].decode("utf-8", "replace")
            raise RuntimeError(f"the classifier bank ended early ({process.returncode}): {last}")
    result.scores.sort(key=lambda s: (-s["Balanced Accuracy"], -s["F1 Score"], s["Model"]))
    return result


def _follow(process: "subprocess.Popen[bytes]", table: bytes, watch: Watch) -> BankResult | None:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
    with suppress(BrokenPipeError):  # it died: its end of file below says so
        process.stdin.write(table)
        process.stdin.close()
    result = BankResult()
    for line in process.stdout:
        event = json.loads(line)
        match event["event"]:
            case "now":
                watch.progress(
                    event["done"], event["total"], "classifiers", f"now {event['model']}"
                )
            case "score":
                result.scores.append(event["score"])
            case "skipped":
                result.skipped.append(Skipped(event["model"], event["reason"]))
            case "end":
                return result
    return None


# --- the candidates -------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a candidate's settings may depend on: the training part."""

    rows: int
    features: int
    class_sizes: list[int]
    seed: int

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_sizes)


@dataclass(frozen=True)
class Candidate:
    """A classifier by name. `build` imports what it needs and returns it unfitted.

    `most_rows`: above that its cost grows with the square of the rows or worse. `weight`: relative
    cost, so that the longest begin first and the cores end together.
    """

    name: str
    build: Callable[[Shape], Any]
    most_rows: int = 1_000_000
    classes: int | None = None
    weight: int = 1


def candidates() -> list[Candidate]:
    """Every candidate, the longest first. Raises ImportError only if scikit-learn is missing."""
    from sklearn import (
        calibration,
        discriminant_analysis,
        dummy,
        ensemble,
        gaussian_process,
        linear_model,
        model_selection,
        multiclass,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        semi_supervised,
        svm,
        tree,
    )

    def logistic(s: Shape) -> Any:
        return linear_model.LogisticRegression(max_iter=300, random_state=s.seed)

    def three(s: Shape) -> list[tuple[str, Any]]:
        small = tree.DecisionTreeClassifier(max_depth=8, random_state=s.seed)
        return [("logistic", logistic(s)), ("bayes", naive_bayes.GaussianNB()), ("tree", small)]

    def shifted(inner: Any) -> Any:
        """These count things: no input may be negative."""
        return pipeline.make_pipeline(preprocessing.MinMaxScaler(clip=True), inner)

    def in_bins(_: Shape) -> Any:
        bins = preprocessing.KBinsDiscretizer(8, encode="ordinal", strategy="uniform")
        return pipeline.make_pipeline(bins, naive_bayes.CategoricalNB(min_categories=8))

    def nu(s: Shape) -> float:
        """NuSVC's share of errors; above this bound no solution exists for the least balanced pair."""
        least, most = min(s.class_sizes), max(s.class_sizes)
        return min(0.5, 0.9 * 2 * least / (least + most))

    def lightgbm(s: Shape) -> Any:
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_jobs=1, random_state=s.seed, verbosity=-1, deterministic=True)

    def xgboost(s: Shape) -> Any:
        from xgboost import XGBClassifier

        return XGBClassifier(n_jobs=1, random_state=s.seed, verbosity=0, tree_method="hist")

    table = [
        Candidate("AdaBoostClassifier", lambda s: ensemble.AdaBoostClassifier(random_state=s.seed), weight=4),
        Candidate("BaggingClassifier", lambda s: ensemble.BaggingClassifier(random_state=s.seed)),
        Candidate("BernoulliNB", lambda _: naive_bayes.BernoulliNB()),
        Candidate("CalibratedClassifierCV", lambda s: calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=s.seed), cv=3)),
        Candidate("CategoricalNB", in_bins),
        Candidate("ComplementNB", lambda _: shifted(naive_bayes.ComplementNB())),
        Candidate("DecisionTreeClassifier", lambda s: tree.DecisionTreeClassifier(random_state=s.seed)),
        Candidate("DummyClassifier", lambda s: dummy.DummyClassifier(random_state=s.seed)),
        Candidate("ExtraTreeClassifier", lambda s: tree.ExtraTreeClassifier(random_state=s.seed)),
        Candidate("ExtraTreesClassifier", lambda s: ensemble.ExtraTreesClassifier(random_state=s.seed), weight=3),
        Candidate("FixedThresholdClassifier", lambda s: model_selection.FixedThresholdClassifier(logistic(s)), classes=2),
        Candidate("GaussianNB", lambda _: naive_bayes.GaussianNB()),
        Candidate("GaussianProcessClassifier", lambda s: gaussian_process.GaussianProcessClassifier(optimizer=None, random_state=s.seed), most_rows=1_000, weight=9),
        Candidate("GradientBoostingClassifier", lambda s: ensemble.GradientBoostingClassifier(random_state=s.seed), most_rows=30_000, weight=9),
        Candidate("HistGradientBoostingClassifier", lambda s: ensemble.HistGradientBoostingClassifier(random_state=s.seed), weight=6),
        Candidate("KNeighborsClassifier", lambda _: neighbors.KNeighborsClassifier()),
        Candidate("LGBMClassifier", lightgbm, weight=5),
        Candidate("LabelPropagation", lambda _: semi_supervised.LabelPropagation(kernel="knn", n_jobs=1)),
        Candidate("LabelSpreading", lambda _: semi_supervised.LabelSpreading(kernel="knn", n_jobs=1)),
        Candidate("LinearDiscriminantAnalysis", lambda _: discriminant_analysis.LinearDiscriminantAnalysis()),
        Candidate("LinearSVC", lambda s: svm.LinearSVC(random_state=s.seed)),
        Candidate("LogisticRegression", logistic),
        Candidate("LogisticRegressionCV", lambda s: linear_model.LogisticRegressionCV(Cs=5, cv=3, max_iter=300, random_state=s.seed), weight=3),
        Candidate("MLPClassifier", lambda s: neural_network.MLPClassifier(hidden_layer_sizes=(64,), early_stopping=True, random_state=s.seed), weight=5),
        Candidate("MultinomialNB", lambda _: shifted(naive_bayes.MultinomialNB())),
        Candidate("NearestCentroid", lambda _: neighbors.NearestCentroid()),
        Candidate("NuSVC", lambda s: svm.NuSVC(nu=nu(s), random_state=s.seed), most_rows=30_000, weight=4),
        Candidate("OneVsOneClassifier", lambda s: multiclass.OneVsOneClassifier(logistic(s))),
        Candidate("OneVsRestClassifier", lambda s: multiclass.OneVsRestClassifier(logistic(s))),
        Candidate("OutputCodeClassifier", lambda s: multiclass.OutputCodeClassifier(logistic(s), code_size=3, random_state=s.seed)),
        # scikit-learn's own words for it since PassiveAggressiveClassifier is deprecated.
        Candidate("PassiveAggressiveClassifier", lambda s: linear_model.SGDClassifier(loss="hinge", penalty=None, learning_rate="pa1", eta0=1.0, random_state=s.seed)),
        Candidate("Perceptron", lambda s: linear_model.Perceptron(random_state=s.seed)),
        Candidate("QuadraticDiscriminantAnalysis", lambda _: discriminant_analysis.QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.01)),
        Candidate("RadiusNeighborsClassifier", lambda s: neighbors.RadiusNeighborsClassifier(radius=s.features**0.5 / 2, outlier_label="most_frequent"), most_rows=30_000, weight=2),
        Candidate("RandomForestClassifier", lambda s: ensemble.RandomForestClassifier(random_state=s.seed), weight=4),
        Candidate("RidgeClassifier", lambda s: linear_model.RidgeClassifier(random_state=s.seed)),
        Candidate("RidgeClassifierCV", lambda _: linear_model.RidgeClassifierCV()),
        Candidate("SGDClassifier", lambda s: linear_model.SGDClassifier(random_state=s.seed)),
        Candidate("SVC", lambda s: svm.SVC(random_state=s.seed), most_rows=30_000, weight=4),
        Candidate("SelfTrainingClassifier", lambda s: semi_supervised.SelfTrainingClassifier(logistic(s))),
        Candidate("StackingClassifier", lambda s: ensemble.StackingClassifier(three(s), cv=3), weight=4),
        Candidate("TunedThresholdClassifierCV", lambda s: model_selection.TunedThresholdClassifierCV(logistic(s), cv=3, random_state=s.seed), classes=2),
        Candidate("VotingClassifier", lambda s: ensemble.VotingClassifier(three(s), voting="soft")),
        Candidate("XGBClassifier", xgboost, weight=7),
    ]  # fmt: skip
    return sorted(table, key=lambda candidate: -candidate.weight)


# --- inside the bank's process --------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """The split table, prepared: columns imputed and scaled by what the training part says."""

    x_train: Floats
    y_train: Ints
    x_test: Floats
    y_test: Ints


def _prepare(x: Floats, y: Ints, test_size: float, seed: int) -> _Parts:
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=test_size, random_state=seed, stratify=y
    )
    prepare = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    return _Parts(prepare.fit_transform(x_train), y_train, prepare.transform(x_test), y_test)


def _score(candidate: Candidate, shape: Shape, parts: _Parts) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    started = time.perf_counter()
    model = candidate.build(shape)
    model.fit(parts.x_train, parts.y_train)
    said = model.predict(parts.x_test)
    seconds = time.perf_counter() - started
    return {
        "Model": candidate.name,
        "Accuracy": float(accuracy_score(parts.y_test, said)),
        "Balanced Accuracy": float(balanced_accuracy_score(parts.y_test, said)),
        "F1 Score": float(f1_score(parts.y_test, said, average="weighted")),
        "Time Taken": round(seconds, 4),
    }


def _why_not(candidate: Candidate, shape: Shape) -> str | None:
    if shape.rows > candidate.most_rows:
        return f"it is too slow above {candidate.most_rows} training rows; there are {shape.rows}"
    if candidate.classes is not None and shape.classes != candidate.classes:
        return f"it can only tell {candidate.classes} classes apart; there are {shape.classes}"
    return None


def _fork(candidate: Candidate, shape: Shape, parts: _Parts, memory: int) -> tuple[int, int]:
    """A child that trains one candidate and writes one JSON line; (its pid, where to read)."""
    read, write = os.pipe()
    bank = os.getpid()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:
        die_with(bank)
        os.close(read)
        # Private data, not address space: the libraries map far more than they use.
        used = (
            int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
            if (sys.platform == "linux")
            else 0
        )
        resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory))
        try:
            answer: dict[str, Any] = {"score": _score(candidate, shape, parts)}
        except MemoryError:
            answer = {"reason": f"it needs more than {memory >> 20} MB of memory"}
        except Exception as error:  # noqa: BLE001 - whatever it raises is its reason
            answer = {"reason": f"{type(error).__name__}: {error}"[:500]}
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(write, data) :]
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's code
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _reap(pid: int, read: int, data: bytes, *, late: bool) -> dict[str, Any]:
    os.close(read)
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if late:
        return {"reason": f"it took longer than {ESTIMATOR_SECONDS:.0f} s"}
    if not data:
        code = os.waitstatus_to_exitcode(status)
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return {"reason": f"its process ended: {why}"}
    return json.loads(data)  # type: ignore[no-any-return]  # what _fork wrote


def _run(table: list[Candidate], shape: Shape, parts: _Parts) -> Iterator[dict[str, Any]]:
    """Train every candidate, as many at a time as there are cores; events as they happen."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    memory = min(ESTIMATOR_BYTES, _memory_to_spare() // cores)
    waiting = list(reversed(table))
    done = 0
    working: dict[int, tuple[Candidate, int, float, bytearray]] = {}
    with selectors.DefaultSelector() as ready:
        while waiting or working:
            while waiting and len(working) < cores:
                candidate = waiting.pop()
                yield {"event": "now", "model": candidate.name, "done": done, "total": len(table)}
                if reason := _why_not(candidate, shape):
                    yield {"event": "skipped", "model": candidate.name, "reason": reason}
                    done += 1
                    continue
                pid, read = _fork(candidate, shape, parts, memory)
                working[read] = (candidate, pid, time.monotonic() + ESTIMATOR_SECONDS, bytearray())
                ready.register(read, selectors.EVENT_READ)
            deadline = min((item[2] for item in working.values()), default=0.0)
            readable = {key.fd for key, _ in ready.select(max(deadline - time.monotonic(), 0))}
            for read, (candidate, pid, until, data) in list(working.items()):
                if read in readable and (part := os.read(read, 1 << 16)):
                    data.extend(part)
                    continue
                late = read not in readable and time.monotonic() >= until
                if read in readable or late:
                    ready.unregister(read)
                    del working[read]
                    answer = _reap(pid, read, bytes(data), late=late)
                    kind = "score" if "score" in answer else "skipped"
                    yield {"event": kind, "model": candidate.name, **answer}
                    done += 1


def _memory_to_spare() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return ESTIMATOR_BYTES
    available = next(
        int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")
    )
    return available * 3 // 4


def main() -> None:
    """Read the table from standard input; write one JSON line for every event."""
    die_with(int(sys.argv[1]))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an event
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as given:
        x, y, options = given["x"], given["y"], json.loads(str(given["options"]))

    def say(event: dict[str, Any]) -> None:
        answers.write(json.dumps(event) + "\n")
        answers.flush()

    table = candidates()
    for library in ("lightgbm", "xgboost"):  # once here, not in every fork
        with suppress(
            ImportError, OSError
        ):  # a missing libgomp is an OSError; its candidate says so
            __import__(library)
    parts = _prepare(x, y, options["test_size"], options["random_state"])
    sizes = np.bincount(parts.y_train).tolist()
    shape = Shape(len(parts.y_train), x.shape[1], sizes, options["random_state"])
    for event in _run(table, shape, parts):
        say(event)
    say({"event": "end"})


if __name__ == "__main__":
    main()
