"""The bank: every candidate classifier, each in a process of its own, in parallel over the cores.

Where several banks are at work, one has the cores and the others one process each, so that together
they stay within the machine's memory and no candidate waits long for a core.

`train_bank` is the caller's side: it starts `python -m labeling.bank`, hands the table over and
reads what it says. One process of our own is needed because a Celery worker's child is daemonic and
may have none of the usual ones, and because it must fork before anything has used OpenMP (libgomp
does not survive a fork). It imports the libraries once; each candidate is then a fork, bounded in
time and memory, so that one which fails, hangs or swells appears with its reason and harms no other.
In the end the best one, in such a fork too, answers for every row.

What passes between the processes beside short lines is in files without a name, so that nothing is
left behind whoever is killed. Equal inputs and `random_state` give equal scores, save `Time Taken`.
"""

import fcntl
import gzip
import io
import json
import math
import mmap
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from labeling.sandbox.locks import die_with
from labeling.watch import Watch
from tippers.cores import cores

ESTIMATOR_SECONDS = 60.0  # of a core's time, so that a busy machine ranks the same models
PATIENCE = 5  # times that, by the clock: one that waits for something ends too
ESTIMATOR_BYTES = 4 << 30  # at most; less on a machine with less to spare
CLOSING_SECONDS = 600.0  # for the best one to answer for every row, and for packing one pipeline
KEPT = 5  # fitted pipelines
ROWS_AT_ONCE = 50_000  # that a fitted pipeline answers for
UNUSED, TRAIN, TEST = range(3)  # what a row was for
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
KEPT_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT",
    "TIPPERS_MAX_CONCURRENT",
)  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Skipped:
    """A candidate that has no score, and why."""

    model: str
    reason: str


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, from `x` to classes, as joblib writes it: bytes of the `packed` file."""

    model: str
    offset: int
    size: int


@dataclass(frozen=True)
class Predictions:
    """What the best one says of every row of `x`: a class, and how sure it is (nan: it cannot say).

    `used`: whether the row was for training, for the test, or neither (TRAIN, TEST, UNUSED).
    """

    classes: Ints
    confidence: Floats
    used: npt.NDArray[np.int8]


@dataclass
class BankResult:
    """Scores, best first, with exactly the keys of the wire; and who is missing.

    `confusion`: by model, test rows by true class (lines) and predicted class (columns). `fitted`:
    the pipelines of the best, in the order of the scores. `predictions` are None when the best one
    could not make them; `no_predictions` says why.
    """

    scores: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)
    fitted: list[Fitted] = field(default_factory=list)
    predictions: Predictions | None = None
    no_predictions: str = ""


def answers(pipeline: Any, x: Floats) -> tuple[Ints, Floats]:
    """The class that a fitted pipeline gives each row, and that class's probability.

    nan for the probability where the pipeline has none (a margin is not one).
    """
    said, sure = [], []
    for start in range(0, len(x), ROWS_AT_ONCE):
        rows = x[start : start + ROWS_AT_ONCE]
        classes = np.asarray(pipeline.predict(rows), dtype=np.int64)
        said.append(classes)
        if hasattr(pipeline, "predict_proba"):
            columns = np.searchsorted(pipeline.classes_, classes)
            sure.append(np.asarray(pipeline.predict_proba(rows))[np.arange(len(rows)), columns])
        else:
            sure.append(np.full(len(rows), np.nan))
    return np.concatenate(said), np.concatenate(sure).astype(np.float64)


# --- the caller's side ----------------------------------------------------------------------


def train_bank(
    x: Floats,
    rows: Ints,
    y: Ints,
    *,
    test_size: float,
    random_state: int,
    watch: Watch,
    packed: IO[bytes],
    only: Collection[str] = (),
) -> BankResult:
    """Train and rank every candidate, or those named, on a stratified split of `rows` of `x`.

    `x`: rows x features, nan for missing; `y`: the classes of `rows`, 0 to k-1, all present. What is
    fitted to prepare the columns is fitted on the training part alone. `packed` is an empty file,
    open for reading and writing, that the pipelines are put into.
    """
    options = {"test_size": test_size, "random_state": random_state, "only": list(only)}
    with tempfile.TemporaryFile() as table, tempfile.TemporaryFile() as said:
        np.savez(table, x=x, rows=rows, y=y, options=np.array(json.dumps(options)))
        table.seek(0)
        process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-m", "labeling.bank",
                str(os.getpid()), str(packed.fileno()),
            ],
            cwd=Path(__file__).parent.parent,
            env={k: v for k, v in os.environ.items() if k in KEPT_ENVIRONMENT} | ONE_THREAD,
            stdin=table,
            stdout=subprocess.PIPE,
            stderr=said,
            pass_fds=[packed.fileno()],
            start_new_session=True,
        )  # fmt: skip

        def stop() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        try:
            with watch.on_stop(stop):
                result = _follow(process, packed, watch)
        finally:
            if process.poll() is None:
                stop()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if result is None:
            watch.check()  # killed because the run was stopped
            said.seek(0)
            last = said.read()[-2000:].decode("utf-8", "replace")
            raise RuntimeError(f"the classifier bank ended early ({process.returncode}): {last}")
    result.scores.sort(key=_rank)
    return result


def _rank(score: dict[str, Any]) -> tuple[float, float, str]:
    """What scores are sorted by, the best first."""
    return (-score["Balanced Accuracy"], -score["F1 Score"], score["Model"])


def _follow(
    process: "subprocess.Popen[bytes]", packed: IO[bytes], watch: Watch
) -> BankResult | None:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    result = BankResult()
    predictions: dict[str, int] = {}
    for line in process.stdout:
        event = json.loads(line)
        match event["event"]:
            case "now":
                watch.progress(event["done"], event["total"], "classifiers", f"now {event['what']}")
            case "score":
                result.scores.append(event["score"])
                result.confusion[event["model"]] = event["confusion"]
            case "skipped":
                result.skipped.append(Skipped(event["model"], event["reason"]))
            case "fitted":
                result.fitted.append(Fitted(event["model"], event["offset"], event["size"]))
            case "predictions":
                predictions = event
            case "no predictions":
                result.no_predictions = event["reason"]
            case "end":
                # Not before: the file's cursor is the bank's too, which writes on at it.
                if predictions:
                    place = predictions["offset"], predictions["size"]
                    result.predictions = _predictions(packed, *place)
                return result
    return None


def _predictions(packed: IO[bytes], offset: int, size: int) -> Predictions:
    packed.seek(offset)
    with np.load(io.BytesIO(packed.read(size)), allow_pickle=False) as found:
        return Predictions(found["classes"], found["confidence"], found["used"])


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
    prepare: Any
    used: npt.NDArray[np.int8]


def _prepare(x: Floats, rows: Ints, y: Ints, test_size: float, seed: int) -> _Parts:
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test, y_train, y_test = train_test_split(
        rows, y, test_size=test_size, random_state=seed, stratify=y
    )
    prepare = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    used = np.full(len(x), UNUSED, dtype=np.int8)
    used[train], used[test] = TRAIN, TEST
    return _Parts(
        prepare.fit_transform(x[train]), y_train, prepare.transform(x[test]), y_test, prepare, used
    )


def _score(
    candidate: Candidate,
    shape: Shape,
    parts: _Parts,
    is_kept: Callable[[dict[str, Any]], bool],
    file: IO[bytes],
) -> dict[str, Any]:
    """Train and test one; what `is_kept` is written to `file`, from unprepared columns to classes."""
    import joblib
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
    from sklearn.pipeline import make_pipeline

    started = time.perf_counter()
    model = candidate.build(shape)
    model.fit(parts.x_train, parts.y_train)
    said = model.predict(parts.x_test)
    seconds = time.perf_counter() - started
    score = {
        "Model": candidate.name,
        "Accuracy": float(accuracy_score(parts.y_test, said)),
        "Balanced Accuracy": float(balanced_accuracy_score(parts.y_test, said)),
        "F1 Score": float(f1_score(parts.y_test, said, average="weighted")),
        "Time Taken": round(seconds, 4),
    }
    if is_kept(score):
        joblib.dump(make_pipeline(*[step for _, step in parts.prepare.steps], model), file)
        file.flush()
    confusion = confusion_matrix(parts.y_test, said, labels=np.arange(shape.classes))
    return {"score": score, "confusion": confusion.tolist()}


def _why_not(candidate: Candidate, shape: Shape) -> str | None:
    if shape.rows > candidate.most_rows:
        return f"it is too slow above {candidate.most_rows} training rows; there are {shape.rows}"
    if candidate.classes is not None and shape.classes != candidate.classes:
        return f"it can only tell {candidate.classes} classes apart; there are {shape.classes}"
    return None


@dataclass(frozen=True)
class _Room:
    """What the machine has for a bank: its cores, and memory for each fork in bytes.

    `machine` is open on a folder that all banks of the machine see.
    """

    cores: int
    memory: int
    machine: int

    def at_once(self) -> int:
        """How many forks may work: one, or as many as there are cores if no other bank has them."""
        try:
            fcntl.flock(self.machine, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this bank has ended
        except BlockingIOError:
            return 1
        return self.cores


@dataclass(frozen=True)
class _Work:
    """Something to do in a fork: `do` writes what is large to `file` and returns what is short."""

    name: str
    do: Callable[[], dict[str, Any]]
    file: IO[bytes]


def _work(name: str, do: Callable[[IO[bytes]], dict[str, Any]]) -> _Work:
    # Without a name on disk, and open before the fork: both processes see the same bytes.
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever has read it
    return _Work(name, partial(do, file), file)


def _in_forks(
    work: Iterator[_Work], room: _Room, seconds: float
) -> Iterator[tuple[_Work, dict[str, Any] | None]]:
    """Each piece of work twice: with None when it begins, with its answer when it has ended.

    `seconds`: of a core's time, for each. An answer without what `do` returns has a `reason` alone:
    it failed, died, swelled or took too long. Work is taken from the iterator when there is room.
    """
    running: dict[int, tuple[_Work, int, float, bytearray]] = {}
    patience = PATIENCE * seconds
    more = True
    with selectors.DefaultSelector() as ready:
        while more or running:
            while more and len(running) < room.at_once():
                piece = next(work, None)
                if piece is None:
                    more = False
                    break
                yield piece, None
                pid, read = _fork(piece, room.memory, math.ceil(seconds))
                running[read] = (piece, pid, time.monotonic() + patience, bytearray())
                ready.register(read, selectors.EVENT_READ)
            if not running:
                return
            deadline = min(until for _, _, until, _ in running.values())
            readable = {key.fd for key, _ in ready.select(max(deadline - time.monotonic(), 0))}
            for read, (piece, pid, until, data) in list(running.items()):
                if read in readable and (part := os.read(read, 1 << 16)):
                    data.extend(part)
                    continue
                late = read not in readable and time.monotonic() >= until
                if read in readable or late:
                    ready.unregister(read)
                    del running[read]
                    os.close(read)
                    status = _ended(pid, late=late)
                    if late:
                        answer = {"reason": f"it took longer than {patience:.0f} s"}
                    elif status == -signal.SIGXCPU:
                        answer = {"reason": f"it took longer than {seconds:.0f} s of a core's time"}
                    elif status or not data:
                        answer = {"reason": f"its process ended: {_in_words(status)}"}
                    else:
                        answer = json.loads(data)
                    yield piece, answer


def _fork(work: _Work, memory: int, seconds: int) -> tuple[int, int]:
    """A child that does the work and writes one JSON line; (its pid, where to read)."""
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
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        try:
            answer = work.do()
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


def _ended(pid: int, *, late: bool) -> int:
    """The child's exit status, or minus the signal that killed it."""
    if late:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _in_words(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _run(
    table: list[Candidate], shape: Shape, parts: _Parts, x: Floats, packed: IO[bytes]
) -> Iterator[dict[str, Any]]:
    """Train every candidate, as many at a time as there is room for; events as they happen."""
    best: list[tuple[dict[str, Any], IO[bytes]]] = []

    def is_kept(score: dict[str, Any]) -> bool:
        # In the fork: by what was known when it began, so it may be kept too often, never too seldom.
        return len(best) < KEPT or _rank(score) < _rank(best[-1][0])

    possible = []
    for candidate in table:
        if reason := _why_not(candidate, shape):
            yield {"event": "skipped", "model": candidate.name, "reason": reason}
        else:
            possible.append(candidate)
    done, total = len(table) - len(possible), len(table)
    training = (_work(c.name, partial(_score, c, shape, parts, is_kept)) for c in possible)
    with _room() as room:
        for work, answer in _in_forks(training, room, ESTIMATOR_SECONDS):
            if answer is None:
                yield {"event": "now", "what": work.name, "done": done, "total": total}
                continue
            done += 1
            if "score" not in answer:
                work.file.close()
                yield {"event": "skipped", "model": work.name, **answer}
                continue
            yield {"event": "score", "model": work.name, **answer}
            best.append((answer["score"], work.file))
            best.sort(key=lambda each: _rank(each[0]))
            for _, file in best[KEPT:]:
                file.close()
            del best[KEPT:]
        if best:
            yield {"event": "now", "what": "predicting all rows", "done": done, "total": total}
            yield from _close(best, x, parts.used, packed, room)


def _close(
    best: list[tuple[dict[str, Any], IO[bytes]]],
    x: Floats,
    used: npt.NDArray[np.int8],
    packed: IO[bytes],
    room: _Room,
) -> Iterator[dict[str, Any]]:
    """The best one's predictions for every row, and the pipelines of the best, into `packed`."""
    fitted = {score["Model"]: file for score, file in best}
    pieces = [_work("", partial(_predict, best[0][1], x, used))]
    pieces += [_work(name, partial(_pack, file)) for name, file in fitted.items()]
    ended: dict[str, tuple[_Work, dict[str, Any]]] = {}
    for work, answer in _in_forks(iter(pieces), room, CLOSING_SECONDS):
        if answer is not None:
            ended[work.name] = (work, answer)
    for name in ("", *fitted):
        work, answer = ended[name]
        if "reason" in answer and name:
            raise RuntimeError(f"the pipeline of {name} cannot be packed: {answer['reason']}")
        if "reason" in answer:
            yield {"event": "no predictions", **answer}
            continue
        place = _append(work.file, packed)
        yield {"event": "fitted" if name else "predictions", "model": name, **place}


def _predict(
    fitted: IO[bytes], x: Floats, used: npt.NDArray[np.int8], file: IO[bytes]
) -> dict[str, Any]:
    import joblib

    pipeline = joblib.load(_from_its_start(fitted))
    classes, confidence = answers(pipeline, x)
    np.savez(file, classes=classes, confidence=confidence, used=used)
    file.flush()
    return {}


def _pack(fitted: IO[bytes], file: IO[bytes]) -> dict[str, Any]:
    """Forests shrink to a fifth; the least effort is enough for that."""
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packing:
        shutil.copyfileobj(_from_its_start(fitted), packing)
    file.flush()
    return {}


def _from_its_start(file: IO[bytes]) -> mmap.mmap:
    """To read what is in the file: its cursor is one and the same in all forks."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _append(file: IO[bytes], packed: IO[bytes]) -> dict[str, int]:
    offset = packed.tell()
    file.seek(0)
    shutil.copyfileobj(file, packed)
    packed.flush()
    file.close()
    return {"offset": offset, "size": packed.tell() - offset}


@contextmanager
def _room() -> Iterator[_Room]:
    here = cores()
    banks = int(os.environ.get("TIPPERS_MAX_CONCURRENT") or here)  # that may work at a time
    memory = ESTIMATOR_BYTES
    with suppress(OSError):  # only Linux tells
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(
            int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")
        )
        memory = min(memory, available * 3 // 4 // (here + banks - 1))
    machine = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        yield _Room(here, memory, machine)
    finally:
        os.close(machine)


def main() -> None:
    """Read the table from standard input; write one JSON line for every event."""
    die_with(int(sys.argv[1]))
    warnings.simplefilter("ignore")
    answers_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like an event
    with np.load(sys.stdin.buffer, allow_pickle=False) as given:
        x, rows, y = given["x"], given["rows"], given["y"]
        options = json.loads(str(given["options"]))

    def say(event: dict[str, Any]) -> None:
        answers_to.write(json.dumps(event) + "\n")
        answers_to.flush()

    table = [c for c in candidates() if c.name in options["only"] or not options["only"]]
    for library in ("lightgbm", "xgboost"):  # once here, not in every fork
        with suppress(
            ImportError, OSError
        ):  # a missing libgomp is an OSError; its candidate says so
            __import__(library)
    parts = _prepare(x, rows, y, options["test_size"], options["random_state"])
    sizes = np.bincount(parts.y_train).tolist()
    shape = Shape(len(parts.y_train), x.shape[1], sizes, options["random_state"])
    with os.fdopen(int(sys.argv[2]), "r+b") as packed:
        for event in _run(table, shape, parts, x, packed):
            say(event)
    say({"event": "end"})


if __name__ == "__main__":
    main()
