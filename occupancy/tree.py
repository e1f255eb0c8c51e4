"""Spaces and what lies above them, as arrays. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NO_PARENT = -1


@dataclass(frozen=True)
class Tree:
    """Spaces as codes 0..n-1 in the order of their ids, each with the code of its parent.

    Holds the spaces asked for and all that lie above them. `parent` has NO_PARENT for a root.
    """

    ids: Ints
    parent: Ints

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
        code = {space_id: number for number, space_id in enumerate(ids)}
        above_each = (parents.get(space_id) for space_id in ids)
        codes = [NO_PARENT if above is None else code[above] for above in above_each]
        tree = cls(np.array(ids, dtype=np.int64), np.array(codes, dtype=np.int64))
        tree._refuse_circles()
        return tree

    def _refuse_circles(self) -> None:
        """Twice as far up with each step: whatever is not above the root by then runs in a circle."""
        jump = np.append(self.parent, NO_PARENT)  # index -1 is the place above every root
        for _ in range(len(self.ids).bit_length() + 1):
            jump = jump[jump]
        if (jump != NO_PARENT).any():
            raise ValueError("the spaces' parents run in a circle")

    def codes(self, space_ids: Ints) -> Ints:
        """The codes of spaces that the tree holds."""
        return np.searchsorted(self.ids, space_ids).astype(np.int64)
