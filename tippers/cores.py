"""The machine's processors, as far as they are ours."""

import os


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # fewer than the machine has, in a confined container
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
