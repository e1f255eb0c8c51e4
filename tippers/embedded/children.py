"""Child processes that are watched: started, prefixed, restarted with back-off, stopped, never left.

One thread does it all, because the signal that a child gets when its parent dies follows the
*thread* that started it, and because nothing here takes long.
"""

import contextlib
import ctypes
import logging.handlers
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tippers.embedded.home import CHECKOUT, CannotStart

LOG_BYTES = 5 * 2**20
GIVE_UP_FAILURES, GIVE_UP_SECONDS = 5, 60.0
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class Stopped(Exception):
    """Somebody asked the stack to stop while it was starting."""


class _LogFile(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """A full disk must not flood the console, where the line stands already."""


@dataclass(frozen=True)
class Account:
    """Whom a child runs as."""

    name: str
    uid: int
    gid: int


@dataclass
class Child:
    """One process that should run: what to start, how to stop it, and how it has fared."""

    name: str
    argv: list[str]
    env: dict[str, str] | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when the supervisor is killed
    grace: float = 10.0  # seconds from the stop signal to SIGKILL
    pass_fds: tuple[int, ...] = ()
    foundation: bool = False  # the others need it, so it is stopped after them, alone
    raw: bool = False  # its lines are for the user: no prefix, no log file
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    start_at: float | None = None  # when it is to be started again
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=GIVE_UP_FAILURES))
    back_off: float = FIRST_BACK_OFF
    restarting: bool = False  # it ends because we asked, which is no failure
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    def spawn(self, output: int) -> "subprocess.Popen[bytes]":
        """Start it in a process group of its own, to be killed when this thread dies."""
        parent, death_signal = os.getpid(), int(self.death_signal)

        def follow_parent() -> None:
            # After the change of user, which clears it.
            if _prctl is not None:
                _prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)

        return subprocess.Popen(
            self.argv,
            env=self.env,
            cwd="/" if self.account else CHECKOUT,  # another user may not enter the checkout
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self.pass_fds,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            preexec_fn=follow_parent,  # noqa: PLW1509 - one thread, see the top
        )

    def ask_to_stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(self.stop_signal)  # does nothing when it has ended

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def end_in_short(self) -> str:
        code = self.process.returncode if self.process else None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"{self.name} ended with {how}"

    @property
    def end(self) -> str:
        """How it ended and the last that it said."""
        said = [line for line in self.last_lines if line.strip()] or ["(nothing)"]
        if any("No space left on device" in line for line in said):
            return f"{self.end_in_short} because the disk is full: free some space."
        if self.raw:
            return f"{self.end_in_short}: {said[-1].strip()}"  # the rest was shown
        return f"{self.end_in_short}; its last lines:\n  " + "\n  ".join(said[-8:])


class Children:
    """All children of one supervisor, in the order in which they were started."""

    def __init__(self, logs: Path, say: Callable[[str], None], *, quiet: bool = False) -> None:
        self.logs = logs
        self.quiet = quiet  # what the children say goes to the logs alone
        self.say = say
        self.children: list[Child] = []
        self.patient = False  # once everything was up, what dies is restarted for ever
        self.stop_asked = False
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[str, _LogFile] = {}
        self._rest: dict[int, bytes] = {}

    def start(self, child: Child) -> None:
        if child not in self.children:
            self.children.append(child)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            child.process = child.spawn(writer)
        except OSError as error:
            os.close(reader)
            raise CannotStart(
                f"{child.name} cannot be started: {child.argv[0]}: {error.strerror}."
            ) from error
        finally:
            os.close(writer)
        child.started_at, child.start_at = time.monotonic(), None
        self._selector.register(reader, selectors.EVENT_READ, child)

    def run_to_end(self, child: Child) -> None:
        """Run something that ends by itself; anything but success is the end of the start."""
        self.start(child)
        self.children.remove(child)  # it is not to be started again
        try:
            while child.is_running:
                self.tick()
        finally:
            _kill_group(child)
        self._read(0)
        if child.process is not None and child.process.returncode != 0:
            raise CannotStart(child.end)

    def tick(self, wait: float = 0.1) -> None:
        """Pass on what the children say, and start again what has died.

        Raises Stopped when somebody asked for it, CannotStart when a child keeps dying at first.
        """
        self._read(wait)
        if self.stop_asked:
            raise Stopped
        now = time.monotonic()
        for child in self.children:
            if child.start_at is not None:
                if now >= child.start_at:
                    self.start(child)
            elif child.process is not None and not child.is_running:
                self._read(0)
                self._died(child, now)

    def restart(self, child: Child) -> None:
        """Stop it in its own way; the tick that finds it ended starts it at once."""
        if child.start_at is not None:
            child.start_at = time.monotonic()
        else:
            child.restarting = True
            child.ask_to_stop()

    def stop(self) -> None:
        """End all: together what needs the foundations, then those, last started first."""
        foundations = [child for child in reversed(self.children) if child.foundation]
        self._stop([child for child in self.children if not child.foundation])
        for child in foundations:
            self._stop([child])
        self._read(0)
        for handler in self._handlers.values():
            handler.close()

    def _stop(self, children: list[Child]) -> None:
        asked_at = time.monotonic()
        children = [child for child in children if child.is_running]
        for child in children:
            child.ask_to_stop()
        while running := [each for each in children if each.is_running]:
            self._read(0.02)
            for child in running:
                if time.monotonic() - asked_at > child.grace:
                    self.say(f"{child.name} did not stop within {child.grace:g} s: killed")
                    _kill_group(child)
        for child in children:
            _kill_group(child)  # what it left behind

    def _died(self, child: Child, now: float) -> None:
        _kill_group(child)
        if child.restarting:
            child.restarting = False
            self.start(child)
            return
        if now - child.started_at > GIVE_UP_SECONDS:
            child.failures.clear()
            child.back_off = FIRST_BACK_OFF
        child.failures.append(now)
        if (
            not self.patient
            and len(child.failures) == GIVE_UP_FAILURES
            and now - child.failures[0] < GIVE_UP_SECONDS
        ):
            raise CannotStart(f"Given up after {GIVE_UP_FAILURES} failures: {child.end}")
        self.say(f"{child.end_in_short}; starting it again in {child.back_off:g} s")
        child.start_at = now + child.back_off
        child.back_off = min(child.back_off * 2, LONGEST_BACK_OFF)

    def _read(self, wait: float) -> None:
        if not self._selector.get_map():
            time.sleep(wait)
            return
        for key, _ in self._selector.select(wait):
            child: Child = key.data
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            if data:
                *lines, rest = (self._rest.pop(key.fd, b"") + data).split(b"\n")
                self._rest[key.fd] = rest[-65536:]
            else:
                lines = [line for line in [self._rest.pop(key.fd, b"")] if line]
                self._selector.unregister(key.fd)
                os.close(key.fd)
            for line in lines:
                self._line(child, line.decode(errors="replace").rstrip())

    def _line(self, child: Child, line: str) -> None:
        child.last_lines.append(line)
        if child.raw:
            self.say(line)
            return
        if not self.quiet:
            self.say(f"{child.name:>8} | {line}")
        if child.name not in self._handlers:
            log = _LogFile(self.logs / f"{child.name}.log", maxBytes=LOG_BYTES, backupCount=1)
            log.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self._handlers[child.name] = log
        self._handlers[child.name].emit(logging.makeLogRecord({"msg": line}))


def _kill_group(child: Child) -> None:
    """SIGKILL for what is left of a child and of what it started."""
    if child.process is None:
        return
    # Nobody left is ESRCH; macOS says EPERM when only the dead child itself is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
