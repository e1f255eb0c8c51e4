"""Windows cover a range, share their edges between ranges, and never depend on a zone or clock."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tippers.partitions import Window, aligned_windows

MONTH = timedelta(days=30)


def test_windows_begin_at_multiples_of_their_width_since_the_epoch() -> None:
    windows = aligned_windows(
        datetime(2024, 9, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC), width=MONTH
    )
    # 19,950 and 20,070 days after the epoch, counted by hand: 665 and 669 times 30 days.
    assert windows[0].start == datetime(2024, 8, 15, tzinfo=UTC)
    assert windows[-1].end == datetime(2024, 12, 13, tzinfo=UTC)
    assert len(windows) == 4


def test_an_end_on_an_edge_does_not_open_the_next_window() -> None:
    start = datetime(1970, 1, 31, tzinfo=UTC)
    assert aligned_windows(start, start + MONTH, width=MONTH) == [Window(start, start + MONTH)]


def test_a_range_before_the_epoch_is_floored_too() -> None:
    (window,) = aligned_windows(
        datetime(1969, 12, 31, 23, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 30, tzinfo=UTC),
        width=timedelta(days=1),
    )
    assert window.start == datetime(1969, 12, 31, tzinfo=UTC)


def test_an_empty_range_has_no_windows() -> None:
    instant = datetime(2024, 1, 1, tzinfo=UTC)
    assert aligned_windows(instant, instant, width=MONTH) == []


def test_the_zone_in_which_a_range_is_written_does_not_matter() -> None:
    seoul = timezone(timedelta(hours=9))
    start, end = datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC)
    same = aligned_windows(start.astimezone(seoul), end.astimezone(seoul), width=MONTH)
    assert same == aligned_windows(start, end, width=MONTH)
    assert {window.start.tzinfo for window in same} == {UTC}


@pytest.mark.parametrize("width", [timedelta(), timedelta(days=-1)])
def test_a_width_that_is_not_positive_is_refused(width: timedelta) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="width"):
        aligned_windows(start, start + MONTH, width=width)


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2024, 1, 1)  # noqa: DTZ001 - the point of the test
    with pytest.raises(ValueError, match="zone"):
        Window(naive, naive + MONTH)
    with pytest.raises(ValueError, match="zone"):
        aligned_windows(naive, naive + MONTH, width=MONTH)


def test_a_window_ends_after_it_starts() -> None:
    instant = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="end after"):
        Window(instant, instant)


instants = st.datetimes(
    min_value=datetime(1900, 1, 1),  # noqa: DTZ001 - Hypothesis takes naive bounds and adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)


@given(instants, st.timedeltas(timedelta(seconds=1), timedelta(days=900)), st.integers(1, 366))
def test_windows_are_adjacent_and_cover_the_range(
    start: datetime, length: timedelta, days: int
) -> None:
    width = timedelta(days=days)
    windows = aligned_windows(start, start + length, width=width)
    assert windows[0].start <= start < windows[0].end
    assert windows[-1].start < start + length <= windows[-1].end
    for window in windows:
        assert window.width == width
        assert window.start.timestamp() % width.total_seconds() == 0
    assert all(one.end == two.start for one, two in pairwise(windows))
