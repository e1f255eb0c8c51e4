"""The one scheduler: django-celery-beat's, held by a PostgreSQL advisory lock.

A second beat process waits for the lock instead of doubling every schedule; when the connection
that holds the lock dies, the process ends and its supervisor starts another.
"""

import logging
import time
from typing import Any

import psycopg2
from celery.schedules import schedule
from django.conf import settings
from django_celery_beat.schedulers import DatabaseScheduler

from tippers.runs import claims
from tippers.runs.engine import PERIODICS, process_name

log = logging.getLogger(__name__)

LOCK = 7_227_701  # any number that nothing else in this database locks
HEARTBEAT_SECONDS = 10.0


class SingleScheduler(DatabaseScheduler):  # type: ignore[misc]  # ships no types
    """Ticks only while it holds the lock."""

    max_interval = 5

    def setup_schedule(self) -> None:
        # Should this machine vanish, the server lets go of the lock within a minute.
        noticing = "tcp_keepalives_idle=30", "tcp_keepalives_interval=10", "tcp_keepalives_count=3"
        self._lock = psycopg2.connect(
            settings.DATABASE_URL,
            connect_timeout=5,
            options=" ".join(f"-c {each}" for each in noticing),
        )
        self._lock.autocommit = True
        with self._lock.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        self._last_heartbeat = 0.0
        super().setup_schedule()
        self.update_from_dict(
            {
                item.name: {
                    "task": "runs.periodic",
                    "schedule": schedule(item.every),
                    "kwargs": {"name": item.name},
                    "options": {"queue": "short", "expires": item.every.total_seconds()},
                }
                for item in PERIODICS.values()
            }
        )

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        now = time.monotonic()
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS or not self._last_heartbeat:
            try:
                with self._lock.cursor() as cursor:
                    cursor.execute("SELECT 1")
            except psycopg2.Error as error:
                raise SystemExit("beat lost its lock's connection") from error
            claims.record_heartbeat(process_name(), "beat")
            self._last_heartbeat = now
        return super().tick(*args, **kwargs)
