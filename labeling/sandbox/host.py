"""Where labeling code runs: an interpreter of its own that has nothing, and is killed when late.

    with Sandbox(code, columns=["stays"], allowed_imports=[], rows=3) as sandbox:
        chunk = sandbox.votes([[3, 0, None]], 3)

One process serves one labeling function. It is spawned (never forked: this process's memory holds
secrets), gets only the columns that the code reads, and may answer only with votes. What it sends
is checked and never unpickled. It dies with the thread that made it.
"""

import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from django.conf import settings

from labeling.sandbox import child
from labeling.sandbox.direct import direct
from labeling.sandbox.locks import LAYERS
from labeling.sandbox.names import BUILTINS, EXPORTS
from tippers.errors import CannotBeDone, NotPossibleNow

if TYPE_CHECKING:
    from labeling.sandbox.columns import Packed

START_SECONDS = 20.0  # an interpreter starts in 0.05 s; a machine under load may take far longer
CHUNK_SECONDS = 5.0
ROW_SECONDS = 20e-6
MEMORY = 512 << 20  # bytes of address space
PYTHON_FLAGS = ("-P", "-s", "-S", "-W", "ignore")
# Sets of texts iterate alike in every process, and a time without a zone is UTC on every machine.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "TZ": "UTC0"}

Votes = npt.NDArray[np.int32]


class SandboxFailed(CannotBeDone):
    """The code as a whole cannot vote: it does not load, or its process was stopped or died."""


class SandboxRefused(NotPossibleNow):
    """This machine offers too little to run anybody's code on it."""


@dataclass(frozen=True)
class Chunk:
    """Votes for the rows of one chunk; `FAULT` where a row failed, told of the first that did."""

    votes: Votes
    first_fault: str
    first_fault_row: int


FAULT = child.FAULT


