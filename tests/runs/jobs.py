"""Jobs that misbehave in every way that a test asks for; declared only when tests run."""

import time
from datetime import timedelta
from pathlib import Path

from tippers.errors import CannotBeDone
from tippers.runs.engine import RunHandle, job

MINUTE = timedelta(minutes=1)


@job(queue="short", timeout=MINUTE)
def note_effect(run: RunHandle, *, path: str, seconds: float = 0.0) -> None:
    """Append a line on every start, and another inside the fence."""
    with Path(path).open("a") as file:
        file.write(f"start {run.attempt}\n")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run.progress(1, 2, "halves", "waiting")
        time.sleep(0.05)
    with run.finishing(), Path(path).open("a") as file:
        file.write(f"effect {run.attempt}\n")


@job(queue="short", timeout=MINUTE)
def spin(run: RunHandle, *, path: str) -> None:
    """Never look at the run again: only the end of the process stops it."""
    Path(path).write_text(run.run_id.hex)
    while True:
        pass


@job(queue="short", timeout=timedelta(seconds=3))
def overrun(run: RunHandle) -> None:
    """Work past the time limit, with checkpoints."""
    while True:
        run.check()
        time.sleep(0.05)


@job(queue="short", timeout=MINUTE)
def refuse(run: RunHandle, *, sentence: str) -> None:
    """Say that it cannot be done."""
    raise CannotBeDone(sentence)


@job(queue="short", timeout=MINUTE)
def break_down(run: RunHandle, *, until_attempt: int) -> None:
    """Fail unexpectedly until a given attempt."""
    run.log("about to divide")
    if run.attempt < until_attempt:
        raise ZeroDivisionError("planned")
