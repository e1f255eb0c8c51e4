"""Ways out of the sandbox, each tried, and what stopped it.

Every attempt is run as a user would save it (judged, then in the sandbox), without the judgement,
and with no language filter at all: every builtin and the real modules, as if the filter were
broken. The rest shows that a layer is what stops an attempt by taking it away.
"""

import builtins
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from labeling.policy import CodeRefused, judge
from labeling.sandbox import child, host
from labeling.sandbox.host import FAULT, Sandbox, SandboxFailed
from labeling.sandbox.locks import LAYERS, landlock_version
from labeling.sandbox.names import EXPORTS
from tests.labeling import broken_child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

LEFT_COLUMN = platform.machine() == "x86_64"
SECRET = "a secret that nobody in a sandbox reads"

# What stops an attempt. Whoever gets through votes 1; who finds that there is nothing, votes 0.
POLICY, REACHED, NOTHING = "refused when saved", "reached", "found nothing"
KILLED, DEADLINE, BAD_REPLY, ENDED = "SIGSYS", "deadline", "bad reply", "ended"
EACCES, EPERM, EAGAIN, EMFILE = "Errno 13", "Errno 1", "Errno 11", "Errno 24"


@dataclass(frozen=True)
class Escape:
    """Lines of a function's body, and what stops them in each of the three settings."""

    name: str
    lines: str
    filter_off: str
    unjudged: str = "ImportError"
    judged: str = POLICY


def number(x86_64: int, aarch64: int) -> int:
    """A system call that the C library has no name for."""
    return x86_64 if LEFT_COLUMN else aarch64


LIBC = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
SUBCLASS = "[c for c in object_.__subclasses__() if c.__name__ == {!r}][0]"
# For a descriptor: three are all there may be.
ROOM = "import os\ntry:\n    os.close(2)\nexcept OSError:\n    pass\n"


def by_libc(name: str, call: str, stopped: str = KILLED) -> Escape:
    said = f"{LIBC}if {call} < 0:\n    raise OSError(ctypes.get_errno(), 'x')\nreturn 1"
    return Escape(name, said, stopped)