class Sandbox:
    """One running labeling function.

    On entry: SandboxFailed if its code does not load, SandboxRefused if this machine cannot hold
    it. `layers` are what holds it, known from then on; only tests ask for fewer than all of them.
    """

    def __init__(
        self,
        code: str,
        *,
        columns: Sequence[str],
        allowed_imports: Iterable[str],
        rows: int,
        layers: Collection[str] = LAYERS,
    ) -> None:
        self._code = code
        self._wanted = tuple(layers)
        self.layers: tuple[str, ...] = ()
        self._setup = {
            "layers": self._wanted,
            "columns": list(columns),
            "allowed_imports": list(allowed_imports),
            "builtins": sorted(BUILTINS),
            "exports": {name: sorted(names) for name, names in EXPORTS.items()},
            "limits": {
                "RLIMIT_AS": MEMORY,
                # The deadline of each chunk acts first; this one holds if we are gone.
                "RLIMIT_CPU": int(60 + rows * 2 * ROW_SECONDS),
                "RLIMIT_FSIZE": 0,
                "RLIMIT_NOFILE": 3,
                "RLIMIT_NPROC": 0,  # binds whoever is not root
                "RLIMIT_CORE": 0,
            },
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, *PYTHON_FLAGS, str(Path(child.__file__)), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            close_fds=True,
            start_new_session=True,
            bufsize=0,
        )
        try:
            if self._killed:  # by another thread, before there was a process
                raise SandboxFailed("it was stopped")
            _, text, row = self._exchange(self._setup, 0, START_SECONDS)
            if row >= 0:
                raise SandboxFailed(f"it cannot be locked: {text}")
            self.layers = tuple(text.split())
            if "seccomp" in self._wanted:
                refuse_without_seccomp(self.layers)
            code = (self._code, direct(self._code, self._setup["columns"]))
            _, text, row = self._exchange(code, 0, CHUNK_SECONDS)
            if row >= 0:
                raise SandboxFailed(f"its code does not load: {text}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        process = self._running()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def kill(self) -> None:
        """End the process and whatever it started; from any thread, at any time."""
        self._killed = True
        process = self._process
        if process is not None and process.poll() is None:
            # Its session is its own, so the group holds it and its children alone.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                process.kill()

    def votes(self, values: "Sequence[Packed]", count: int, seconds: float | None = None) -> Chunk:
        """Votes on `count` rows, given as one list or pack for each of the columns, in their order.

        SandboxFailed if the process is late (it is killed) or gone. `seconds`: its time, if not
        what a chunk of that size has.
        """
        if seconds is None:
            seconds = CHUNK_SECONDS + count * ROW_SECONDS
        votes, text, row = self._exchange((count, list(values)), count, seconds)
        return Chunk(votes, text, row)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("a sandbox is used inside its with block")
        return self._process

    def _exchange(self, request: object, count: int, seconds: float) -> tuple[Votes, str, int]:
        """Send a frame and read the reply to it, whole, before the deadline."""
        body = pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL)
        reply = self._talk(child.LENGTH.pack(len(body)) + body, count, seconds)
        magic, said_count, said_text, row = child.HEADER.unpack_from(reply)
        start = child.HEADER.size
        if said_count == 0 and row >= 0:
            count = 0  # it did not load
        if (
            magic != child.MAGIC
            or said_count != count
            or said_text > child.MOST_TEXT
            or len(reply) != start + 4 * count + said_text
            or not -1 <= row <= max(count - 1, 0)
        ):
            raise SandboxFailed("its process sent something that is no reply")
        votes = np.frombuffer(reply, dtype=np.int32, count=count, offset=start)
        # What the code says is stored, and PostgreSQL takes no NUL in a text.
        text = (
            reply[start + 4 * count :]
            .decode("utf-8", "replace")
            .replace("\0", "\N{REPLACEMENT CHARACTER}")
        )
        return votes, text, row

    def _talk(self, request: bytes, count: int, seconds: float) -> bytes:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        deadline = time.monotonic() + seconds
        most = child.HEADER.size + 4 * count + child.MOST_TEXT
        to_send = memoryview(request)
        reply = bytearray()
        os.set_blocking(process.stdin.fileno(), False)
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdin, selectors.EVENT_WRITE)
            ready.register(process.stdout, selectors.EVENT_READ)
            while len(reply) < _expected(reply):
                left = deadline - time.monotonic()
                if left <= 0:
                    self.kill()
                    doing = f"{count} rows" if count else "loading its code"
                    raise SandboxFailed(f"it was stopped: {doing} took longer than {seconds:.1f} s")
                for key, _ in ready.select(left):
                    if key.fileobj is process.stdin:
                        try:
                            to_send = to_send[
                                os.write(process.stdin.fileno(), to_send[: 1 << 20]) :
                            ]
                        except BrokenPipeError:
                            to_send = to_send[:0]  # what its end says comes from the read below
                        if not to_send:
                            ready.unregister(process.stdin)
                    else:
                        part = os.read(process.stdout.fileno(), 1 << 20)
                        if not part:
                            raise SandboxFailed(f"its process ended: {_end_of(process)}")
                        reply += part
                        if max(len(reply), _expected(reply)) > most:
                            raise SandboxFailed("its process sent more than a reply")
        return bytes(reply)


def refuse_without_seccomp(layers: Collection[str]) -> None:
    """SandboxRefused where only resource limits and file rights would stand before user code.

    Local mode, where the code is one's own, takes what there is; its run's log says so.
    """
    if "seccomp" in layers or settings.LOCAL_MODE:
        return
    there = ", ".join(layers) or "none"
    raise SandboxRefused(
        "Labeling code does not run on this machine: it offers no seccomp filter, which needs "
        f"Linux on x86_64 or aarch64 (layers that it has: {there}). Run the workers on such a "
        "machine, or the stack in local mode."
    )


@cache
def layers_here() -> tuple[str, ...]:
    """What holds labeling code on this machine, asked of the first sandbox and kept."""
    sandbox = Sandbox(
        "def labeling_function(row):\n    return -1", columns=(), allowed_imports=(), rows=0
    )
    with suppress(SandboxRefused), sandbox:
        pass
    return sandbox.layers


def _expected(reply: bytearray) -> int:
    """The reply's length as far as is known: the header's, until that has come."""
    if len(reply) < child.HEADER.size:
        return child.HEADER.size
    _, votes, text, _ = child.HEADER.unpack_from(reply)
    return int(child.HEADER.size + 4 * votes + text)


def _end_of(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "it closed its answer"
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
