"""The workers of one machine: which queues each serves, in how many slots, and how it is started."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """A Celery worker; each of its slots is a process that does one run at a time."""

    name: str
    queues: str
    slots: int

    def arguments(self) -> list[str]:
        """What starts it, after the interpreter."""
        return [
            # Labeling code runs in a locked interpreter of its own whoever starts the worker.
            *("-W", "ignore:You're running the worker with superuser privileges"),
            # Without Django's checks, which would load every view; `make lint` runs them.
            *("-m", "celery", "-A", "tippers.celery", "-q", "--skip-checks"),
            *("worker", "-P", "prefork"),
            *("-n", f"{self.name}@%h", "-Q", self.queues, "-c", str(self.slots)),
            *("--without-gossip", "--without-mingle"),
        ]


def workers(long_slots: int) -> list[Worker]:
    """So many slots for long work, and for short while they are free; beside them half as many,
    at least one, for short work alone, so that it never waits behind long work.
    """
    return [
        Worker("short", "short", max(1, long_slots // 2)),
        Worker("long", "long,short", long_slots),
    ]
