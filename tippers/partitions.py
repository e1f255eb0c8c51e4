"""Windows of time and ranges of numbers, half-open, and what a part of a table is called.

Times are in UTC. Pure; knows no clock.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Window:
    """The instants from `start` up to, but not including, `end`; both in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            instant: datetime = getattr(self, name)
            if instant.tzinfo is None:
                raise ValueError(f"a window's {name} must say its time zone: {instant}")
            object.__setattr__(self, name, instant.astimezone(UTC))
        if self.end <= self.start:
            raise ValueError(f"a window must end after it starts: {self.start} to {self.end}")

    @property
    def width(self) -> timedelta:
        """How long the window is."""
        return self.end - self.start


def aligned_windows(start: datetime, end: datetime, *, width: timedelta) -> list[Window]:
    """The windows of `width` that together cover [start, end), in order.

    The first begins at the greatest multiple of `width` since 1970-01-01 UTC that is not after
    `start`. Windows are never clipped, so two ranges that touch the same window share it. Empty
    when `end` is not after `start`. Raises ValueError when a time has no zone or `width` is not
    positive, OverflowError when a window would leave the calendar (years 1 to 9999).
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("the range must say its time zone")
    if width <= timedelta():
        raise ValueError(f"the width of a window must be positive, not {width}")
    if end <= start:
        return []
    begin = start - (start - EPOCH) % width
    windows = []
    while begin < end:
        windows.append(Window(begin, begin + width))
        begin += width
    return windows


GRANULARITIES = ("hourly", "daily", "weekly", "monthly")


def calendar_window(instant: datetime, granularity: str) -> Window:
    """The hour, day, week or month in UTC that `instant` lies in; weeks begin on Monday.

    Raises ValueError when `instant` has no zone, OverflowError when the window would leave the
    calendar (years 1 to 9999).
    """
    if instant.tzinfo is None:
        raise ValueError("the instant must say its time zone")
    hour = instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match granularity:
        case "hourly":
            return Window(hour, hour + timedelta(hours=1))
        case "daily":
            return Window(day, day + timedelta(days=1))
        case "weekly":
            monday = day - timedelta(days=day.weekday())
            return Window(monday, monday + timedelta(weeks=1))
        case "monthly":
            first = day.replace(day=1)
            return Window(first, (first + timedelta(days=31)).replace(day=1))
    raise ValueError(f"{granularity} is not one of {', '.join(GRANULARITIES)}")


def window_key(window: Window, granularity: str) -> str:
    """The name of a calendar window: 2024-02-29T05, 2024-02-29, 2024-W09 (ISO), 2024-02."""
    start = window.start
    year, week, _ = start.isocalendar()
    return {
        "hourly": start.isoformat(timespec="hours").removesuffix("+00:00"),
        "daily": start.date().isoformat(),
        "weekly": f"{year:04}-W{week:02}",
        "monthly": start.date().isoformat()[:7],
    }[granularity]


def range_key(start: int, size: int) -> str:
    """The name of the whole numbers from `start` up to, but not including, `start + size`."""
    return f"{start}..{start + size - 1}"


NULL_KEY = "__null__"
LONGEST_KEY = 255


def category_key(value: str) -> str:
    """The name of the rows with this value: the value itself wherever that can stand in a URL.

    Different for different values, and never `NULL_KEY`, the name of the rows without one.
    """
    if not value:
        return "__empty__"
    # A client drops the segments . and .. from a path before it sends it.
    if value.startswith("__") or value in {".", ".."}:
        value = f"__{value}"
    if len(value) > LONGEST_KEY:
        digest = hashlib.sha256(value.encode()).hexdigest()
        return f"{value[: LONGEST_KEY - len(digest) - 1]}~{digest}"
    return value
