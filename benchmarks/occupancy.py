"""Occupancy of 3,000 rooms and all above them, beside a plain loop and beside the bare scan.

Ours is the whole way, with the workers that `make serve` starts here: from the POST until the
dataset is COMPLETED, every chunk's file durable in storage; its memory is the sum of all slots'
peaks. The peers make the rooms' numbers from the same sessions: one query and one file per (room,
window) in a plain loop, which then adds the floors up from the files, as the predecessor did in a
task each; and one Polars scan of the sessions as local Parquet, which writes nothing and is the
limit. Each side runs in a process of its own; they take turns, and the median of three counts. All
three must say the same.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.report import Row, arguments, publish  # noqa: E402 - after the path
from benchmarks.stack import scratch_stack  # noqa: E402 - as above

ROUNDS = 3
PEERS = {
    "per_chunk": "one query and one file per chunk in a plain loop",
    "scan": "one Polars scan of the sessions in local Parquet",
}


def main() -> None:
    options = arguments("Occupancy")
    scale = 10 if options.quick else 1
    sessions, rooms = 10_000_000 // scale, 3_000 // scale
    rows: list[Row] = []
    with scratch_stack() as environment:
        _side(environment, "fill", sessions, rooms)
        taken: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", *PEERS)}
        for _ in range(ROUNDS):
            for side, results in taken.items():
                results.append(_side(environment, side, rooms))
        said = {result["said"] for results in taken.values() for result in map(_hashable, results)}
        assert len(said) == 1, f"the sides disagree: {said}"
        seconds = {side: median(each["seconds"] for each in taken[side]) for side in taken}
        peak = {side: max(each["peak_mb"] for each in taken[side]) for side in taken}
        rows += [
            Row(
                f"occupancy_vs_{peer}",
                seconds["ours"],
                seconds[peer],
                peak["ours"],
                peak[peer],
                f"{sessions:,} sessions, {rooms:,} rooms; the peer is {what}",
            )
            for peer, what in PEERS.items()
        ]
        spaces = 30_000 // scale
        posted = _side(environment, "post", spaces)
        note = f"{spaces:,} spaces, 12 windows, the range found in the sessions"
        rows.append(Row("occupancy_post_30k", posted["seconds"], note=note))
    publish(rows, options.json)


def _hashable(result: dict[str, Any]) -> dict[str, Any]:
    return result | {"said": tuple(result["said"])}


def _side(environment: dict[str, str], side: str, *numbers: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.occupancy_sides", side, *map(str, numbers)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


if __name__ == "__main__":
    main()
