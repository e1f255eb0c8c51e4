"""A watch that remembers what it was told and can be asked to stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
        for stop in self.stops:
            stop()
