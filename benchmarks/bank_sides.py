"""The classifier bank and its peer, each side a process of its own: `bank_sides SIDE ROWS MODELS`.

MODELS is `shared` (what both sides can train, each with its own settings), `same` (of these, those
that both give the same work) or `all` (the bank's). A side prints one JSON object on its last line.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

SEED = 11
TEST_SIZE = 0.2
# LazyClassifier cannot train these on this table: they need another classifier inside, two classes,
# or categories.
NOT_THE_PEERS = {
    "CategoricalNB", "FixedThresholdClassifier", "SelfTrainingClassifier", "StackingClassifier",
    "TunedThresholdClassifierCV",
}  # fmt: skip
# Theirs compare every row with every other one, ours with its neighbours only.
OTHER_WORK = {"LabelPropagation", "LabelSpreading"}


def table(rows: int) -> tuple[Any, Any]:
    """Eight features, three classes that overlap."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        rows, n_features=8, n_informative=6, n_redundant=0, n_classes=3, flip_y=0.05,
        random_state=SEED,
    )  # fmt: skip
    return x, y


def models(which: str) -> list[str]:
    """The names for a side; none means all that it has."""
    from lazypredict.Supervised import CLASSIFIERS

    if which == "all":
        return []
    left_out = NOT_THE_PEERS | (OTHER_WORK if which == "same" else set())
    return sorted({name for name, _ in CLASSIFIERS} - left_out)


class Watching:
    """Stands where a run stands."""

    def progress(self, *_: Any) -> None:
        """Nobody looks."""

    def check(self) -> None:
        """Nobody stops it."""

    def on_stop(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        del stop
        return nullcontext()


def ours(rows: int, names: list[str]) -> dict[str, Any]:
    """The whole bank: its process and imports, pipelines kept and predictions for every row too."""
    from labeling.bank import train_bank

    x, y = table(rows)
    with tempfile.TemporaryFile() as packed:
        started = time.perf_counter()
        result = train_bank(
            x, np.arange(rows), y, test_size=TEST_SIZE, random_state=SEED, watch=Watching(),
            packed=packed, only=names,
        )  # fmt: skip
        seconds = time.perf_counter() - started
    skipped = {each.model: each.reason for each in result.skipped}
    return {"seconds": seconds, "ranked": len(result.scores), "skipped": skipped}


def peer(rows: int, names: list[str]) -> dict[str, Any]:
    """LazyClassifier.fit; its imports are not counted."""
    from lazypredict.Supervised import CLASSIFIERS, LazyClassifier
    from sklearn.model_selection import train_test_split

    x, y = table(rows)
    parts = train_test_split(x, y, test_size=TEST_SIZE, random_state=SEED, stratify=y)
    chosen = [classifier for name, classifier in CLASSIFIERS if name in names]
    started = time.perf_counter()
    scores, _ = LazyClassifier(random_state=SEED, classifiers=chosen).fit(*parts)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "ranked": len(scores), "skipped": {}}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    side, count, which = sys.argv[1:]
    done = {"ours": ours, "peer": peer}[side](int(count), models(which))
    print(json.dumps(done))
