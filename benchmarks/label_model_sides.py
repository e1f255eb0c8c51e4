"""The sides of the benchmark `label_model`, each a process of its own: `SIDE ROWS`.

Both fit on the same votes of ten functions and give every row its probabilities. A side prints one
JSON object: seconds, and the probabilities of some rows, which must be the same.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

CLASSES = [1, 2, 3]
FUNCTIONS = 10
EPOCHS, RATE, SEED = 100, 0.01, 42
SHOWN_ROWS = 100
WARM_ROWS = 1_000  # fitted before: what a process loads once is not counted on any side

Floats = npt.NDArray[np.float64]


def matrix(rows: int, dtype: type[np.integer], *, abstain: int, first: int) -> npt.NDArray[Any]:
    """Functions that vote, each by itself, on half of the rows, and are right three times in four.

    Independent votes make far more distinct rows than functions about the same things do, which is
    to our disadvantage.
    """
    random = np.random.default_rng(SEED)
    truth = random.integers(0, len(CLASSES), rows, dtype=np.int8)
    votes = np.full((rows, FUNCTIONS), abstain, dtype=dtype)
    for function in range(FUNCTIONS):
        right = random.random(rows, dtype=np.float32) < 0.75
        guess = random.integers(0, len(CLASSES), rows, dtype=np.int8)
        cast = random.random(rows, dtype=np.float32) < 0.5
        said = np.where(right, truth, guess) + np.int8(first)
        votes[cast, function] = said[cast]
    return votes


def timed(work: Callable[[], Floats]) -> tuple[dict[str, float], Floats]:
    begun, used = time.perf_counter(), time.process_time()
    found = work()
    spent = time.process_time() - used
    return {"seconds": time.perf_counter() - begun, "cpu_seconds": spent}, found


def ours(rows: int) -> tuple[dict[str, float], Floats]:
    """From the label matrix as `labeling.votes` makes it (int32, cv_ids) to every row's labels."""
    from labeling.label_model import distinct_rows, label

    def labelled(votes: npt.NDArray[np.int32]) -> Floats:
        patterns = distinct_rows(votes, CLASSES)
        return label(patterns, epochs=EPOCHS, lr=RATE, seed=SEED).probabilities

    votes = matrix(rows, np.int32, abstain=-1, first=CLASSES[0])
    labelled(votes[:WARM_ROWS])
    return timed(lambda: labelled(votes))


def peer(rows: int) -> tuple[dict[str, float], Floats]:
    """Snorkel's own, from the label matrix as its appliers make it (int64, positions)."""
    from snorkel.labeling.model import LabelModel

    def labelled(votes: npt.NDArray[np.int64]) -> Floats:
        model = LabelModel(cardinality=len(CLASSES), verbose=False)
        model.fit(votes, n_epochs=EPOCHS, lr=RATE, seed=SEED, progress_bar=False)
        found: Floats = model.predict_proba(votes)
        return found

    votes = matrix(rows, np.int64, abstain=-1, first=0)
    labelled(votes[:WARM_ROWS])
    return timed(lambda: labelled(votes))


def main() -> None:
    side, rows = sys.argv[1], int(sys.argv[2])
    said, found = {"ours": ours, "peer": peer}[side](rows)
    # Rows on which all abstain have no label here, and equal chances there.
    some = np.nan_to_num(found[:: rows // SHOWN_ROWS], nan=1 / len(CLASSES))
    print(json.dumps(said | {"probabilities": some.tolist()}))


if __name__ == "__main__":
    main()
