"""How occupancy grows: `docs/scaling.md` shows what this prints.

    python -m benchmarks.scaling sessions 1000000 5000000   # computing, beside the number of sessions
    python -m benchmarks.scaling plan 100000 120            # planning, without a session to count

The first generates the sessions of `benchmarks/occupancy.py` in 3,000 rooms and computes them as
there, with its workers, from the POST to COMPLETED. The second writes the rows of all chunks, which
is what a plan does after it has counted the sessions.
"""

import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.stack import scratch_stack  # noqa: E402 - after the path

ROOMS = 3_000
ROOMS_PER_FLOOR, FLOORS_PER_BUILDING = 50, 10


def _side(environment: dict[str, str], module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else None


def sessions(*numbers: int) -> None:
    """Sessions, seconds, sessions a second, peak memory of all slots together."""
    print(f"{'sessions':>12}{'s':>9}{'a second':>12}{'MB':>7}")
    for number in numbers:
        with scratch_stack() as environment:
            _side(environment, "occupancy_sides", "fill", number, ROOMS)
            taken = sorted(
                (_side(environment, "occupancy_sides", "ours", ROOMS) for _ in range(3)),
                key=lambda each: float(each["seconds"]),
            )
        seconds, peak = taken[1]["seconds"], max(each["peak_mb"] for each in taken)
        print(f"{number:>12,}{seconds:>9.2f}{number / seconds:>12,.0f}{peak:>7.0f}", flush=True)


def plan(spaces: int, windows: int) -> None:
    """Seconds, peak memory, rows, and what a row takes in the table and in each of its indexes."""
    with scratch_stack() as environment:
        figures = _side(environment, "scaling", "planning", spaces, windows)
    for name, figure in figures.items():
        print(f"{name:<34}{figure:>16,.1f}")


def planning(spaces: int, windows: int) -> None:
    """The same in the database of the environment, whose chunks are deleted."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    _rows("TRUNCATE occupancy_space_chunks")
    parents = _tree(spaces)
    rooms = [space for space in parents if space >= ROOM]
    before = _peak_mb()
    begun = time.perf_counter()
    longest = _write(rooms, parents, windows)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    counted = _rows(_PROGRESS)
    figures = {
        "chunks": _rows("SELECT count(*) FROM occupancy_space_chunks")[0][0],
        "seconds": seconds,
        "longest transaction, seconds": longest,
        "peak MB of the process": _peak_mb(),
        "of it before the first block": before,
        "one query for progress, seconds": time.perf_counter() - begun,
        "spaces in it": len(counted),
        "table MB": _rows("SELECT pg_table_size('occupancy_space_chunks') / 1e6")[0][0],
    }
    for index, size in _rows(_INDEX_SIZES):
        figures[f"{index} MB"] = size
    print(json.dumps(figures, default=float))


_PROGRESS = """
    SELECT space_id, count(*), count(*) FILTER (WHERE status = 'COMPLETED'),
           count(*) FILTER (WHERE status = 'FAILED') FROM occupancy_space_chunks GROUP BY space_id
"""
_INDEX_SIZES = """
    SELECT indexrelname, pg_relation_size(indexrelid) / 1e6 FROM pg_stat_user_indexes
     WHERE relname = 'occupancy_space_chunks' ORDER BY 2 DESC
"""
BUILDING, FLOOR, ROOM = 10, 10_000, 1_000_000


def _tree(spaces: int) -> dict[int, int | None]:
    """That many spaces: a campus, its buildings, their floors, and rooms on them."""
    parents: dict[int, int | None] = {1: None}
    rooms = spaces * ROOMS_PER_FLOOR // (ROOMS_PER_FLOOR + 1)
    for room in range(rooms):
        floor = room // ROOMS_PER_FLOOR
        building = floor // FLOORS_PER_BUILDING
        parents |= {BUILDING + building: 1, FLOOR + floor: BUILDING + building}
        parents[ROOM + room] = FLOOR + floor
    return parents


def _write(rooms: list[int], parents: dict[int, int | None], windows: int) -> float:
    """As a planning run, block by block, with somebody everywhere; seconds of the longest."""
    from occupancy import chunks, planning
    from tippers.partitions import aligned_windows

    width = timedelta(days=30)
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    all_windows = aligned_windows(begin, begin + width * (windows - 1), width=width)[:windows]
    longest = 0.0
    for block in planning.blocks(all_windows, spaces=len(parents)):
        begun = time.perf_counter()
        chunks.plan(
            planning.planned(_everywhere(rooms, len(block)), parents=parents),
            parents=parents,
            windows=block,
            interval_seconds=3600,
            dataset_id=1,
        )
        longest = max(longest, time.perf_counter() - begun)
    return longest


def _everywhere(rooms: list[int], windows: int) -> Any:
    """As `sessions.counted`: a session in each room and window."""
    import numpy as np
    import pyarrow as pa

    places = len(rooms) * windows
    return pa.table(
        {
            "space_id": np.repeat(np.array(rooms, dtype=np.int32), windows),
            "window": np.tile(np.arange(windows, dtype=np.int32), len(rooms)),
            "sessions": np.ones(places, dtype=np.int64),
            "fingerprint": pa.array([f"{0:032x}"] * places),
        }
    )


def _rows(sql: str) -> list[tuple[Any, ...]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)
        found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    what, *numbers = sys.argv[1], *map(int, sys.argv[2:])
    match what:
        case "sessions":
            sessions(*numbers)
        case "plan":
            plan(*numbers)
        case "planning":
            planning(*numbers)


if __name__ == "__main__":
    main()
