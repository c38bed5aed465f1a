"""A server that loads yields, and gets everything back, also without privilege."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from policy_support import wait_for

from vla_policy.serving import priority

THREADS = 3
CHILD = f"""
import threading
for _ in range({THREADS - 1}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print(flush=True)
threading.Event().wait()
"""
UNPRIVILEGED = """
import os, subprocess, sys
from vla_policy.serving import priority
os.setgroups([]), os.setgid(65534), os.setuid(65534)  # nobody may not read our interpreter, so not before the imports
assert not priority.can_take_back_niceness()
child = subprocess.Popen(["sleep", "60"])
try:
    all_of_them = os.sched_getaffinity(0)
    priority.lower(child.pid)
    assert os.sched_getscheduler(child.pid) == os.SCHED_BATCH
    assert len(os.sched_getaffinity(child.pid)) == 1
    priority.restore(child.pid)
    assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
    assert os.sched_getaffinity(child.pid) == all_of_them
    assert os.getpriority(os.PRIO_PROCESS, child.pid) == os.getpriority(os.PRIO_PROCESS, 0)
finally:
    child.kill()
    child.wait()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def tasks(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


def test_every_thread_gets_back_what_was_taken(child: subprocess.Popen):
    wait_for("its threads", lambda: len(tasks(child.pid)) == THREADS)
    for task in tasks(child.pid):
        priority.lower(task)
        assert os.sched_getscheduler(task) == os.SCHED_BATCH
        assert os.sched_getaffinity(task) == {max(os.sched_getaffinity(0))}
    priority.restore(child.pid)
    for task in tasks(child.pid):
        assert os.sched_getscheduler(task) == os.SCHED_OTHER
        assert os.sched_getaffinity(task) == os.sched_getaffinity(0)
        assert os.getpriority(os.PRIO_PROCESS, task) == os.getpriority(os.PRIO_PROCESS, 0)


def test_without_privilege_it_is_taken_back_all_the_same():
    if os.geteuid() != 0:
        pytest.skip("only root can drop a privilege; the other test runs without one")
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_process_that_is_gone_is_no_error(child: subprocess.Popen):
    child.kill()
    child.wait()
    priority.lower(child.pid)
    priority.restore(child.pid)
