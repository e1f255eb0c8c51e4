"""Labeling beside the libraries it stands on: votes, the label model, the classifier bank.

Each side runs in a fresh process; they take turns, and the median of three counts. `--only votes`
runs one group.
"""

import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# This process stays light: the peak that a child reports begins with its parent's size.
from benchmarks.process_trees import run_watched  # noqa: E402 - after the path
from benchmarks.report import Row, arguments, publish  # noqa: E402 - as above

ROUNDS = 3
SAME = 1e-6  # of probabilities
WHICH_MODELS = {
    "shared": "each with its own settings",
    "same": "without LabelPropagation and LabelSpreading, which it gives every pair of rows",
}


def main() -> None:
    groups: dict[str, Callable[[int], list[Row]]] = {
        "votes": votes,
        "label_model": label_model,
        "bank": bank,
    }
    options = arguments("Votes, label model and classifier bank", groups)
    chosen = [options.only] if options.only else groups
    rows = [row for name in chosen for row in groups[name](10 if options.quick else 1)]
    publish(rows, options.json)


def votes(scale: int) -> list[Row]:
    """Our label matrix from sandboxed code, on all cores and on one, beside Snorkel's applier."""
    count = 1_000_000 // scale
    taken = in_turn("votes_sides", ("ours", "one_core", "peer"), count)
    assert len({each["votes"] for side in taken.values() for each in side}) == 1
    peer = medians(taken["peer"])
    rows = []
    for name, side in (("votes", "ours"), ("votes_one_core", "one_core")):
        ours = medians(taken[side])
        note = (
            f"{count:,} rows x 10 functions; PandasLFApplier on a tenth of the rows, scaled; "
            f"CPU {ours['cpu_seconds']:.1f} s beside {peer['cpu_seconds']:.1f} s"
        )
        # The peer's peak, of a tenth of the rows, says nothing.
        rows.append(Row(name, ours["seconds"], peer["seconds"], ours["peak_mb"], None, note))
    return rows


def label_model(scale: int) -> list[Row]:
    """Fit and predict on the same votes, beside Snorkel's own LabelModel; the same probabilities."""
    count = 1_000_000 // scale
    taken = in_turn("label_model_sides", ("ours", "peer"), count)
    found = (chain(*taken[side][0]["probabilities"]) for side in ("ours", "peer"))
    assert all(abs(our - their) <= SAME for our, their in zip(*found, strict=True))
    ours, peer = medians(taken["ours"]), medians(taken["peer"])
    note = (
        f"{count:,} rows x 10 functions; CPU {ours['cpu_seconds']:.1f} s beside "
        f"{peer['cpu_seconds']:.1f} s"
    )
    measured = (ours["seconds"], peer["seconds"], ours["peak_mb"], peer["peak_mb"])
    return [Row("label_model", *measured, note)]


def bank(scale: int) -> list[Row]:
    """Every classifier trained and ranked, beside LazyClassifier with the same models.

    Ours counts the start of its process, the imports there, the pipelines it keeps and predictions
    for every row as well.
    """
    rows = []
    for name, count, models in (
        ("bank_5k", 5_000 // scale, "shared"),
        ("bank_20k", 20_000 // scale, "shared"),
        ("bank_20k_same_work", 20_000 // scale, "same"),
    ):
        taken = in_turn("bank_sides", ("ours", "peer"), count, models)
        ours, peer = medians(taken["ours"]), medians(taken["peer"])
        note = (
            f"{count:,} rows; {ours['ranked']:.0f} models ranked and {peer['ranked']:.0f} by "
            "LazyClassifier, " + WHICH_MODELS[models]
        )
        rows.append(
            Row(name, ours["seconds"], peer["seconds"], ours["peak_mb"], peer["peak_mb"], note)
        )
    count = 100_000 // scale
    (found,) = in_turn("bank_sides", ("ours",), count, "all").values()
    ours = medians(found)
    skipped = "; ".join(f"{model}: {why}" for model, why in found[-1]["skipped"].items())
    note = f"{count:,} rows; {ours['ranked']:.0f} ranked; without a score: {skipped}"
    rows.append(Row("bank_100k", ours["seconds"], None, ours["peak_mb"], None, note))
    return rows


def in_turn(module: str, sides: Sequence[str], *numbers: object) -> dict[str, list[Any]]:
    """What each side said in each of the rounds, with the peak memory of all its processes."""
    taken: dict[str, list[Any]] = {side: [] for side in sides}
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tippers.settings"}
    for _ in range(ROUNDS):
        for side in sides:
            command = [sys.executable, "-m", f"benchmarks.{module}", side, *map(str, numbers)]
            taken[side].append(run_watched(command, env=environment, cwd=ROOT))
    return taken


def medians(taken: list[Any]) -> dict[str, float]:
    """Of every number that a side said; of the peak, the highest."""
    numbers = {
        name: median(each[name] for each in taken)
        for name, value in taken[0].items()
        if isinstance(value, int | float)
    }
    return numbers | {"peak_mb": max(each["peak_mb"] for each in taken)}


if __name__ == "__main__":
    main()
