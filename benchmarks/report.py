"""What every benchmark prints and writes: a table, and with `--json PATH` the same as JSON.

A row is `{name: {"ours_s", "peer_s", "ratio", "ours_peak_mb", "peer_peak_mb"}}`; the ratio is
peer / ours, so larger is better, and null stands where a figure does not apply.
"""

import argparse
import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One comparison; seconds and megabytes."""

    name: str
    ours_s: float
    peer_s: float | None = None
    ours_peak_mb: float | None = None
    peer_peak_mb: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.peer_s is None else self.peer_s / self.ours_s


def arguments(description: str, groups: Iterable[str] = ()) -> argparse.Namespace:
    """`--quick` runs a tenth of the size; `--json PATH` writes the figures; `--only GROUP`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    if groups:
        parser.add_argument("--only", choices=sorted(groups), help="run this group alone")
    return parser.parse_args()


def publish(rows: list[Row], path: Path | None) -> None:
    """Print the table; write the JSON when asked."""
    print(
        f"\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}"
    )
    print(f"{'name':<24}{'ours s':>10}{'peer s':>12}{'ratio':>10}{'ours MB':>10}{'peer MB':>10}")
    for row in rows:
        figures = (row.ours_s, row.peer_s, row.ratio, row.ours_peak_mb, row.peer_peak_mb)
        cells = [f"{'-' if value is None else format(value, '.2f'):>10}" for value in figures]
        print(f"{row.name:<24}{cells[0]}{cells[1]:>12}{''.join(cells[2:])}  {row.note}")
    if path is not None:
        path.write_text(json.dumps({row.name: _figures(row) for row in rows}, indent=2) + "\n")


def _figures(row: Row) -> dict[str, Any]:
    figures = asdict(row) | {"ratio": row.ratio}
    return {key: value for key, value in figures.items() if key not in ("name", "note")}
