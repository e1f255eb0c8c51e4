"""What the person at the terminal sees: steps, progress bars fed by the API, tables."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from tippers.demo.client import Api, DemoFailed

LOG_WIDTH = 120  # columns, where there is no terminal to ask
LOOK_EVERY = 0.25  # seconds
GIVE_UP_AFTER = 900.0  # seconds without an end; the longest step takes about one minute
ENDED_BADLY = ("FAILURE", "CANCELLED")


class Screen:
    """A terminal, or a log file when there is none."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = LOG_WIDTH

    def step(self, words: str) -> None:
        self.console.print(f"\n[bold]{words}[/bold]")

    def say(self, words: str) -> None:
        self.console.print(words, soft_wrap=True)

    def table(self, title: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Numbers to the right; the first column is text."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for place, column in enumerate(columns):
            table.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(str, row))
        self.console.print()
        self.console.print(table)

    @contextmanager
    def bars(self) -> Iterator[Progress]:
        with Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<40}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
        ) as progress:
            yield progress

    def follow(self, api: Api, runs: Mapping[str, str]) -> None:
        """Wait until every run (label -> run id) has succeeded; DemoFailed when one does not."""
        with self.bars() as progress:
            waiting = {
                run_id: progress.add_task(label, total=None, note="")
                for label, run_id in runs.items()
            }
            deadline = time.monotonic() + GIVE_UP_AFTER
            while waiting:
                for run_id, task in list(waiting.items()):
                    run = api.get(f"/runs/{run_id}")
                    if run["status"] in ENDED_BADLY:
                        raise _failed(api, run)
                    if run["status"] == "SUCCESS":
                        del waiting[run_id]
                        _fill(progress, task)
                    elif run["progress"]["total"]:
                        progress.update(
                            task,
                            completed=run["progress"]["done"],
                            total=run["progress"]["total"],
                            note=run["progress"]["message"],
                        )
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"{len(waiting)} runs have not ended after {GIVE_UP_AFTER / 60:.0f} "
                        f"minutes: see {api.url}/runs and {api.url}/health/ready"
                    )
                if waiting:
                    time.sleep(LOOK_EVERY)


def _fill(progress: Progress, task: TaskID) -> None:
    total = next(each.total for each in progress.tasks if each.id == task) or 1
    progress.update(task, completed=total, total=total, note="")


def _failed(api: Api, run: dict[str, Any]) -> DemoFailed:
    lines = api.get(f"/runs/{run['run_id']}/logs", limit=10)["logs"]
    log = "".join(f"\n  {line['level']} {line['message']}" for line in lines)
    said = run["error_message"] or "no reason given"
    return DemoFailed(f"{run['job']} ended with {run['status']}: {said}{log}")
