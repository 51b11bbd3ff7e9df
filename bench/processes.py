"""Memory, CPU time and open files of a process, from the Linux kernel."""

import re
import time
from pathlib import Path


def proportional_kib(pid: int) -> int:
    """Return the memory of a process in KiB. Shared pages count in proportion (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, user and system."""
    # The clock of clock_getcpuclockid(3). /proc/<pid>/stat has the same value, but in steps of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def open_files(pid: int) -> int:
    """Return the number of file descriptors of a process, including sockets."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
