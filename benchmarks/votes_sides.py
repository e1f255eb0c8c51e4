"""The sides of the benchmark `votes`, each a process of its own: `votes_sides SIDE ROWS`.

All call the same ten functions on the same devices. A side prints one JSON object on its last line:
seconds, CPU seconds, and a digest of the votes on the first tenth, which must be the same.
"""

import hashlib
import json
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

SEED = 4
BLOCK = 10_000  # rows drawn at a time
CV_IDS = (1, 2, 3)
# What an analyst would write about devices: one to three of eight columns each.
FUNCTIONS = {
    "many_spaces": "return 2 if row['spaces'] > 12 else -1",
    "one_space_long": "return 1 if row['spaces'] == 1 and row['hours'] > 300 else -1",
    "at_night": "return 1 if row['night_share'] > 0.4 else 2 if row['night_share'] < 0.02 else -1",
    "short_stays": "return 3 if row['stays'] > 40 and row['hours'] / row['stays'] < 0.5 else -1",
    "vendor_list": "return 1 if row['vendor'] in {'Zebra', 'Axis', 'Honeywell'} else -1",
    "vendor_prefix": "return 3 if row['vendor'].startswith('App') else -1",
    "host_pattern": "return 2 if re.search(r'lap|book', row['host']) else -1",
    "host_words": (
        "name = row['host'].lower()\n"
        "    return 1 if 'printer' in name else 3 if name.endswith('phone') else -1"
    ),
    "came_early": "return 2 if row['first_seen'].hour < 8 and row['spaces'] > 3 else -1",
    "many_signs": (
        "score = 0\n"
        "    if row['stays'] > 50:\n"
        "        score += 1\n"
        "    if row['spaces'] > 5:\n"
        "        score += 1\n"
        "    if row['weekend'] == 0:\n"
        "        score += 1\n"
        "    return 2 if score > 2 else 1 if score == 0 else -1"
    ),
}


def code_of(name: str) -> str:
    return f"import re\n\ndef labeling_function(row):\n    {FUNCTIONS[name]}\n"


def devices(rows: int) -> "pa.Table":
    """A rule's product: the same first rows whatever their number."""
    import pyarrow as pa

    parts = [_devices(start, pa) for start in range(0, rows, BLOCK)]
    return pa.concat_tables(parts).combine_chunks().slice(0, rows)


def _devices(start: int, pa: Any) -> "pa.Table":
    rows = BLOCK
    random = np.random.default_rng([SEED, start])
    number = random.integers(0, 10**6, rows)
    kinds = np.array(["laptop", "macbook", "iphone", "PRINTER", "tv", "Phone"])
    vendors = np.array(["Apple", "Intel", "Zebra", "Axis", "Samsung", "Honeywell", "Dell"])
    return pa.table(
        {
            "mac": pa.array([f"{mac:012x}" for mac in range(start, start + rows)]),
            "stays": random.integers(1, 100, rows),
            "spaces": random.integers(1, 20, rows),
            "hours": random.gamma(2.0, 80.0, rows),
            "night_share": random.random(rows),
            "weekend": random.integers(0, 9, rows),
            "vendor": vendors[random.integers(0, len(vendors), rows)],
            "host": np.char.add(
                np.char.add(number.astype(str), "-"), kinds[random.integers(0, len(kinds), rows)]
            ),
            "first_seen": pa.array(
                random.integers(1_600_000_000, 1_700_000_000, rows) * 1_000_000,
                pa.timestamp("us", tz="UTC"),
            ),
        }
    )


class Unwatched:
    """Where a run would stand."""

    def progress(
        self, done: int, total: int | None = None, unit: str = "", message: str = ""
    ) -> None:
        pass

    def check(self) -> None:
        pass

    def on_stop(self, stop: "Callable[[], None]") -> AbstractContextManager[None]:
        return nullcontext()


def ours(rows: int) -> dict[str, Any]:
    """Ours, from the index's keys and the rule's table to the label matrix."""
    from labeling.policy import judge
    from labeling.votes import Function, RuleTable, distinct_keys, label_matrix

    functions = [
        Function(
            number,
            name,
            "custom",
            {"code": code_of(name), "allowed_imports": ["re"]},
            CV_IDS,
            1,
            judge(code_of(name), allowed_imports=["re"], values={}).columns,
        )
        for number, name in enumerate(FUNCTIONS)
    ]
    table = devices(rows)
    rules = {1: RuleTable("devices", table, "mac")}
    keys = distinct_keys(table, "mac")
    begun, used = time.perf_counter(), _cpu()
    matrix = label_matrix(keys, functions, rules, Unwatched())
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": _cpu() - used,
        "votes": _digest(matrix.votes, rows),
    }


def one_core(rows: int) -> dict[str, Any]:
    """Ours, with one core for everything."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return ours(rows)


def peer(rows: int) -> dict[str, Any]:
    """Snorkel's applier on a tenth of the rows."""
    from snorkel.labeling import LabelingFunction, PandasLFApplier

    functions = []
    for name in FUNCTIONS:
        scope: dict[str, Any] = {}
        exec(code_of(name), scope)
        functions.append(LabelingFunction(name, scope["labeling_function"]))
    frame = devices(rows // 10).to_pandas()
    begun, used = time.perf_counter(), _cpu()
    matrix = PandasLFApplier(functions).apply(frame, progress_bar=False)
    return {
        "seconds": (time.perf_counter() - begun) * 10,
        "cpu_seconds": (_cpu() - used) * 10,
        "votes": _digest(matrix, rows),
    }


def _digest(matrix: Any, rows: int) -> str:
    """Of the votes on the first tenth, which both sides have."""
    tenth = np.ascontiguousarray(matrix[: rows // 10].astype(np.int32))
    return hashlib.sha256(tenth.tobytes()).hexdigest()


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def main() -> None:
    side, rows = sys.argv[1], int(sys.argv[2])
    print(json.dumps({"ours": ours, "one_core": one_core, "peer": peer}[side](rows)))


if __name__ == "__main__":
    main()
