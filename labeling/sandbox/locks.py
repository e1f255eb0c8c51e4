"""What a sandboxed process gives up, for good, before it reads the code that users write.

The child loads this file by its path, for nothing of the product is importable there; the host and
the tests read the names. Standard library only. Each layer is a function that answers whether it is
in place: on a kernel that lacks one the host decides whether that will do.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Collection, Mapping

# No account's number. Not nobody's, 65534: the embedded PostgreSQL may run as that one.
NO_ACCOUNT = 65533
LINUX = sys.platform == "linux"

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# include/uapi/linux/landlock.h: how many file rights each version of the interface knows, and the
# version that brought the network and signals. Newer versions know more, which stay unhandled.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
TCP_SINCE, SCOPES_SINCE = 4, 6
CREATE_RULESET, RESTRICT_SELF = 444, 446  # the same number on every architecture

# System calls by name: their number on x86_64 and on aarch64, None where there is none.
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # the two pipes
    "read": (0, 63), "write": (1, 64), "close": (3, 57),
    # memory; that nothing of it may be executed is checked beside
    "brk": (12, 214), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "mremap": (25, 216), "madvise": (28, 233),
    # what the interpreter does by itself
    "futex": (202, 98), "sched_yield": (24, 124), "getrandom": (318, 278),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "restart_syscall": (219, 128),
    # the clock, where the kernel does not map it into the process
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "time": (201, None),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# Answered EACCES: an honest mistake (open, an import, a time zone) fails its row and not the run.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "openat2": (437, 437),
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78),
}  # fmt: skip
NOT_EXECUTABLE = ("mmap", "mprotect")
PROT_EXEC = 4

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*

# seccomp's answers and the few instructions of classic BPF that the filter is made of.
KILL_PROCESS, ALLOW, ANSWER_EACCES = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EACCES
LOAD, IF_EQUAL, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
CALL_NUMBER, ARCHITECTURE, THIRD_ARGUMENT = 0, 4, 32  # offsets in struct seccomp_data

LAYERS = ("unprivileged", "parent_death", "no_new_privs", "landlock", "limits", "seccomp")


def lock(wanted: Collection[str], limits: Mapping[str, int], parent: int) -> list[str]:
    """Put the wanted layers in place, in the only order that works; those that are.

    OSError: the kernel has Landlock, but will not apply it.
    """
    steps: dict[str, Callable[[], bool]] = {
        "unprivileged": leave_root,
        "parent_death": lambda: die_with(parent),  # changing the user forgets it, so after that
        "no_new_privs": lambda: _prctl(PR_SET_NO_NEW_PRIVS, 1),
        "landlock": deny_files,  # takes a descriptor, so before the limits
        "limits": lambda: limit(limits),
        "seccomp": filter_calls,
    }
    return [name for name, step in steps.items() if name in wanted and step()]


def leave_root() -> bool:
    """Be a user that owns nothing; true of a process that was not root to begin with."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setgid(NO_ACCOUNT)
        os.setuid(NO_ACCOUNT)
    except OSError:  # a container may map no such user
        return False
    return True


def die_with(parent: int) -> bool:
    """Have the kernel kill us when the thread that started us ends."""
    asked = _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)
    return asked


def deny_files() -> bool:
    """Landlock: every right that this kernel handles, and none granted. False if it has none."""
    version = landlock_version()
    if version == 0:
        return False
    rights = FILE_RIGHTS[min(version, max(FILE_RIGHTS))]
    attributes = struct.pack("<Q", (1 << rights) - 1)
    if version >= TCP_SINCE:
        attributes += struct.pack("<Q", 0b11)  # bind and connect
    if version >= SCOPES_SINCE:
        attributes += struct.pack("<Q", 0b11)  # abstract sockets and signals to those outside
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t(len(attributes))
    rules = libc.syscall(ctypes.c_long(CREATE_RULESET), attributes, size, 0)
    if rules < 0 or libc.syscall(ctypes.c_long(RESTRICT_SELF), rules, 0) != 0:
        raise OSError(ctypes.get_errno(), "Landlock is there, but cannot be applied")
    os.close(rules)
    return True


def landlock_version() -> int:
    """The version of this kernel's Landlock; 0 where it has none, or it is off since boot."""
    if not LINUX:
        return 0
    call, ask_for_version = ctypes.c_long(CREATE_RULESET), 1
    version: int = ctypes.CDLL(None).syscall(call, None, ctypes.c_size_t(0), ask_for_version)
    return max(version, 0)


def limit(limits: Mapping[str, int]) -> bool:
    """Resource limits by name, soft and hard alike; never above what is there already."""
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
    return True


def filter_calls() -> bool:
    """Seccomp: the filter below, on this thread, which is the only one. False if there is none."""
    machine = os.uname().machine
    if not LINUX or machine not in MACHINES:
        return False
    code = program(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, and where
    described = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    return _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described)


def program(machine: str) -> bytes:
    """The filter as the kernel reads it: 8 bytes an instruction.

    Another architecture's calls are killed (a 64-bit process can make 32-bit ones), and so is
    everything that is not named above; x32 calls have a bit in their number that no name has.
    """
    column, architecture = MACHINES[machine]
    allowed = {name: both[column] for name, both in ALLOWED.items()}
    checks = [
        *((number, "protection") for name, number in allowed.items() if name in NOT_EXECUTABLE),
        *((number, "allow") for name, number in allowed.items() if name not in NOT_EXECUTABLE),
        *((both[column], "refuse") for both in REFUSED.values()),
    ]
    numbers = [(number, end) for number, end in checks if number is not None]
    start = 3
    kill = start + len(numbers)
    ends = {"protection": kill + 1, "allow": kill + 4, "refuse": kill + 5}
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 0, kill - 2, architecture),
        (LOAD, 0, 0, CALL_NUMBER),
        # A jump counts from the next instruction, and only forward.
        *(
            (IF_EQUAL, ends[end] - position - 1, 0, number)
            for position, (number, end) in enumerate(numbers, start)
        ),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, THIRD_ARGUMENT),  # the protection, of mmap and mprotect alike
        (IF_ANY_BIT, 0, 1, PROT_EXEC),
        (RETURN, 0, 0, KILL_PROCESS),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, ANSWER_EACCES),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _prctl(option: int, first: int, second: bytes | int = 0) -> bool:
    """Whether the kernel did what was asked; no kernel but Linux does."""
    if not LINUX:
        return False
    call = ctypes.CDLL(None).prctl
    third = second if isinstance(second, bytes) else ctypes.c_ulong(second)
    none = ctypes.c_ulong(0)
    return bool(call(option, ctypes.c_ulong(first), third, none, none) == 0)