ESCAPES = [
    # --- files
    Escape("open", "return 1 if open(CANARY).read() else 2", EACCES, "NameError"),
    Escape("open to write", "return 1 if open(CANARY + 'x', 'w') else 2", EACCES, "NameError"),
    Escape("os.open", f"{ROOM}return 1 if os.read(os.open(CANARY, 0), 9) else 2", EACCES),
    Escape("posix.open", "import posix\nreturn 1 if posix.open(CANARY, 0) else 2", EACCES),
    Escape("io.FileIO", "import io\nreturn 1 if io.FileIO(CANARY).read() else 2", EACCES),
    Escape("by libc", f"{LIBC}fd = libc.open(CANARY.encode(), 0)\nif fd < 0:\n"
           "    raise OSError(ctypes.get_errno(), 'x')\nreturn 1", EACCES),
    Escape("environment of the process", "return 1 if open('/proc/self/environ').read() else 2",
           EACCES, "NameError"),
    Escape("memory of the process", "return 1 if open('/proc/self/mem', 'rb') else 2", EACCES,
           "NameError"),
    Escape("listdir", f"{ROOM}return 1 if os.listdir(FOLDER) else 2", EACCES),
    Escape("scandir", "import os\nreturn 1 if list(os.scandir('/')) else 2", EACCES),
    Escape("stat", "import os\nreturn 1 if os.stat(CANARY) else 2", EACCES),
    Escape("readlink", "import os\nreturn 1 if os.readlink('/proc/self/exe') else 2", EACCES),
    Escape("create a file", f"{ROOM}return 1 if os.open(CANARY + 'x', os.O_CREAT | os.O_WRONLY)"
           " else 2", EACCES),
    Escape("unlink", "import os\nos.unlink(CANARY)\nreturn 1", KILLED),
    Escape("chmod", "import os\nos.chmod(CANARY, 0o777)\nreturn 1", KILLED),
    Escape("mkdir", "import os\nos.mkdir(CANARY + 'x')\nreturn 1", KILLED),
    Escape("chroot", "import os\nos.chroot('/')\nreturn 1", KILLED),
    by_libc("openat2", "libc.syscall(437, -100, CANARY.encode(), bytes(24), 24)", EACCES),
    by_libc("open by handle",
            f"libc.syscall({number(304, 265)}, -100, bytes(64), 0)"),
    # --- ways around the names
    Escape("subclasses to a file loader",
           f"object_ = ().__class__.__base__\nloader = {SUBCLASS.format('FileLoader')}\n"
           "return 1 if loader('x', CANARY).get_data(CANARY) else 2", EACCES, EACCES),
    Escape("subclasses to os.system",
           f"object_ = ().__class__.__base__\nopened = {SUBCLASS.format('_wrap_close')}\n"
           "return 1 if opened.__init__.__globals__['system']('true') else 1", KILLED, KILLED),
    Escape("match on a class",
           "match ():\n    case object(__class__=kind):\n        object_ = kind.__base__\n"
           f"loader = {SUBCLASS.format('FileLoader')}\n"
           "return 1 if loader('x', CANARY).get_data(CANARY) else 2", EACCES, "NameError"),
    Escape("globals of the import",
           "__import__.__globals__['os'].fork()\nreturn 1", KILLED, KILLED),
    Escape("frame of a generator",
           "g = (x for x in (1,))\n"
           "found = g.gi_frame.f_builtins['__import__'].__globals__['os']\n"
           "return 1 if found.listdir('/') else 2", EACCES, EACCES),
    Escape("frames of a traceback",
           "try:\n    1 / 0\nexcept Exception as e:\n    f = e.__traceback__.tb_frame\n"
           "while 'os' not in f.f_globals:\n    f = f.f_back\nf.f_globals['os'].fork()\nreturn 1",
           KILLED, KILLED),
    Escape("object of an error",
           "try:\n    row.nothing\nexcept AttributeError as e:\n"
           "    object_ = e.obj.__class__.__base__\n"
           f"return 1 if {SUBCLASS.format('FileLoader')}('x', CANARY).get_data(CANARY) else 2",
           EACCES, EACCES),
    Escape("a format text",
           "said = '{0.__globals__[__builtins__][__import__].__globals__[os].environ}'\n"
           "said = said.format(labeling_function)\n"
           "return 1 if 'HOME' in said or 'PATH' in said or 'URL' in said else 0",
           NOTHING, NOTHING),
    Escape("a format text by another name",
           "text = '{f.__globals__[__builtins__][__import__].__globals__[os].environ}'.format_map\n"
           "said = text({'f': labeling_function})\n"
           "return 1 if 'HOME' in said or 'PATH' in said or 'URL' in said else 0",
           NOTHING, NOTHING),
    Escape("eval", "path = CANARY\nreturn 1 if eval('open(path).read()') else 2", EACCES,
           "NameError"),
    Escape("exec", "exec('import os; os.fork()')\nreturn 1", KILLED, "NameError"),
    Escape("a class", "class A:\n    pass\nreturn 1 if A.__base__.__subclasses__()[0].x else 2",
           "AttributeError", "NameError"),
    Escape("modules of re", "import re\nre.enum.sys.modules['os'].fork()\nreturn 1", KILLED,
           "AttributeError"),
    Escape("modules of statistics",
           "import statistics\nstatistics.sys.modules['os'].popen('id')\nreturn 1", KILLED,
           "AttributeError"),
    Escape("modules of datetime", "import datetime\ndatetime.sys.modules['os'].fork()\nreturn 1",
           KILLED, "AttributeError"),
    Escape("names of modules by from", "from statistics import sys\nsys.modules['os'].fork()\n"
           "return 1", KILLED),
    Escape("import os", "import os\nos.fork()\nreturn 1", KILLED),
    Escape("__import__", "__import__('os').fork()\nreturn 1", KILLED),
    Escape("an import from the disk", "import ftplib\nreturn 1", "ImportError"),
    Escape("pickle", "import pickle\npickle.loads(b'cos\\nsystem\\n(Vtrue\\ntR.')\nreturn 1", KILLED),
    # --- processes and threads
    Escape("fork", "import os\npid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)\n"
           "return 1", KILLED),
    Escape("system", "import os\nos.system('true')\nreturn 1", KILLED),
    Escape("posix_spawn", "import os\nos.posix_spawn('/bin/true', ['x'], {})\nreturn 1", KILLED),
    Escape("subprocess", "import subprocess\nsubprocess.run(['true'])\nreturn 1", KILLED),
    Escape("exec another program", "import os\nos.execv('/bin/true', ['x'])\nreturn 1", KILLED),
    Escape("thread", "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\n"
           "return 1", KILLED),
    Escape("a bare thread", "import _thread\n_thread.start_new_thread(int, ())\nreturn 1", KILLED),
    by_libc("clone3", "libc.syscall(435, bytes(88), 88)"),
    Escape("signal the parent", "import os, sys\nos.kill(int(sys.argv[1]), 0)\nreturn 1", KILLED),
    by_libc("attach to the parent", "libc.ptrace(16, int(__import__('sys').argv[1]), 0, 0)"),
    by_libc("read the parent's memory",
            "libc.process_vm_readv(int(__import__('sys').argv[1]), bytes(16), 1, bytes(16), 1, 0)"),
    Escape("a handle on a process", "import os\nos.pidfd_open(1)\nreturn 1", KILLED),
    # --- the network
    Escape("socket", "import socket\nsocket.socket()\nreturn 1", KILLED),
    Escape("connect", f"{ROOM}import socket\ntry:\n    socket.socket().connect(('127.0.0.1', 1))\n"
           "except ConnectionRefusedError:\n    return 1\nreturn 1", KILLED),
    Escape("bind", f"{ROOM}import socket\nsocket.socket().bind(('127.0.0.1', 0))\nreturn 1", KILLED),
    Escape("an abstract socket", f"{ROOM}import socket\n"
           "socket.socket(socket.AF_UNIX).connect('\\0' + CANARY)\nreturn 1", KILLED),
    Escape("a pair of sockets", "import socket\nsocket.socketpair()\nreturn 1", KILLED),
    # --- the kernel's other doors
    Escape("executable memory", "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nreturn 1", KILLED),
    by_libc("make memory executable",
            "libc.mprotect(ctypes.c_void_p(id(libc) & ~4095), ctypes.c_size_t(4096), 7)"),
    Escape("memfd", "import os\nos.memfd_create('x')\nreturn 1", KILLED),
    by_libc("io_uring", "libc.syscall(425, 1, bytes(120))"),
    by_libc("bpf", f"libc.syscall({number(321, 280)}, 0, bytes(72), 72)"),
    by_libc("keyctl", f"libc.syscall({number(250, 219)}, 0, 0, 0, 0, 0)"),
    by_libc("userfaultfd", f"libc.syscall({number(323, 282)}, 0)"),
    by_libc("perf_event_open", f"libc.syscall({number(298, 241)}, bytes(128), 0, -1, -1, 0)"),
    by_libc("a call of the x32 kind", "libc.syscall(ctypes.c_long(0x40000000), 0, bytes(1), 0)"),
    by_libc("mount", "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)"),
    by_libc("unshare", "libc.unshare(0x10000000)"),
    by_libc("personality", "libc.personality(0x0400000)"),
    by_libc("shared memory", "libc.shmget(0, 4096, 0o1600)"),
    by_libc("another seccomp filter", "libc.prctl(22, 2, bytes(16))"),
    by_libc("any call by ctypes", "libc.getppid()"),
    Escape("setuid", "import os\nos.setuid(0)\nreturn 1", KILLED),
    Escape("setgroups", "import os\nos.setgroups([0])\nreturn 1", KILLED),
    Escape("a descriptor", "import os\nos.dup(0)\nreturn 1", KILLED),
    Escape("pipe", "import os\nos.pipe()\nreturn 1", KILLED),
    Escape("a higher limit", "import resource\n"
           "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nreturn 1", KILLED),
    Escape("a timer", "import signal\nsignal.alarm(1)\nreturn 1", KILLED),
    Escape("sleep", "import time\ntime.sleep(0.001)\nreturn 1", KILLED, "AttributeError"),
    Escape("the process's number", "import os\nreturn 1 if os.getpid() else 2", KILLED),
    # --- the pipe to the host
    Escape("junk to the host", "import os\nos.write(1, b'junk' * 100)\nreturn 1", BAD_REPLY),
    Escape("a forged reply", "import os\n"
           "os.write(1, b'LFV1' + bytes([9]) + bytes(7) + b'\\xff' * 4 + bytes(36))\nreturn 1",
           BAD_REPLY),
    Escape("print", "print('x' * 100_000)\nreturn 1", BAD_REPLY, "NameError"),
    Escape("leave", "import os\nos._exit(0)", ENDED),
    Escape("leave by an error", "import sys\nsys.exit()", ENDED),
    Escape("read what the host sends", "import os\nreturn len(os.read(0, 1))", DEADLINE),
    # --- resources
    Escape("a huge list", "return len([0] * 10 ** 10)", "MemoryError", "MemoryError", "MemoryError"),
    Escape("a huge text", "return len('a' * 10 ** 11)", "MemoryError", "MemoryError",
           "MemoryError"),
    Escape("a growing text", "said = 'ab'\nwhile True:\n    said += said", "MemoryError",
           "MemoryError", "MemoryError"),
    Escape("recursion", "return labeling_function(row)", "RecursionError", "RecursionError",
           "RecursionError"),
    Escape("an endless loop", "while True:\n    pass", DEADLINE, DEADLINE, DEADLINE),
    Escape("a huge number", "return 10 ** 10 ** 8 % 7", DEADLINE, DEADLINE, DEADLINE),
    Escape("a pattern that explodes", "import re\nreturn 1 if re.match('(a+)+$', 'a' * 40 + 'b') "
           "else 2", DEADLINE, DEADLINE, DEADLINE),
]  # fmt: skip
BY_NAME = {escape.name: escape for escape in ESCAPES}


