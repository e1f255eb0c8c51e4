"""The whole stack for real: it starts, heals, refuses a second start, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.embedded.test_refusals import OURS
from tippers.embedded.home import CHECKOUT, Home, Stack
from tippers.embedded.postgres import Cluster
from tippers.embedded.supervisor import Background


@pytest.fixture
def scratch(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    """A home whose stack uses nothing of the caller's; its cluster is removed at the end."""
    for name in (*OURS, "SECRET_KEY", "TIPPERS_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    yield Background(home.path, {"PORT": "0", "TIPPERS_MAX_CONCURRENT": "2"})
    Cluster(home).remove()


def get(url: str) -> tuple[int, dict[str, object]]:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.status, json.load(response)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def descendants(pid: int) -> dict[int, str]:
    """Process ids and command lines of everything below a process."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            parents[int(folder.name)] = int(fields[1])
            commands[int(folder.name)] = command
    found = {pid}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return {each: commands[each] for each in found - {pid}}


def still_alive(pids: dict[int, str]) -> list[str]:
    mine = descendants(1) | descendants(os.getpid())
    return [command for pid, command in pids.items() if mine.get(pid) == command]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_a_stack_lives_heals_and_leaves_nothing(scratch: Background, home: Home) -> None:
    with scratch as stack:
        assert get(f"{stack.web_url}/health/ready")[0] == 200
        _has_a_slot_for_short_work_beside_those_for_long(stack)
        _refuses_a_second_start(home, stack)
        _heals(stack)
        everything = descendants(stack.pid)
        assert {"postgres", "gunicorn", "celery", "valkey"} <= {
            part
            for part in ("postgres", "gunicorn", "celery", "valkey", "redis")
            if any(
                part in command.replace("redis-server", "valkey") for command in everything.values()
            )
        }
        os.kill(stack.pid, signal.SIGKILL)
        until(lambda: not still_alive(everything), 15)
        assert scratch.wait() == -signal.SIGKILL

    with scratch as again:
        assert again.postgres_port == stack.postgres_port
        everything = descendants(again.pid)
        assert scratch.stop() == 0
        assert still_alive(everything) == []
    left = home.stack()
    assert left is not None
    assert not left.running


def _has_a_slot_for_short_work_beside_those_for_long(stack: Stack) -> None:
    def slots() -> object:
        details = get(f"{stack.web_url}/health")[1]["details"]
        return details["worker"] if isinstance(details, dict) else details

    until(lambda: slots() == "3 slots")


def _refuses_a_second_start(home: Home, stack: Stack) -> None:
    second = subprocess.run(
        [sys.executable, "manage.py", "serve"],
        env=os.environ | {"TIPPERS_HOME": str(home.path)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == (
        f"Cannot start: Tippers Services already runs from {home.path} at {stack.web_url}: use that "
        "one, stop it first, or set TIPPERS_HOME to another folder.\n"
    )


def _heals(stack: Stack) -> None:
    """Web server, database and broker are each killed; the stack is whole again on its own."""
    for part in ("gunicorn", "postgres -D", "valkey-server", "redis-server"):
        victims = [
            pid
            for pid, command in descendants(stack.pid).items()
            if part in command and not command.startswith("postgres:")
        ]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

    def is_whole() -> bool:
        try:
            return get(f"{stack.web_url}/health/ready")[0] == 200
        except OSError:
            return False

    until(is_whole)
