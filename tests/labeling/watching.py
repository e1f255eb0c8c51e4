"""A watch that remembers what it was told and can be asked to stop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class Stop(Exception):
    """What a stopped watch raises."""


class Watching:
    """Stands where a run stands, for computations that need no database."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int | None, str, str]] = []
        self.stops: list[Callable[[], None]] = []
        self.stopped = False

    def progress(
        self, done: int, total: int | None = None, unit: str = "", message: str = ""
    ) -> None:
        self.said.append((done, total, unit, message))
        self.check()

    def check(self) -> None:
        if self.stopped:
            raise Stop

    @contextmanager
    def on_stop(self, stop: Callable[[], None]) -> Iterator[None]:
        self.stops.append(stop)
        try:
            yield
        finally:
            self.stops.remove(stop)
        self.check()

    def stop(self) -> None:
        """What a cancelled run does, from its side thread."""
        self.stopped = True
        for stop in list(self.stops):  # which shortens as they stop
            stop()


def wait_until(what: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.02)
    return what()
