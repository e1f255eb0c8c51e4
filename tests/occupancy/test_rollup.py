"""What lies above a room, and what its rooms add up to."""

import numpy as np
import pytest

from occupancy.binning import Bins
from occupancy.rollup import added_up, places_above

ROOM, OTHER_ROOM, LONE_ROOM, FLOOR, BUILDING = 0, 12, 13, 2, -5
PARENTS = {ROOM: FLOOR, OTHER_ROOM: FLOOR, FLOOR: BUILDING, LONE_ROOM: BUILDING}


def bins(counts: dict[int, int]) -> Bins:
    return Bins(np.array(list(counts), dtype=np.int64), np.array(list(counts.values()), np.int64))


def test_parts_add_up_by_bin() -> None:
    total = added_up([bins({0: 2, 7200: 1}), bins({3600: 5}), bins({}), bins({0: 1})])
    assert total.begin.tolist() == [0, 3600, 7200]
    assert total.count.tolist() == [3, 5, 1]


def test_nothing_adds_up_to_nothing() -> None:
    assert added_up([]).begin.tolist() == []


def above(places: list[tuple[int, int]]) -> set[tuple[int, int]]:
    spaces, windows = np.array(places, dtype=np.int64).reshape(-1, 2).T
    ids, numbers = places_above(spaces, windows, parents=PARENTS)
    return set(zip(ids.tolist(), numbers.tolist(), strict=True))


def test_each_space_above_appears_once_in_the_windows_of_its_rooms() -> None:
    assert above([(ROOM, 0), (OTHER_ROOM, 0), (OTHER_ROOM, 2), (LONE_ROOM, 1)]) == {
        (FLOOR, 0), (FLOOR, 2), (BUILDING, 0), (BUILDING, 1), (BUILDING, 2)
    }  # fmt: skip


def test_above_the_root_and_above_nothing_there_is_nothing() -> None:
    assert above([(BUILDING, 3)]) == set()
    assert above([]) == set()


def test_parents_in_a_circle_are_refused() -> None:
    place = np.array([1], dtype=np.int64)
    with pytest.raises(ValueError, match="circle"):
        places_above(place, place, parents={1: 2, 2: 1})
