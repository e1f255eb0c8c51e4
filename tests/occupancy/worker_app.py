"""The Celery application with leases short enough to wait for, and batches of a few rooms."""

from datetime import timedelta

import django

from tippers.celery import app  # noqa: F401 - what `celery -A` looks for

django.setup()

from occupancy import chunks  # noqa: E402 - models need Django set up
from tippers.runs import claims  # noqa: E402 - as above

claims.LEASE = timedelta(seconds=5)
chunks.BATCH_SESSIONS = 100