@pytest.fixture(scope="module")
def canary() -> Iterator[Path]:
    """A file that anybody outside may read, in a folder where anybody may write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        file = Path(folder) / "canary"
        file.write_text(SECRET)
        file.chmod(0o644)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"\0{file}")
            listener.listen()
            yield file


def body_of(escape: Escape, canary: Path, name: str = "labeling_function") -> str:
    lines = escape.lines.replace("CANARY", repr(str(canary)))
    lines = lines.replace("FOLDER", repr(str(canary.parent)))
    return f"def {name}(row):\n" + "\n".join(f"    {line}" for line in lines.splitlines())


def outcome(vote: Callable[[], host.Chunk]) -> str:
    """What stopped it, in the words above, or as what it failed with."""
    try:
        chunk = vote()
    except SandboxFailed as failed:
        said = str(failed)
        signs = {
            "SIGSYS": KILLED, "took longer": DEADLINE, "no reply": BAD_REPLY,
            "more than a reply": BAD_REPLY, "ended: exit": ENDED,
        }  # fmt: skip
        return next((kind for sign, kind in signs.items() if sign in said), said)
    (given,) = chunk.votes.tolist()
    if given != FAULT:
        return {1: REACHED, 0: NOTHING}.get(given, f"voted {given}")
    kind, _, said = chunk.first_fault.splitlines()[-1].partition(": ")
    kind = {"ModuleNotFoundError": "ImportError"}.get(kind, kind)
    return said[1 : said.index("]")] if said.startswith("[Errno") else kind


def attempt(
    escape: Escape,
    canary: Path,
    allowed: Sequence[str] = tuple(EXPORTS),
    layers: Sequence[str] = LAYERS,
) -> str:
    """One attempt in a sandbox of its own."""

    def vote() -> host.Chunk:
        code = body_of(escape, canary)
        with Sandbox(
            code, columns=["a"], allowed_imports=allowed, rows=1, layers=layers
        ) as running:
            return running.votes([[1]], 1)

    return outcome(vote)


def as_saved(escape: Escape, canary: Path) -> str:
    """The same, if the policy lets it be saved."""
    try:
        judge(body_of(escape, canary), allowed_imports=EXPORTS, values={})
    except CodeRefused:
        return POLICY
    return attempt(escape, canary)


def together(
    escapes: Sequence[Escape],
    canary: Path,
    allowed: Sequence[str] = tuple(EXPORTS),
    layers: Sequence[str] = LAYERS,
) -> dict[str, str]:
    """Attempts that fail without ending their process, in one sandbox."""
    bodies = [body_of(escape, canary, f"f{n}") for n, escape in enumerate(escapes)]
    choose = f"({', '.join(f'f{n}' for n in range(len(escapes)))},)[row['n']]"
    code = "\n".join([*bodies, f"def labeling_function(row):\n    return {choose}(row)"])
    with Sandbox(code, columns=["n"], allowed_imports=allowed, rows=1, layers=layers) as running:
        return {
            escape.name: outcome(lambda n=n: running.votes([[n]], 1))  # type: ignore[misc]  # a bound default
            for n, escape in enumerate(escapes)
        }


@pytest.fixture
def no_language_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every builtin, and the modules themselves."""
    monkeypatch.setattr(child, "__file__", broken_child.__file__)
    of_site = {"copyright", "credits", "exit", "help", "license", "quit"}  # -S leaves it out
    monkeypatch.setattr(host, "BUILTINS", vars(builtins).keys() - of_site)


