"""The side thread of a worker process: lease, progress, log, cancellation, heartbeat.

One thread per process, with a database connection of its own. It starts with the process (Celery's
prefork children; the parent must not touch the database, its children would share the socket).
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from celery import current_app
from celery.signals import worker_process_init
from django.db import DatabaseError, connections

from tippers.runs import claims, engine
from tippers.runs.engine import RunHandle

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
HEARTBEAT_SECONDS = 10.0
# After a stop the work has this long to end by itself; then its process ends. With the tick it
# keeps the promise that a cancelled run is gone within five seconds.
GRACE_SECONDS = 2.0
STOPPING_TICK_SECONDS = 0.2


class Pulse:
    """Follows the one run that this process performs."""

    def __init__(self, queues: str) -> None:
        self._queues = queues
        self._changed = threading.Condition()
        self._handle: RunHandle | None = None
        self._timeout = timedelta()
        self._started = 0.0
        self._renewed = 0.0
        self._stopped_at: float | None = None
        self._last_heartbeat = -HEARTBEAT_SECONDS
        threading.Thread(target=self._beat_forever, name="pulse", daemon=True).start()

    @contextmanager
    def following(self, handle: RunHandle, timeout: timedelta) -> Iterator[None]:
        """While the block runs, the run's lease is kept and its stop is noticed."""
        with self._changed:
            self._handle = handle
            self._timeout = timeout
            self._started = self._renewed = time.monotonic()
            self._stopped_at = None
        try:
            yield
        finally:
            with self._changed:
                self._handle = None
                self._stopped_at = None

    def _beat_forever(self) -> None:
        while True:
            try:
                self._tick(time.monotonic())
            except Exception:  # without this thread every later run of the process would be lost
                # The next tick connects anew; a lease that cannot be renewed in time is lost.
                log.warning("the side thread stumbled", exc_info=True)
                connections.close_all()
            time.sleep(TICK_SECONDS if self._stopped_at is None else STOPPING_TICK_SECONDS)

    def _tick(self, now: float) -> None:
        with self._changed:
            handle = self._handle
        if handle is not None:
            self._follow(handle, now)
        if now - self._last_heartbeat >= HEARTBEAT_SECONDS:
            claims.record_heartbeat(engine.process_name(), "worker", self._queues)
            self._last_heartbeat = now

    def _follow(self, handle: RunHandle, now: float) -> None:
        if self._stopped_at is not None:
            if now - self._stopped_at > GRACE_SECONDS:
                self._kill_own_process(handle)
            return
        if now - self._started > self._timeout.total_seconds():
            claims.fail(handle._run, f"It took longer than {self._timeout}.")  # noqa: SLF001 - the pair of classes shares the row
            self._stop(handle, "time limit", now)
            return
        try:
            renewed = handle.renew()
        except DatabaseError:
            if now - self._renewed > claims.LEASE.total_seconds():
                self._stop(handle, "the lease could not be renewed", now)
            raise
        if renewed:
            self._renewed = now
        else:
            self._stop(handle, "cancelled, or taken over by another worker", now)

    def _stop(self, handle: RunHandle, reason: str, now: float) -> None:
        with self._changed:
            if self._handle is not handle:
                return  # it ended by itself meanwhile
            self._stopped_at = now
        log.warning("run %s stops: %s", handle.run_id, reason)
        handle.stop(reason)

    def _kill_own_process(self, handle: RunHandle) -> None:
        with self._changed:
            if self._handle is not handle:
                return
            log.error("run %s does not stop; ending its process", handle.run_id)
            os.kill(os.getpid(), signal.SIGKILL)


_pulse: Pulse | None = None


def pulse() -> Pulse:
    """This worker process's side thread."""
    if _pulse is None:
        raise RuntimeError("work() runs in worker processes only")
    return _pulse


@worker_process_init.connect  # type: ignore[untyped-decorator]  # ships no types
def _start(**_: Any) -> None:
    global _pulse  # noqa: PLW0603 - one per process, by nature
    connections.close_all()
    _pulse = Pulse(",".join(sorted(current_app.amqp.queues.consume_from)))
    engine.sweep()
