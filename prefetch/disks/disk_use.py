"""What this process reads from disks beside our background readers: what the running job reads."""

from __future__ import annotations

import sys
import threading

OUR_THREADS = ("warmstack-read", "warmstack-chore", "warmstack-probe", "warmstack-asked", "warmstack-headers")
"""What reads for later jobs, or for nobody's job. Threads that fill memory for a load have another name."""
_COUNTER = b"read_bytes:"


def foreign_read_bytes() -> int | None:
    """Bytes that came from disks so far for any thread but ours; only differences mean something.

    None where the system does not count them by thread: outside Linux, and in sandboxes that hide the counters. Takes
    about 50 us, and 50 us for each thread of ours.
    """
    if not sys.platform.startswith("linux"):
        return None
    named = [thread for thread in threading.enumerate() if thread.name.startswith(OUR_THREADS)]
    ours = [thread.native_id for thread in named if thread.native_id is not None]  # None: it is about to begin
    try:
        return _counted("/proc/self/io") - sum(_counted(f"/proc/self/task/{thread}/io") for thread in ours)
    except (OSError, ValueError):
        return None


def _counted(path: str) -> int:
    """What block devices and network file systems were asked for, page faults included."""
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(_COUNTER):
                return int(line[len(_COUNTER) :])
    raise ValueError(path)
