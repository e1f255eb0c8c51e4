"""The worker of `runs.py`: Tippers' own Celery application with one more job."""

from datetime import timedelta

import django

from tippers.celery import app  # noqa: F401 - what `celery -A` looks for

django.setup()

from django.db import connection  # noqa: E402 - needs Django set up

from tippers.runs.engine import RunHandle, job  # noqa: E402 - needs Django set up


@job(queue="short", timeout=timedelta(minutes=1))
def write_one_row(run: RunHandle, *, number: int) -> None:
    """The smallest job that has a result."""
    with run.finishing(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO benchmark_result (number) VALUES (%s)", [number])
