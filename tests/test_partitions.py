"""Windows cover a range, share their edges between ranges, and never depend on a zone or clock."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tippers.partitions import (
    GRANULARITIES,
    NULL_KEY,
    Window,
    aligned_windows,
    calendar_window,
    category_key,
    range_key,
    window_key,
)

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


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("granularity", "text", "start", "end", "key"),
    [
        ("hourly", "2024-02-29 05:59:59.999999", "2024-02-29 05:00", "2024-02-29 06:00",
         "2024-02-29T05"),
        ("daily", "2024-02-29 23:59:59", "2024-02-29", "2024-03-01", "2024-02-29"),
        ("daily", "2024-03-01 00:00", "2024-03-01", "2024-03-02", "2024-03-01"),
        ("weekly", "2024-03-03 23:59", "2024-02-26", "2024-03-04", "2024-W09"),
        ("weekly", "2024-12-30 00:00", "2024-12-30", "2025-01-06", "2025-W01"),
        ("weekly", "2021-01-03 12:00", "2020-12-28", "2021-01-04", "2020-W53"),
        ("monthly", "2024-02-29 12:00", "2024-02-01", "2024-03-01", "2024-02"),
        ("monthly", "2023-02-28 12:00", "2023-02-01", "2023-03-01", "2023-02"),
        ("monthly", "2024-12-31 23:59", "2024-12-01", "2025-01-01", "2024-12"),
        ("monthly", "0987-04-30 00:00", "0987-04-01", "0987-05-01", "0987-04"),
    ],
)  # fmt: skip
def test_a_calendar_window_is_the_hour_day_week_or_month_of_an_instant(
    granularity: str, text: str, start: str, end: str, key: str
) -> None:
    window = calendar_window(instant(text), granularity)
    assert window == Window(instant(start), instant(end))
    assert window_key(window, granularity) == key


def test_a_calendar_window_is_one_of_utc() -> None:
    far_east = timezone(timedelta(hours=9))
    window = calendar_window(datetime(2024, 3, 1, 8, 59, tzinfo=far_east), "monthly")
    assert window_key(window, "monthly") == "2024-02"
    with pytest.raises(ValueError, match="zone"):
        calendar_window(datetime(2024, 3, 1), "daily")  # noqa: DTZ001 - what is refused
    with pytest.raises(OverflowError):
        calendar_window(datetime(9999, 12, 31, tzinfo=UTC), "monthly")


@given(
    instants=st.lists(st.datetimes(timezones=st.just(UTC), max_value=datetime(9000, 1, 1))),  # noqa: DTZ001 - hypothesis adds the zone
    granularity=st.sampled_from(GRANULARITIES),
)
def test_calendar_windows_hold_their_instants_and_never_overlap(
    instants: list[datetime], granularity: str
) -> None:
    windows = sorted({calendar_window(each, granularity) for each in instants})
    assert all(earlier.end <= later.start for earlier, later in pairwise(windows))
    assert len({window_key(window, granularity) for window in windows}) == len(windows)
    for each in instants:
        window = calendar_window(each, granularity)
        assert window.start <= each < window.end


def test_a_range_is_named_by_its_first_and_last_number() -> None:
    assert [range_key(start, 100) for start in (-100, 0, 100)] == ["-100..-1", "0..99", "100..199"]


AWKWARD = ["", "__empty__", "____empty__", "__null__", "____null__", "_", ".", "..", "__.", "a/b",
           "x" * 255, "x" * 256, "x" * 257, "__" + "x" * 254]  # fmt: skip


@given(values=st.lists(st.one_of(st.text(), st.sampled_from(AWKWARD)), unique=True))
def test_a_category_has_a_name_of_its_own_that_a_url_can_hold(values: list[str]) -> None:
    keys = [category_key(value) for value in values]
    assert len({*keys, NULL_KEY}) == len(values) + 1
    assert all(0 < len(key) <= 255 and key not in {".", ".."} for key in keys)


def test_a_category_is_called_what_it_is() -> None:
    assert category_key("Langson Library") == "Langson Library"
