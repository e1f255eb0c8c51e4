"""The periodic work of the project itself."""

import logging
from collections.abc import Iterable
from datetime import timedelta

from tippers import storage
from tippers.runs.engine import periodic

log = logging.getLogger(__name__)


@storage.owner("health/")
def probes() -> Iterable[str]:
    """What /health/ready writes to see whether it can is deleted at once, unless it dies then."""
    return ()


@periodic(every=timedelta(hours=6), name="storage.sweep")
def sweep_storage() -> None:
    """Remove stored objects that no row has pointed to for a day."""
    if removed := storage.sweep(older_than=timedelta(days=1)):
        log.info("%s orphaned objects removed from storage", removed)
