"""Labeling beside the libraries it stands on: votes, the label model, the classifier bank.

Each side runs in a fresh process, so that its peak memory is its own; they take turns, and the
median of three counts. `--only votes` runs one group.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# This process stays light: the peak that a child reports begins with its parent's size.
from benchmarks.report import Row, arguments, publish  # noqa: E402 - after the path

ROUNDS = 3


def main() -> None:
    groups: dict[str, Callable[[int], list[Row]]] = {"votes": votes}
    options = arguments("Votes, label model and classifier bank", groups)
    chosen = [options.only] if options.only else groups
    rows = [row for name in chosen for row in groups[name](10 if options.quick else 1)]
    publish(rows, options.json)


def votes(scale: int) -> list[Row]:
    """Our label matrix from sandboxed code, on all cores and on one, beside Snorkel's applier."""
    count = 1_000_000 // scale
    taken = in_turn(("votes", "votes_one_core", "votes_peer"), count)
    agreed = {each["votes"] for side in taken.values() for each in side}
    assert len(agreed) == 1, "the sides do not vote alike"
    peer = median_of(taken["votes_peer"], "seconds")
    return [
        Row(
            side,
            median_of(taken[side], "seconds"),
            peer,
            peak_of(taken[side]),
            None,  # the peer saw a tenth of the rows
            f"{count:,} rows x 10 functions on {on}; PandasLFApplier on a tenth, scaled; CPU "
            f"{median_of(taken[side], 'cpu_seconds'):.1f} s beside "
            f"{median_of(taken['votes_peer'], 'cpu_seconds'):.1f} s",
        )
        for side, on in (("votes", f"{_cores()} cores"), ("votes_one_core", "one core"))
    ]


def in_turn(sides: Sequence[str], number: int) -> dict[str, list[Any]]:
    """What each side said in each of the rounds."""
    taken: dict[str, list[Any]] = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side in sides:
            taken[side].append(_side(side, number))
    return taken


def median_of(taken: list[Any], what: str) -> float:
    return median(each[what] for each in taken)


def peak_of(taken: list[Any]) -> float:
    return max(each["peak_mb"] for each in taken)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _side(side: str, number: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.labeling_sides", side, str(number)]
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tippers.settings"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
