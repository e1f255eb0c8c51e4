"""Windows of time: half-open, in UTC, aligned to the epoch. Pure; knows no clock."""

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
