"""The spaces above: which there are, and what their rooms add up to. Pure."""

from collections.abc import Iterable, Mapping

import numpy as np

from occupancy.binning import Bins
from occupancy.tree import NO_PARENT, Ints, Tree


def places_above(
    spaces: Ints, windows: Ints, *, parents: Mapping[int, int | None]
) -> tuple[Ints, Ints]:
    """Every (space, window) above the given ones, each once; parallel arrays in and out.

    `spaces` are ids, `windows` numbers from 0; `parents` ends at the root (None). Raises
    ValueError when the parents run in a circle.
    """
    tree = Tree.of(np.unique(spaces).tolist(), parents)
    count = int(windows.max()) + 1 if len(windows) else 1
    code = tree.codes(spaces)
    found = [np.empty(0, dtype=np.int64)]
    while len(code):
        above = tree.parent[code]
        inside = above != NO_PARENT
        pairs = np.unique(above[inside] * count + windows[inside])
        code, windows = pairs // count, pairs % count
        found.append(pairs)
    pairs = np.unique(np.concatenate(found))
    return tree.ids[pairs // count], pairs % count


def added_up(parts: Iterable[Bins]) -> Bins:
    """The sum of the counts by bin; a bin that a part lacks counts 0 there."""
    parts = list(parts)
    if not parts:
        return Bins.none()
    begin, position = np.unique(np.concatenate([part.begin for part in parts]), return_inverse=True)
    count = np.zeros(len(begin), dtype=np.int64)
    np.add.at(count, position, np.concatenate([part.count for part in parts]))
    return Bins(begin, count)
