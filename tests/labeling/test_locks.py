"""The layers themselves: the filter call by call, and what is said where the kernel lacks one."""

import ctypes
import platform
import re
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from labeling.sandbox import host, locks
from labeling.sandbox.host import Sandbox, SandboxRefused
from labeling.sandbox.locks import LAYERS
from tippers import health

INCLUDE = Path("/usr/include")
HEADERS = {
    "x86_64": ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h"),
    "aarch64": ("asm-generic/unistd.h",),
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")


def numbers(machine: str) -> dict[str, int]:
    """The system calls' numbers as the kernel's own headers give them."""
    found = next((INCLUDE / p for p in HEADERS[machine] if (INCLUDE / p).exists()), None)
    if found is None:
        pytest.skip("the kernel's headers are not installed (linux-libc-dev)")
    defined: dict[str, str] = {}
    for name, value in re.findall(r"^#define (__NR\w+) (\w+)", found.read_text(), re.MULTILINE):
        defined.setdefault(name, value)

    def value_of(name: str) -> int | None:
        value = defined.get(name, "")
        return int(value) if value.isdecimal() else value_of(value) if value else None

    named = ((name, value_of(name)) for name in defined if name.startswith("__NR_"))
    return {name.removeprefix("__NR_"): value for name, value in named if value is not None}


def answer(program: bytes, architecture: int, call: int, third: int) -> int:
    """What the kernel would make of one call: the instructions of classic BPF that there are."""
    data = struct.pack("<iIQ6Q", call, architecture, 0, 0, 0, third, 0, 0, 0)
    lines = list(struct.iter_unpack("<HBBI", program))
    position, value = 0, 0
    while True:
        code, if_true, if_false, operand = lines[position]
        position += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", data, operand)
            case 0x15:
                position += if_true if value == operand else if_false
            case 0x45:
                position += if_true if value & operand else if_false
            case 0x06:
                return int(operand)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_call_is_answered_as_its_name_says(machine: str) -> None:
    by_name = numbers(machine)
    column, architecture = locks.MACHINES[machine]
    program = locks.program(machine)
    said = {number: answer(program, architecture, number, third=3) for number in by_name.values()}
    expected = dict.fromkeys(by_name.values(), 0x80000000)
    for names, meant in ((locks.ALLOWED, 0x7FFF0000), (locks.REFUSED, 0x0005000D)):
        expected |= {
            by_name[name]: meant for name, both in names.items() if both[column] is not None
        }
    assert said == expected
    assert len(said) > 300


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_memory_is_never_executable_and_other_architectures_have_no_calls(machine: str) -> None:
    by_name = numbers(machine)
    _, architecture = locks.MACHINES[machine]
    program = locks.program(machine)
    killed = 0x80000000
    for name in ("mmap", "mprotect"):
        assert answer(program, architecture, by_name[name], third=7) == killed
        assert answer(program, architecture, by_name[name], third=4) == killed
    i386, x32 = 0x40000003, 0x40000000
    for number in range(600):
        assert answer(program, i386, number, third=0) == killed
        assert answer(program, architecture, x32 | number, third=0) == killed


def test_the_architectures_are_the_kernels() -> None:
    elf = {"x86_64": 62, "aarch64": 183}  # elf-em.h
    for machine, (_, architecture) in locks.MACHINES.items():
        assert architecture == elf[machine] | 0x80000000 | 0x40000000  # 64 bits, little-endian


# --- what is in place ---------------------------------------------------------------------------

CODE = "def labeling_function(row):\n    return 7"


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@linux
def test_the_kernel_confirms_what_the_sandbox_says_of_itself() -> None:
    with Sandbox(CODE, columns=["a"], allowed_imports=[], rows=1) as running:
        assert {"unprivileged", "no_new_privs", "limits", "seccomp"} <= set(running.layers)
        process = running._process
        assert process is not None
        status = status_of(process.pid)
    assert status["Seccomp"] == ["2"]
    assert status["NoNewPrivs"] == ["1"]
    assert "0" not in status["Uid"] + status["Gid"] + status["Groups"]
    assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0


def on_a_kernel_without(call: int, first_argument: int, what: Callable[[], None]) -> None:
    """Do something where this call fails: a filter of the test's own, on a thread of its own."""
    lines = [
        (0x20, 0, 0, 0), (0x15, 0, 3, call), (0x20, 0, 0, 16), (0x15, 0, 1, first_argument),
        (0x06, 0, 0, 0x00050000 | 22), (0x06, 0, 0, 0x7FFF0000),
    ]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    prctl = ctypes.CDLL(None).prctl
    problems: list[BaseException] = []

    def run() -> None:
        try:
            assert prctl(38, ctypes.c_ulong(1), *(ctypes.c_ulong(0),) * 3) == 0
            described = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code))
            assert prctl(22, ctypes.c_ulong(2), described) == 0
            what()
        except BaseException as error:  # noqa: BLE001 - raised again where pytest sees it
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def without_seccomp(what: Callable[[], None]) -> None:
    on_a_kernel_without(157 if platform.machine() == "x86_64" else 167, 22, what)


@linux
def test_without_seccomp_no_labeling_code_runs(settings: Settings) -> None:
    settings.LOCAL_MODE = False

    def refused() -> None:
        with (
            pytest.raises(SandboxRefused, match="no seccomp filter") as caught,
            Sandbox(CODE, columns=[], allowed_imports=[], rows=1),
        ):
            pass
        assert "no_new_privs" in caught.value.detail
        host.layers_here.cache_clear()
        assert "Labeling code does not run" in health._sandbox()

    try:
        without_seccomp(refused)
    finally:
        host.layers_here.cache_clear()


@linux
def test_local_mode_runs_labeling_code_under_the_layers_there_are(settings: Settings) -> None:
    settings.LOCAL_MODE = True

    def votes() -> None:
        with Sandbox(CODE, columns=[], allowed_imports=[], rows=1) as running:
            assert running.votes([], 1).votes.tolist() == [7]
            assert set(LAYERS) - set(running.layers) == {"seccomp"} | missing_here()

    without_seccomp(votes)


@linux
def test_a_kernel_without_landlock_runs_labeling_code_and_says_so(settings: Settings) -> None:
    settings.LOCAL_MODE = False

    def votes() -> None:
        with Sandbox(CODE, columns=[], allowed_imports=[], rows=1) as running:
            assert running.votes([], 1).votes.tolist() == [7]
            assert "landlock" not in running.layers
            assert "seccomp" in running.layers

    on_a_kernel_without(444, 0, votes)


def missing_here() -> set[str]:
    """What this machine's kernel lacks by itself."""
    return set(LAYERS) - set(host.layers_here())


# --- where it is said -----------------------------------------------------------------------------


@linux
def test_health_names_the_layers_and_starts_one_process_for_it() -> None:
    host.layers_here.cache_clear()
    said = {health._sandbox() for _ in range(3)}
    assert said == {f"labeling code is held by {', '.join(host.layers_here())}"}
    assert host.layers_here.cache_info().misses == 1
