"""Which sessions count in which bins, compared with a count in plain Python, one bin at a time."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occupancy import binning
from occupancy.binning import Bins, bin_sessions
from occupancy.rollup import added_up
from tippers.partitions import Window

MIDNIGHT = datetime(2024, 3, 1, tzinfo=UTC)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
ROOM, OTHER_ROOM, CORRIDOR_ROOM, FLOOR, BUILDING = 11, 12, 13, 2, 1
PARENTS = {ROOM: FLOOR, OTHER_ROOM: FLOOR, CORRIDOR_ROOM: BUILDING, FLOOR: BUILDING, BUILDING: None}


class Session(NamedTuple):
    mac: str | None
    space: int
    start: datetime | None
    end: datetime | None


def at(clock: str, day: int = 0) -> datetime:
    hours, minutes = clock.split(":")
    return MIDNIGHT + timedelta(days=day, hours=int(hours), minutes=int(minutes))


def table(sessions: Sequence[Session]) -> pa.Table:
    naive = pa.timestamp("us")
    return pa.table(
        {
            "mac_address": pa.array([one.mac for one in sessions], pa.string()),
            "space_id": pa.array([one.space for one in sessions], pa.int32()),
            "start_time": pa.array([_naive(one.start) for one in sessions], naive),
            "end_time": pa.array([_naive(one.end) for one in sessions], naive),
        }
    )


def _naive(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=None)


def by_hour(bins: Bins) -> dict[int, int]:
    hours = [(begin - int(MIDNIGHT.timestamp())) / 3600 for begin in bins.begin.tolist()]
    return dict(zip((int(hour) for hour in hours), bins.count.tolist(), strict=True))


def hourly(sessions: Sequence[Session], *, hours: int = 6, now: datetime = LATER) -> binning.Binned:
    return bin_sessions(
        [(Window(MIDNIGHT, MIDNIGHT + timedelta(hours=hours)), table(sessions))],
        PARENTS,
        interval_seconds=3600,
        now=now,
        parents=PARENTS,
    )


VECTOR = [
    Session("A", ROOM, at("0:10"), at("2:20")),
    Session("A", ROOM, at("0:20"), at("0:40")),
    Session("B", ROOM, at("1:00"), at("2:00")),
    Session("C", ROOM, at("3:30"), at("3:30")),
    Session("D", ROOM, at("4:00"), at("4:00")),
    Session("E", ROOM, at("23:30", day=-1), at("0:05")),
    Session("F", ROOM, at("5:50"), at("7:00")),
]


def test_sessions_count_in_every_bin_that_they_overlap() -> None:
    binned = hourly(VECTOR)
    assert by_hour(binned.connections[ROOM]) == {0: 2, 1: 2, 2: 1, 3: 1, 5: 1}
    assert by_hour(binned.devices[ROOM]) == {0: 2, 1: 2, 2: 1, 3: 1, 5: 1}
    assert (binned.faults, binned.open_sessions) == ({}, set())


def test_a_device_in_two_rooms_of_one_hour_is_one_device_on_the_floor() -> None:
    binned = hourly(
        [
            Session("A", ROOM, at("1:00"), at("1:20")),
            Session("A", OTHER_ROOM, at("1:20"), at("2:00")),
            Session("B", OTHER_ROOM, at("1:30"), at("2:30")),
            Session("B", CORRIDOR_ROOM, at("2:40"), at("2:50")),
        ]
    )
    assert by_hour(binned.devices[FLOOR]) == {1: 2, 2: 1}
    assert by_hour(binned.devices[BUILDING]) == {1: 2, 2: 1}
    rooms = [binned.connections[space] for space in (ROOM, OTHER_ROOM)]
    assert by_hour(added_up(rooms)) == {1: 3, 2: 1}


def test_a_space_with_its_own_sessions_and_rooms_counts_both() -> None:
    binned = hourly(
        [
            Session("A", FLOOR, at("1:00"), at("1:20")),
            Session("A", ROOM, at("1:20"), at("2:00")),
            Session("B", FLOOR, at("1:00"), at("1:20")),
        ]
    )
    assert by_hour(binned.connections[FLOOR]) == {1: 2}
    assert by_hour(binned.devices[FLOOR]) == {1: 2}
    assert by_hour(added_up([binned.connections[FLOOR], binned.connections[ROOM]])) == {1: 3}


def test_an_end_before_the_start_is_a_fault_and_not_occupancy() -> None:
    binned = hourly([Session("A", ROOM, at("3:00"), at("1:00")), *VECTOR])
    assert binned.faults == {ROOM: 1}
    assert by_hour(binned.connections[ROOM]) == {0: 2, 1: 2, 2: 1, 3: 1, 5: 1}


def test_an_open_session_lasts_until_now() -> None:
    sessions = [
        Session("A", ROOM, at("1:30"), None),
        Session("B", ROOM, at("4:00"), None),  # has not begun
    ]
    binned = hourly(sessions, now=at("3:10"))
    assert by_hour(binned.connections[ROOM]) == {1: 1, 2: 1, 3: 1}
    assert binned.open_sessions == {ROOM}
    assert binned.faults == {}


def test_a_row_without_a_device_or_a_start_says_nothing() -> None:
    binned = hourly(
        [Session(None, ROOM, at("1:00"), at("2:00")), Session("A", ROOM, None, at("2:00"))]
    )
    assert binned.connections == {}


def test_no_sessions_are_no_bins() -> None:
    assert hourly([]).devices == {}


def test_dictionary_columns_in_several_chunks_count_as_text_does() -> None:
    halves = [table(VECTOR[:3]), table(VECTOR[3:]), table([VECTOR[0]])]
    encoded = [
        half.set_column(0, "mac_address", half["mac_address"].dictionary_encode())
        for half in halves
    ]
    binned = bin_sessions(
        [(Window(MIDNIGHT, at("6:00")), pa.concat_tables(encoded))],
        PARENTS,
        interval_seconds=3600,
        now=LATER,
        parents=PARENTS,
    )
    assert by_hour(binned.connections[ROOM]) == {0: 2, 1: 2, 2: 1, 3: 1, 5: 1}


def test_only_the_spaces_asked_for_are_counted() -> None:
    sessions = [
        Session("A", ROOM, at("1:00"), at("1:20")),
        Session("B", OTHER_ROOM, at("1:00"), None),
        Session("C", OTHER_ROOM, at("2:00"), at("1:00")),
    ]
    binned = bin_sessions(
        [(Window(MIDNIGHT, at("6:00")), table(sessions))],
        {ROOM, BUILDING},
        interval_seconds=3600,
        now=at("1:30"),
        parents=PARENTS,
    )
    assert {space: by_hour(bins) for space, bins in binned.devices.items()} == {
        ROOM: {1: 1},
        BUILDING: {1: 2},
    }
    assert set(binned.connections) == {ROOM}
    assert (binned.faults, binned.open_sessions) == ({}, set())


def test_a_space_that_nobody_names_is_refused() -> None:
    with pytest.raises(ValueError, match="no such space: 99"):
        hourly([Session("A", 99, at("1:00"), at("1:20"))])


def test_parents_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        bin_sessions(
            [(Window(MIDNIGHT, at("6:00")), table(VECTOR))],
            PARENTS,
            interval_seconds=3600,
            now=LATER,
            parents={ROOM: FLOOR, FLOOR: BUILDING, BUILDING: FLOOR},
        )


def test_bins_that_do_not_fill_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="divide"):
        bin_sessions(
            [(Window(MIDNIGHT, at("5:00")), table(VECTOR))],
            PARENTS,
            interval_seconds=7200,
            now=LATER,
            parents=PARENTS,
        )


# Times on and around the edges of quarter hours, where the rules bite, and anywhere else.
minutes = st.integers(-3, 30).map(lambda quarter: quarter * 15) | st.integers(-200, 600)
moments = minutes.map(lambda minute: MIDNIGHT + timedelta(minutes=minute))
sessions_of_a_day = st.lists(
    st.builds(
        Session,
        st.sampled_from("ABCD"),
        st.sampled_from([ROOM, OTHER_ROOM, CORRIDOR_ROOM, FLOOR, BUILDING]),
        moments,
        moments | st.none(),
    ),
    max_size=30,
)


def counted_one_by_one(
    sessions: list[Session], *, start: datetime, bins: int, seconds: int, now: datetime
) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """Distinct devices by (space, bin begin): of the space itself, and of all below it."""
    own, subtree = defaultdict(set), defaultdict(set)
    for number in range(bins):
        begin = start + timedelta(seconds=number * seconds)
        end = begin + timedelta(seconds=seconds)
        for mac, space, since, until in sessions:
            assert since is not None
            gone = until or now
            if gone < since or (until is None and since >= now):
                continue
            if since < end and gone > begin:
                place = int(begin.timestamp())
                own[space, place].add(mac)
                above: int | None = space
                while above is not None:
                    subtree[above, place].add(mac)
                    above = PARENTS[above]
    return (
        {place: len(devices) for place, devices in own.items()},
        {place: len(devices) for place, devices in subtree.items()},
    )


def flat(bins_by_space: dict[int, Bins]) -> dict[tuple[int, int], int]:
    return {
        (space, begin): count
        for space, bins in bins_by_space.items()
        for begin, count in zip(bins.begin.tolist(), bins.count.tolist(), strict=True)
    }


@given(
    sessions_of_a_day,
    st.sampled_from([900, 1800, 3600, 7200]),
    moments,
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_bins_equal_a_count_one_by_one(
    sessions: list[Session], seconds: int, now: datetime, cells_at_once: int, slices: int
) -> None:
    """However the window is cut, and in however many pieces its cells are counted."""
    window = Window(MIDNIGHT, at("6:00"))
    pieces = binning.cut(window, step=timedelta(seconds=seconds), parts=slices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binning, "CELLS_AT_ONCE", cells_at_once)
        binned = bin_sessions(
            [(piece, table(sessions)) for piece in pieces],
            PARENTS,
            interval_seconds=seconds,
            now=now,
            parents=PARENTS,
        )
    own, subtree = counted_one_by_one(
        sessions, start=MIDNIGHT, bins=6 * 3600 // seconds, seconds=seconds, now=now
    )
    assert flat(binned.connections) == own
    assert flat(binned.devices) == subtree
    for bins in (*binned.connections.values(), *binned.devices.values()):
        assert bins.begin.tolist() == sorted(set(bins.begin.tolist()))
