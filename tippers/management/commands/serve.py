"""Run the whole stack on this machine: `make serve`."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from tippers.embedded import supervisor


class Command(BaseCommand):
    """See the module; the supervisor itself needs neither Django nor the database."""

    help = "Start PostgreSQL, broker, web server, workers and scheduler, and keep them running."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--quiet", action="store_true", help="leave what the parts say to the log files"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(supervisor.run(quiet=options["quiet"]))
