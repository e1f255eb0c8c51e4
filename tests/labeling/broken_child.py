"""The sandbox's inside as if its language filter did not exist, for tests of what the kernel stops.

Started in place of child.py, which it runs: but every builtin and every module that an attacker
could wish for is there before the lock, and an import hands out the module itself.
"""

import _thread  # noqa: F401 - this and the next are there for the code in the sandbox
import ctypes  # noqa: F401
import gc  # noqa: F401
import io  # noqa: F401
import mmap  # noqa: F401
import posix  # noqa: F401
import resource  # noqa: F401
import signal  # noqa: F401
import socket  # noqa: F401
import subprocess  # noqa: F401
import sys
import threading  # noqa: F401
import time  # noqa: F401
from pathlib import Path

CHILD = Path(__file__).parents[2] / "labeling" / "sandbox" / "child.py"
MODULES = (
    "_thread", "builtins", "ctypes", "datetime", "gc", "io", "math", "mmap", "os", "pickle",
    "posix", "re", "resource", "signal", "socket", "statistics", "subprocess", "sys", "threading",
    "time",
)  # fmt: skip

if __name__ == "__main__":
    held = {name: sys.modules.get(name) for name in MODULES}
    scope = {"__name__": "child", "__file__": str(CHILD)}
    exec(compile(CHILD.read_text(), str(CHILD), "exec"), scope)
    real = {name: held[name] or sys.modules[name] for name in MODULES}
    scope["namespaces"] = lambda _: real  # type: ignore[assignment]  # its own, ours to replace
    scope["main"]()  # type: ignore[operator]  # a function, in a dict of texts
