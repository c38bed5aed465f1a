"""Lets a server that loads yield to the one that drives, in a way that can be taken back.

Niceness cannot: without privilege a process may raise it and never lower it again (setpriority(2), RLIMIT_NICE), and
threads that ONNX Runtime or torch start while a model loads inherit it for good. SCHED_IDLE has the same catch
(sched(7)). What anybody may undo is SCHED_BATCH, which never preempts another task on waking, and the set of
processors: so a loading server is confined to one of them, and the others stay free. Where the kernel would let us take
niceness back (privilege, or RLIMIT_NICE), it is raised too.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

NICE = 10
"""A tenth of the share of a process at 0."""
LOWEST = 19
"""Niceness ends there."""
NEEDED_RLIMIT = 20
"""RLIMIT_NICE that allows niceness 0: the limit is 20 - niceness."""
CAP_SYS_NICE = 23
"""From linux/capability.h."""
PASSES = 2
"""A thread that starts while the threads are listed takes after one that may not have been set yet."""


def can_take_back_niceness() -> bool:
    """Whether this process may lower niceness."""
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= NEEDED_RLIMIT:
        return True
    status = Path("/proc/self/status").read_text()
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_SYS_NICE & 1)


def lower(pid: int) -> None:
    """Make the process, which has just started, and all threads that it will start yield to others."""
    allowed = sorted(os.sched_getaffinity(0))
    with contextlib.suppress(OSError):  # a kernel or container that forbids it only costs a smoother swap
        os.sched_setaffinity(pid, allowed[-1:])
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
        if can_take_back_niceness():
            os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, LOWEST))


def restore(pid: int) -> None:
    """Give every thread of the process what ours has."""
    allowed = os.sched_getaffinity(0)
    for _ in range(PASSES):
        for task in _tasks(pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.sched_setaffinity(task, allowed)
                os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))
                ours = os.getpriority(os.PRIO_PROCESS, 0)
                if os.getpriority(os.PRIO_PROCESS, task) > ours and can_take_back_niceness():
                    os.setpriority(os.PRIO_PROCESS, task, ours)


def _tasks(pid: int) -> list[int]:
    try:
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []
