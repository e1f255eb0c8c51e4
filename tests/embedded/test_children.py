"""Watched children: restarted with back-off, given up at first, stopped in order, never left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tippers.embedded import children as module
from tippers.embedded.children import Child, Children, Stopped
from tippers.embedded.home import CannotStart


class Said(list[str]):
    """What the user reads."""

    def has(self, words: str) -> bool:
        return any(words in line for line in self)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def family(tmp_path: Path, said: Said) -> Iterator[Children]:
    family = Children(tmp_path, said.append)
    yield family
    family.stop()


def python(name: str, code: str) -> Child:
    return Child(name, [sys.executable, "-u", "-c", code])


def until(family: Children, condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        family.tick(0.01)


def is_alive(pid: int) -> bool:
    """A zombie that nobody has waited for yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_child_says_is_shown_with_its_name_and_kept(
    family: Children, said: Said, tmp_path: Path
) -> None:
    family.patient = True
    family.start(python("talker", "print('one'); print('two')"))
    until(family, lambda: said.has("talker ended with exit status 0"))
    assert said[:2] == ["  talker | one", "  talker | two"]
    kept = (tmp_path / "talker.log").read_text().splitlines()
    assert [line.split()[-1] for line in kept] == ["one", "two"]


def test_logs_do_not_grow_for_ever(
    family: Children, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 10_000)
    family.patient = True
    family.start(python("flood", "[print('x' * 99) for _ in range(5000)]"))
    until(family, lambda: said.has("flood ended"))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["flood.log", "flood.log.1"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000


def test_a_dead_child_comes_back_after_a_pause_that_doubles(family: Children, said: Said) -> None:
    family.patient = True
    family.start(python("weak", "raise SystemExit(3)"))
    until(family, lambda: said.has("starting it again in 2 s"))
    assert said == [
        f"weak ended with exit status 3; starting it again in {pause} s"
        for pause in ("0.5", "1", "2")
    ]


def test_before_the_stack_was_ready_five_failures_end_the_start_with_the_reason(
    family: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_BACK_OFF", 0.01)
    child = python("web", "raise SystemExit('the reason')")
    child.back_off = 0.01
    family.start(child)
    with pytest.raises(CannotStart, match=r"(?s)after 5 failures: web ended.*the reason"):
        until(family, lambda: False)


def test_a_full_disk_is_named_instead_of_the_last_lines(family: Children) -> None:
    with pytest.raises(CannotStart, match="because the disk is full: free some space"):
        family.run_to_end(
            python("setup", "print('noise'); raise SystemExit('x: No space left on device')")
        )


def test_a_single_command_must_succeed(family: Children, said: Said) -> None:
    child = python("setup", "print('the password')")
    child.raw = True
    family.run_to_end(child)
    assert said == ["the password"]
    with pytest.raises(CannotStart, match=r"(?s)setup ended with exit status 1;.*ValueError: no"):
        family.run_to_end(python("setup", "raise ValueError('no')"))


def test_a_program_that_is_not_there_is_one_sentence(family: Children) -> None:
    with pytest.raises(CannotStart, match="broker cannot be started: /nowhere/redis: No such file"):
        family.start(Child("broker", ["/nowhere/redis"]))


def test_a_stop_ends_the_foundations_last_and_whoever_ignores_it_by_force(
    family: Children, said: Said
) -> None:
    told = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit({}));"
    wait = "print('up'); time.sleep(60)"
    database = python("database", told.format("print('database stops')") + wait)
    database.foundation = True
    worker = python("worker", told.format("(time.sleep(0.3), print('worker stops'))") + wait)
    deaf = python("deaf", "import signal, time; signal.signal(15, signal.SIG_IGN);" + wait)
    deaf.grace = 0.5
    for child in (database, worker, deaf):
        family.start(child)
    until(family, lambda: sum(line.endswith("up") for line in said) == 3)
    family.stop()
    assert [line for line in said if "stop" in line] == [
        "  worker | worker stops",
        "deaf did not stop within 0.5 s: killed",
        "database | database stops",
    ]


def test_a_stop_takes_the_grandchildren_too(family: Children, said: Said) -> None:
    family.start(
        python(
            "parent",
            "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c',"
            "'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)']);"
            "print(p.pid); time.sleep(60)",
        )
    )
    until(family, lambda: said)
    grandchild = int(said[0].split("| ")[1])
    assert is_alive(grandchild)
    family.stop()
    deadline = time.monotonic() + 5
    while is_alive(grandchild):
        assert time.monotonic() < deadline


def test_a_restart_on_request_is_no_failure(family: Children, said: Said) -> None:
    child = python("web", "import time; print('up'); time.sleep(60)")
    family.start(child)
    until(family, lambda: len(said) == 1)
    family.restart(child)
    until(family, lambda: len(said) == 2)
    assert said == ["     web | up"] * 2


def test_a_request_to_stop_is_heard_while_starting(family: Children) -> None:
    family.stop_asked = True
    with pytest.raises(Stopped):
        family.tick(0.01)


@pytest.mark.skipif(
    sys.platform != "linux", reason="other kernels cannot tie a child to its parent"
)
def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    deaf = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid());"
        "time.sleep(60)"
    )
    code = f"""
import sys
from pathlib import Path
from tippers.embedded.children import Child, Children
family = Children(Path(sys.argv[1]), lambda line: print(line, flush=True))
for name in ("a", "b"):
    family.start(Child(name, [sys.executable, "-u", "-c", {deaf!r}]))
while True:
    family.tick()
"""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    pids = [int(supervisor.stdout.readline().split("| ")[1]) for _ in range(2)]
    assert all(is_alive(pid) for pid in pids)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a child was left behind"
