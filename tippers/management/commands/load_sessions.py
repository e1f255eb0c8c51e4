"""Fill the tippers database from files: `manage.py load_sessions --spaces ... --sessions ...`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from occupancy import datasets
from occupancy.models import OccupancyDataset, OccupancySpaceChunk, Status
from tippers.errors import CannotBeDone
from tippers.sessions import Loaded, load


class Command(BaseCommand):
    """See the module and `tippers.sessions`."""

    help = "Load spaces and Wi-Fi sessions from CSV or Parquet: every row, or none and why."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--spaces",
            type=Path,
            required=True,
            help="CSV or Parquet with space_id, parent_space_id and, if known, space_name and "
            "building_room",
        )
        parser.add_argument(
            "--sessions",
            type=Path,
            required=True,
            help="CSV or Parquet with mac_address, space_id, start_time, end_time and, if known, "
            "sensor_id; times with an offset, or in UTC; an empty end_time is an open session",
        )
        parser.add_argument(
            "--replace", action="store_true", help="empty both tables first, in one transaction"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.TIPPERS_DB_URL:
            raise CommandError(
                "There is no database to load into: start the stack once (make serve), or set "
                "TIPPERS_DB_URL."
            )
        try:
            load_with_bar(
                settings.TIPPERS_DB_URL,
                spaces=options["spaces"],
                sessions=options["sessions"],
                replace=options["replace"],
            )
        except CannotBeDone as error:
            raise CommandError(error.detail) from error


def forget_occupancy() -> None:
    """What was computed from the sessions that are gone goes too; every dataset is computed anew.

    A chunk is trusted once its window is long past, so it would not notice by itself.
    """
    started = (
        settings.DATABASE_URL and "occupancy_datasets" in connection.introspection.table_names()
    )
    if not started:
        return  # sessions are loaded before the product's first start
    with transaction.atomic():
        OccupancySpaceChunk.objects.all().delete()
        computed = OccupancyDataset.objects.exclude(chunks_start=None)
        computed.update(status=Status.FAILED, error_message="The sessions were replaced.")
        for dataset in computed:
            datasets.retry(dataset, created_by=AnonymousUser())


def load_with_bar(
    url: str, *, spaces: Path, sessions: Path, replace: bool, origin: str = ""
) -> Loaded:
    """`tippers.sessions.load`, with a progress bar and a line that says what is there now."""

    console = Console(highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(f"Loading {sessions.name}", total=None)
        loaded = load(
            url,
            spaces=spaces,
            sessions=sessions,
            replace=replace,
            origin=origin,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if replace:
        forget_occupancy()
    still_open = f", {loaded.open_sessions:,} of them still open" if loaded.open_sessions else ""
    console.print(
        f"Loaded {loaded.spaces:,} space{'s' * (loaded.spaces != 1)} and "
        f"{loaded.sessions:,} session{'s' * (loaded.sessions != 1)}{still_open}."
    )
    return loaded
