"""Materialize a large result, beside pandas and beside the bare stream; and large `IN` lists.

Each side of a materialization runs in a fresh process, so that its peak memory is its own; they
take turns, and the median of three counts. Ours is the whole run: from the worker's claim to the
current version, statistics of the columns included.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# This process stays light: the peak that a child reports begins with its parent's size.
from benchmarks.report import Row, arguments, publish  # noqa: E402 - after the path
from benchmarks.stack import scratch_stack  # noqa: E402 - as above

ROUNDS = 3
SIDES = ("ours", "pandas", "copy")


def main() -> None:
    options = arguments("Materialization and :index_values")
    scale = 10 if options.quick else 1
    rows: list[Row] = []
    with scratch_stack() as environment:
        for name, count in (("materialize_100k", 100_000), ("materialize_5m", 5_000_000)):
            rows += _materialize(environment, name, count // scale)
        # On the table of the last one.
        for name, count in (
            ("index_values_5k", 5_000),
            ("index_values_50k", 50_000),
            ("index_values_500k", 500_000),
        ):
            seconds = _side(environment, "index_values", count)
            rows.append(Row(name, **seconds, note=f"{count:,} values; the peer is a literal list"))
    publish(rows, options.json)


def _materialize(environment: dict[str, str], name: str, count: int) -> list[Row]:
    _side(environment, "fill", count)
    _side(environment, "copy", count)  # the table's pages are in memory from here on
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side in SIDES:
            taken[side].append(_side(environment, side, count))
    seconds = {side: median(each["seconds"] for each in taken[side]) for side in SIDES}
    peak = {side: max(each["peak_mb"] for each in taken[side]) for side in SIDES}
    return [
        Row(
            name if peer == "pandas" else f"{name}_vs_copy",
            seconds["ours"],
            seconds[peer],
            peak["ours"],
            peak[peer],
            f"{count:,} rows; the peer is {said}",
        )
        for peer, said in (
            ("pandas", "pandas.read_sql and to_parquet"),
            ("copy", "the bare COPY BINARY stream, thrown away"),
        )
    ]


def _side(environment: dict[str, str], side: str, number: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.materialize_sides", side, str(number)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


if __name__ == "__main__":
    main()
