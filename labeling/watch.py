"""Who is told how far long work is, and can stop it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Watch(Protocol):
    """The side of a run (`tippers.runs.engine.RunHandle`) that computations here see."""

    def progress(
        self, done: int, total: int | None = None, unit: str = "", message: str = ""
    ) -> None:
        """Publish how far the work is; raises when it is to stop."""

    def check(self) -> None:
        """Raise when the work is to stop."""

    def on_stop(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """While the block runs, `stop` ends what it waits for, from another thread."""
