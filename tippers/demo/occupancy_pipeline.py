"""The occupancy pipeline over HTTP: from a root space to hourly counts of all that lies in it."""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tippers.demo.client import Api, DemoFailed
from tippers.demo.screen import GIVE_UP_AFTER, LOOK_EVERY, Screen

CHUNK_DAYS = 30


@dataclass(frozen=True)
class Counted:
    """One space's hours: (begin in UTC, devices), empty ones left out; `depth` is 0 for a root."""

    space_id: int
    name: str
    depth: int
    hours: list[tuple[datetime, int]]


def run(api: Api, name: str, screen: Screen) -> list[Counted]:
    """Occupancy of every root over all there is, per hour; every space with spaces below it."""
    spaces = {space["space_id"]: space for space in api.pages("/spaces")}
    roots = [key for key, space in spaces.items() if space["parent_space_id"] is None]
    screen.step("Occupancy: devices per space and hour")
    counted = []
    for root in roots:
        dataset = api.post(
            "/occupancy/datasets",
            {
                "name": name,
                "root_space_id": root,
                "interval_seconds": 3600,
                "chunk_days": CHUNK_DAYS,
            },
        )
        path = f"/occupancy/datasets/{dataset['dataset_id']}"
        _wait(api, path, spaces[root]["space_name"], screen)
        shown = _with_children(spaces, root)
        counted += [_hours(api, path, spaces[key], depth) for key, depth in shown]
    return counted


def forget(api: Api, name: str) -> None:
    """An earlier demo's datasets go."""
    for dataset in list(api.pages("/occupancy/datasets")):
        if dataset["name"] == name:
            api.delete(f"/occupancy/datasets/{dataset['dataset_id']}")


def _wait(api: Api, path: str, name: str, screen: Screen) -> None:
    deadline = time.monotonic() + GIVE_UP_AFTER
    with screen.bars() as progress:
        task = progress.add_task(f"chunks of {name}", total=None, note="")
        while (answer := api.get(f"{path}/results", limit=1))["status"] in ("PENDING", "RUNNING"):
            progress.update(
                task, completed=answer["completed_chunks"], total=answer["total_chunks"] or None
            )
            if time.monotonic() > deadline:
                raise DemoFailed(f"The occupancy of {name} has not ended: see {api.url}{path}")
            time.sleep(LOOK_EVERY)
        if answer["status"] == "FAILED":
            raise DemoFailed(f"The occupancy of {name} failed: {answer['error']}")
        total = answer["total_chunks"] or 1
        progress.update(task, completed=total, total=total)


def _with_children(spaces: dict[int, dict[str, Any]], root: int) -> list[tuple[int, int]]:
    """(space, depth) of the root and of all below it that have spaces below them, top down."""
    below: dict[int, list[int]] = {}
    for key, space in spaces.items():
        below.setdefault(space["parent_space_id"], []).append(key)
    found = []
    waiting = [(root, 0)]
    while waiting:
        key, depth = waiting.pop()
        if key in below or key == root:
            found.append((key, depth))
            waiting += [(child, depth + 1) for child in sorted(below.get(key, ()), reverse=True)]
    return found


def _hours(api: Api, path: str, space: dict[str, Any], depth: int) -> Counted:
    rows = api.pages(f"{path}/results", rows="rows", space_id=space["space_id"])
    return Counted(
        space_id=space["space_id"],
        name=space["space_name"] or str(space["space_id"]),
        depth=depth,
        hours=[
            (datetime.fromisoformat(row["interval_begin_time"]), row["number_connections"])
            for row in rows
        ],
    )
