"""The memory of a process with all that it starts, as the kernel counts it while it runs."""

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from resource import getpagesize
from typing import Any

LOOK_EVERY = 0.05  # seconds


def run_watched(command: list[str], **options: Any) -> dict[str, Any]:
    """What the command prints as JSON on its last line, and `peak_mb` beside it.

    The peak is of the sum of resident memory over its processes. Pages that they share count for
    each of them, which is against a side that forks. Linux only.
    """
    peak = 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _tree(process.pid))))
        time.sleep(LOOK_EVERY)
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {**json.loads(said.splitlines()[-1]), "peak_mb": peak / 2**20}


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # grows while it is read
        with suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * getpagesize()
    return 0
