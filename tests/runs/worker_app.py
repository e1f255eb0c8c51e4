"""The Celery application with the tests' jobs, and leases short enough to wait for."""

from datetime import timedelta

import django

from tippers.celery import app  # noqa: F401 - what `celery -A` looks for

django.setup()

from tests.runs import jobs  # noqa: E402, F401 - declares them; models need Django set up
from tippers.runs import claims  # noqa: E402 - as above

claims.LEASE = timedelta(seconds=5)
