"""Jobs that misbehave in every way that a test asks for; declared only when tests run."""

import time
from datetime import timedelta
from pathlib import Path

import psycopg2
from django.conf import settings
from django.db import connection

from tippers.errors import CannotBeDone, Unavailable
from tippers.runs.engine import RunHandle, job, launch
from tippers.runs.models import ACTIVE, Run
from tippers.runs.parents import launch_parent, parent_job

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


@job(queue="short", timeout=MINUTE)
def obey(run: RunHandle) -> None:
    """Do nothing, well."""


@parent_job
def raise_family(parent: Run) -> str | None:
    """Children by `stages`: lists of words, each stage launched when the one before has ended.

    A word is a child's name, "refuse" one that fails; "family:x" is a parent with that one child, "family:" one without any.
    While the file `breaks` exists, it refuses to go on.
    """
    if Path(parent.args.get("breaks", "/nowhere")).exists():
        raise CannotBeDone("It is broken.")
    if parent.children.filter(status__in=ACTIVE).exists():
        return None
    stage = parent.args.get("stage", 0)
    if stage < len(parent.args["stages"]):
        Run.objects.filter(run_id=parent.run_id).update(args=parent.args | {"stage": stage + 1})
        parent.args["stage"] = stage + 1
        for word in parent.args["stages"][stage]:
            kind, _, inner = word.partition(":")
            if kind == "family":
                stages = [[inner]] if inner else []
                launch_parent("raise_family", key=word, args={"stages": stages}, parent=parent)
            elif word == "refuse":
                launch("refuse", key=word, args={"sentence": "No refuse."}, parent=parent)
            else:
                launch("obey", key=word, args={}, parent=parent)
    return None


@job(queue="short", timeout=MINUTE)
def tidy_up_afterwards(run: RunHandle, *, path: str, seconds: float) -> None:
    """Go on for a while after the result is current."""
    with run.finishing():
        pass
    time.sleep(seconds)
    Path(path).write_text("tidied")


@job(queue="short", timeout=MINUTE)
def lose_the_connection(run: RunHandle) -> None:
    """The server ends our session while we compute, as a restart of it would."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    database = connection.settings_dict
    with psycopg2.connect(settings.DATABASE_URL, dbname=database["NAME"]) as other:
        other.cursor().execute("SELECT pg_terminate_backend(%s)", [pid])
    other.close()


@job(queue="short", timeout=MINUTE)
def log_what_text_cannot_hold(run: RunHandle) -> None:
    """As labeling functions do whose exceptions quote their input."""
    run.log("before\x00after")
    raise CannotBeDone("no\x00thing")


@job(queue="short", timeout=MINUTE)
def stand_on_nothing(run: RunHandle) -> None:
    """Need something that does not answer."""
    raise Unavailable("the storage does not answer")
