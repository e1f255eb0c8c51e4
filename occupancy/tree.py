"""Spaces and what lies above them, as arrays. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NO_PARENT = -1


@dataclass(frozen=True)
class Tree:
    """Spaces as codes 0..n-1, each with the code of its parent; whatever lies deeper comes first.

    Holds the spaces asked for and all that lie above them. `parent` has NO_PARENT for a root.
    `levels` are the ranges of codes of equal depth, from the deepest up to the roots.
    """

    ids: Ints
    parent: Ints
    levels: tuple[range, ...]

    @classmethod
    def of(cls, space_ids: Iterable[int], parents: Mapping[int, int | None]) -> "Tree":
        """The tree over `space_ids`; one that `parents` does not name, or names with None, is a root.

        Raises ValueError when the parents run in a circle.
        """
        known = set(space_ids)
        for space_id in list(known):
            above = parents.get(space_id)
            while above is not None and above not in known:
                known.add(above)
                above = parents.get(above)
        ids = sorted(known)
        number = {space_id: position for position, space_id in enumerate(ids)}
        above_each = (parents.get(space_id) for space_id in ids)
        parent = [NO_PARENT if above is None else number[above] for above in above_each]
        return cls._by_depth(np.array(ids, dtype=np.int64), np.array(parent, dtype=np.int64))

    @classmethod
    def _by_depth(cls, ids: Ints, parent: Ints) -> "Tree":
        _refuse_circles(parent)
        depth = np.zeros(len(ids), dtype=np.int64)
        above = parent
        while (above != NO_PARENT).any():
            depth += above != NO_PARENT
            above = np.append(parent, NO_PARENT)[above]
        order = np.argsort(-depth, kind="stable")
        code = np.empty(len(ids) + 1, dtype=np.int64)
        code[order] = np.arange(len(ids))
        code[NO_PARENT] = NO_PARENT
        ends = np.cumsum(np.bincount(depth)[::-1]).tolist()
        levels = tuple(range(low, high) for low, high in pairwise([0, *ends]))
        return cls(ids[order], code[parent[order]], levels)

    @cached_property
    def inner(self) -> Ints:
        """The codes of the spaces that have others below them, ascending."""
        return np.unique(self.parent[self.parent != NO_PARENT])

    def codes(self, space_ids: Ints) -> Ints:
        """The spaces' codes. Raises ValueError when the tree does not hold one."""
        order = np.argsort(self.ids)
        known = np.append(self.ids[order], NO_PARENT)
        place = np.searchsorted(known[:-1], space_ids)
        if (known[place] != space_ids).any():
            raise ValueError(f"no such space: {space_ids[known[place] != space_ids][0]}")
        return order[place].astype(np.int64)


def _refuse_circles(parent: Ints) -> None:
    """Twice as far up with each step: whatever is not above the root by then runs in a circle."""
    jump = np.append(parent, NO_PARENT)  # index -1 is the place above every root
    for _ in range(len(parent).bit_length() + 1):
        jump = jump[jump]
    if (jump != NO_PARENT).any():
        raise ValueError("the spaces' parents run in a circle")
