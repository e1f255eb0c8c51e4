"""Background jobs per second: a durable claim, one result row, and the end, with two workers.

The peer is Dagster's daemon at the 37 runs a minute that were measured for the same two cores
(QueuedRunCoordinator, at most 4 at once), unless somebody brings a newer figure.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.report import Row, arguments, publish  # noqa: E402 - after the path
from benchmarks.stack import scratch_stack  # noqa: E402 - as above

DAGSTER_RUNS_PER_SECOND = 37 / 60
WORKERS = 2


def main() -> None:
    options = arguments("Background jobs per second")
    count = 1_000 if options.quick else 10_000
    with scratch_stack() as environment:
        os.environ.update(environment)
        seconds = sorted(_measure(count) for _ in range(3))[1]
    peer = count / DAGSTER_RUNS_PER_SECOND
    note = f"{count} jobs, {count / seconds:.0f} a second with {WORKERS} workers"
    publish([Row("runs_per_second", seconds, peer, note=note)], options.json)


def _measure(count: int) -> float:
    """Seconds from the first hint to the last run's end, launched and waiting before."""
    _django_setup()
    from django.db import connection
    from django.db.models import Max, Min

    from benchmarks import run_jobs
    from tippers.runs.engine import send_hint, workers_alive
    from tippers.runs.models import Heartbeat, Run, RunLog

    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS benchmark_result")
        cursor.execute("CREATE TABLE benchmark_result (number int PRIMARY KEY)")
    RunLog.objects.all().delete()
    Run.objects.all().delete()
    Heartbeat.objects.all().delete()
    job = run_jobs.write_one_row.__name__
    Run.objects.bulk_create(
        Run(job=job, queue="short", key=f"benchmark:{number}", args={"number": number})
        for number in range(count)
    )
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.run_jobs", "-q", "worker"]
    command += ["-Q", "short", "-c", str(WORKERS), "--without-gossip", "--without-mingle"]
    log = Path(os.environ["TIPPERS_HOME"]) / "logs" / "worker.log"
    with log.open("ab") as file:
        worker = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        while workers_alive() < WORKERS:
            time.sleep(0.05)
        for _ in range(WORKERS):
            send_hint("short")
        while Run.objects.exclude(status="SUCCESS").exists():
            time.sleep(0.1)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT number) FROM benchmark_result")
        assert cursor.fetchone() == (count, count), "every job has one effect"
    times = Run.objects.aggregate(first=Min("started_at"), last=Max("ended_at"))
    return float((times["last"] - times["first"]).total_seconds())


def _django_setup() -> None:
    import django
    from django.apps import apps
    from django.core.management import call_command

    if not apps.ready:
        django.setup()
        call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main()
