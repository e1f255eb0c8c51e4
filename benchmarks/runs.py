"""Background jobs per second: a durable claim, one result row, and the end, with two workers.

The peer is Dagster's daemon at the 37 runs a minute that were measured for the same two cores
(QueuedRunCoordinator, at most 4 at once), unless somebody brings a newer figure.
"""

import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.report import Row, arguments, publish  # noqa: E402 - after the path
from tippers.embedded.broker import Broker  # noqa: E402 - as above
from tippers.embedded.home import Home  # noqa: E402 - as above
from tippers.embedded.postgres import Cluster  # noqa: E402 - as above

DAGSTER_RUNS_PER_SECOND = 37 / 60
WORKERS = 2


def main() -> None:
    options = arguments("Background jobs per second")
    count = 1_000 if options.quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        home.prepare()
        cluster = Cluster(home)
        cluster.start()
        broker = Broker(home)
        child = broker.prepare()
        with (home.logs / "broker.log").open("wb") as log:
            server = child.spawn(log.fileno())
        try:
            broker.wait_until_ready(lambda: time.sleep(0.02))
            seconds = sorted(_measure(home, cluster, broker, count) for _ in range(3))[1]
        finally:
            server.terminate()
            server.wait()
            cluster.stop()
            cluster.remove()
    peer = count / DAGSTER_RUNS_PER_SECOND
    note = f"{count} jobs, {count / seconds:.0f} a second with {WORKERS} workers"
    publish([Row("runs_per_second", seconds, peer, note=note)], options.json)


def _measure(home: Home, cluster: Cluster, broker: Broker, count: int) -> float:
    """Seconds from the first hint to the last run's end, launched and waiting before."""
    environment = os.environ | {
        "DATABASE_URL": cluster.superuser_url,
        "REDIS_URL": broker.url,
        "SECRET_KEY": "benchmark",
        "TIPPERS_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(32)).decode(),
        "TIPPERS_HOME": str(home.path),
        "DJANGO_SETTINGS_MODULE": "tippers.settings",
        "PYTHONPATH": str(ROOT),
    }
    os.environ.update(environment)
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
    with (home.logs / "worker.log").open("ab") as log:
        worker = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
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