ENDS = {KILLED, DEADLINE, BAD_REPLY, ENDED}


def test_there_are_sixty_attempts_and_more() -> None:
    assert len(BY_NAME) == len(ESCAPES) >= 60


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
def test_what_stops_an_attempt_as_it_would_be_saved(
    escape: Escape, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "CHUNK_SECONDS", 0.5 if escape.judged == DEADLINE else 5)
    assert as_saved(escape, canary) == escape.judged


def test_what_stops_the_attempts_that_the_policy_should_have_refused(
    canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [escape for escape in ESCAPES if escape.judged == POLICY]
    failing = [escape for escape in refused if escape.unjudged not in ENDS]
    found = together(failing, canary)
    found |= {e.name: attempt(e, canary) for e in refused if e not in failing}
    assert found == {escape.name: escape.unjudged for escape in refused}


@pytest.mark.usefixtures("no_language_filter")
@pytest.mark.parametrize(
    "escape", [e for e in ESCAPES if e.filter_off in ENDS], ids=lambda escape: escape.name
)
def test_what_ends_the_process_when_there_is_no_language_filter(
    escape: Escape, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "CHUNK_SECONDS", 0.5 if escape.filter_off == DEADLINE else 5)
    assert attempt(escape, canary, broken_child.MODULES) == escape.filter_off


@pytest.mark.usefixtures("no_language_filter")
def test_what_fails_a_row_when_there_is_no_language_filter(canary: Path) -> None:
    failing = [escape for escape in ESCAPES if escape.filter_off not in ENDS]
    found = together(failing, canary, broken_child.MODULES)
    assert found == {escape.name: escape.filter_off for escape in failing}


# --- which layer it was -----------------------------------------------------------------------

# Without seccomp: what stops the attempt then, and the layer without which it succeeds. The first
# comes first because the others make room for a descriptor.
SECOND_LAYER = {
    "a descriptor": ("limits", EMFILE),
    "os.open": ("landlock", EACCES),
    "create a file": ("landlock", EACCES),
    "listdir": ("landlock", EACCES),
    "connect": ("landlock", EACCES),
    "bind": ("landlock", EACCES),
    "an abstract socket": ("landlock", EPERM),
    "exec another program": ("landlock", EACCES),
    "fork": ("limits", EAGAIN),
    "thread": ("limits", "RuntimeError"),
    "setuid": ("unprivileged", EPERM),
    "setgroups": ("unprivileged", EPERM),
}
LANDLOCK_SINCE = {"connect": 4, "bind": 4, "an abstract socket": 6}  # the version of it
ONLY_SECCOMP = ("stat", "executable memory", "sleep", "a timer")


def all_but(*layers: str) -> list[str]:
    return [layer for layer in LAYERS if layer not in layers]


@pytest.mark.usefixtures("no_language_filter")
@pytest.mark.parametrize("name", SECOND_LAYER)
def test_seccomp_stops_an_attempt_where_the_kernel_has_no_landlock(name: str, canary: Path) -> None:
    escape = BY_NAME[name]
    found = attempt(escape, canary, broken_child.MODULES, all_but("landlock"))
    assert found == escape.filter_off


@pytest.mark.usefixtures("no_language_filter")
def test_another_layer_stops_an_attempt_where_there_is_no_seccomp(canary: Path) -> None:
    version = landlock_version()
    expected = {
        name: said
        for name, (layer, said) in SECOND_LAYER.items()
        if layer != "landlock" or LANDLOCK_SINCE.get(name, 1) <= version
    }
    escapes = [BY_NAME[name] for name in expected]
    found = together(escapes, canary, broken_child.MODULES, all_but("seccomp"))
    assert found == expected


@pytest.mark.usefixtures("no_language_filter")
@pytest.mark.parametrize("layer", ["landlock", "limits", "unprivileged"])
def test_an_attempt_succeeds_where_neither_seccomp_nor_its_layer_is(
    layer: str, canary: Path
) -> None:
    if layer == "unprivileged" and os.geteuid() != 0:
        pytest.skip("there is no root to leave")
    layers = all_but("seccomp", layer)
    names = [name for name, (stopping, _) in SECOND_LAYER.items() if stopping == layer]
    for name in names:
        found = attempt(BY_NAME[name], canary, broken_child.MODULES, layers)
        assert found == (ENDED if name == "exec another program" else REACHED), name


@pytest.mark.usefixtures("no_language_filter")
def test_some_things_only_seccomp_stops(canary: Path) -> None:
    escapes = [BY_NAME[name] for name in ONLY_SECCOMP]
    found = together(escapes, canary, broken_child.MODULES, all_but("seccomp"))
    assert set(found.values()) == {REACHED}


def test_nothing_that_calls_the_kernel_is_left_lying_about() -> None:
    """ctypes did the locking; the code that comes after cannot name it."""
    code = (
        "def labeling_function(row):\n"
        "    modules = __import__.__globals__['sys'].modules\n"
        "    gone = {'ctypes', '_ctypes', 'locks'}\n"
        "    return len([name for name in modules if name in gone])"
    )
    with Sandbox(code, columns=["a"], allowed_imports=[], rows=1) as running:
        assert running.votes([[1]], 1).votes.tolist() == [0]
