"""Both pipelines on sample sessions, from nothing to results and a running server: `make demo`."""

import os
import sys
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tippers.demo import concept_pipeline, occupancy_pipeline, report
from tippers.demo.client import Api, DemoFailed
from tippers.demo.screen import Screen
from tippers.demo.server import Remembered, server, signed_in
from tippers.embedded.home import CannotStart, Home, Stack
from tippers.errors import CannotBeDone
from tippers.management.commands.load_sessions import load_with_bar
from tippers.sample import campus
from tippers.sample.devices import DEVICES
from tippers.sample.recipe import Recipe
from tippers.sample.visitors import VISITORS
from tippers.sessions import origin_of

ORIGIN = "the demo"  # what the sessions table remembers, so that nobody's own are replaced
DATASET = "demo occupancy"


@dataclass(frozen=True)
class Data:
    """Where the sessions are, what to ask of them, and the truth where there is one."""

    spaces: Path
    sessions: Path
    recipe: Recipe
    truth: campus.Truth | None


class Command(BaseCommand):
    """See the module. The environment sets what the options default to, for use through make."""

    help = "Load sample sessions, run both pipelines over the REST API, and show the results."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--data",
            type=Path,
            default=os.environ.get("DEMO_DATA") or None,
            help="a folder with space.csv and user_ap_trajectory.csv (or .parquet) to use instead "
            "of the simulated campus (DEMO_DATA)",
        )
        for name, default in (("devices", 2000), ("rooms", 120), ("days", 90), ("seed", 7)):
            parser.add_argument(
                f"--{name}",
                type=int,
                default=os.environ.get(f"DEMO_{name.upper()}") or default,
                help=f"of the simulated campus; {default} unless told (DEMO_{name.upper()})",
            )
        parser.add_argument(
            "--exit",
            action="store_true",
            default=os.environ.get("DEMO_EXIT", "") not in ("", "0"),
            help="end after the results, and stop what the demo started (DEMO_EXIT=1)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        screen = Screen()
        home = Home(settings.TIPPERS_HOME)
        try:
            folder = options["data"]
            data = given_data(folder) if folder else simulated_data(home, options, screen)
            screen.step("The stack: PostgreSQL, broker, web server, workers, scheduler")
            with server(home) as (stack, background):
                screen.say(f"Ready: {stack.web_url}")
                with signed_in(stack, Remembered(home).read()) as (api, how):
                    run_both(api, stack, data, screen)
                screen.step("Where to look")
                screen.say(f"Address: {stack.web_url} (API at /docs, administration at /admin/)")
                screen.say(f"Sign in: {how}")
                if background and options["exit"]:
                    screen.say("The server stops now; `make serve` starts it with these results.")
                elif background:
                    screen.say("The server runs until you press Ctrl-C.")
                    sys.exit(background.wait())
        except (DemoFailed, CannotBeDone, CannotStart) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            screen.say("Stopped.")
            sys.exit(130)


def run_both(api: Api, stack: Stack, data: Data, screen: Screen) -> None:
    """Load the sessions, run both pipelines, and print what came out."""
    screen.step("Sessions")
    url = settings.TIPPERS_DB_URL if "TIPPERS_DB_URL" in os.environ else stack.tippers_db_url
    if origin_of(url) not in (None, ORIGIN):
        raise DemoFailed(
            "The sessions database holds sessions that the demo did not load, and would have to "
            "replace: run it in a home of its own, for example TIPPERS_HOME=.demo make demo"
        )
    concept_pipeline.forget(api, data.recipe.concept)
    occupancy_pipeline.forget(api, DATASET)
    loaded = load_with_bar(
        url, spaces=data.spaces, sessions=data.sessions, replace=True, origin=ORIGIN
    )

    began = time.monotonic()
    labelled = concept_pipeline.run(api, data.recipe, screen)
    counted = occupancy_pipeline.run(api, DATASET, screen)
    seconds = time.monotonic() - began

    screen.step("Results")
    screen.say(
        f"{labelled.devices:,} devices, {loaded.sessions:,} sessions, {loaded.spaces:,} spaces; "
        f"both pipelines took {seconds:.0f} s"
    )
    report.show_labels(labelled, screen)
    report.show_classifiers(labelled, screen)
    report.show_occupancy(counted, screen)
    if data.truth:
        report.show_accuracy(data.truth, labelled, counted, screen)


def given_data(folder: Path) -> Data:
    """Real sessions: the two files of a folder; DemoFailed names what is missing."""
    if not folder.is_dir():
        raise DemoFailed(f"DEMO_DATA names no folder: {folder}")
    found = []
    for name in ("space", "user_ap_trajectory"):
        files = [folder / f"{name}.{kind}" for kind in ("parquet", "csv")]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            raise DemoFailed(f"{folder} has neither {name}.csv nor {name}.parquet")
        found.append(file)
    return Data(found[0], found[1], VISITORS, None)


def simulated_data(home: Home, options: dict[str, Any], screen: Screen) -> Data:
    """A campus of the wanted size, written below the home."""
    size = {name: options[name] for name in ("devices", "rooms", "days", "seed")}
    folder = home.path / "sample"
    try:
        simulated = campus.simulate(**size)
    except ValueError as error:
        raise DemoFailed(f"{error}: see DEMO_DEVICES, DEMO_ROOMS and DEMO_DAYS") from error
    home.prepare()
    campus.write(simulated, folder)
    screen.say(
        f"Simulated a campus of {size['rooms']} rooms and {size['devices']:,} devices over "
        f"{size['days']} days (seed {size['seed']}) into {folder}"
    )
    files = folder / campus.SPACES_FILE, folder / campus.SESSIONS_FILE
    return Data(*files, DEVICES, simulated.truth)
