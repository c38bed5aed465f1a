"""`evergreen …` commands as processes of their own: their output, their whole family, their end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
EVERGREEN = Path(sys.executable).with_name("evergreen")
MARK = "EVERGREEN_TEST_FAMILY"
"""Environment variable that every descendant inherits: an orphan still shows whose child it was."""
POLL_S = 0.05
STOP_S = 20.0
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
_libc = ctypes.CDLL(None)
_pause = threading.Event()


def pause(seconds: float = POLL_S) -> None:
    """Between two looks at a condition."""
    _pause.wait(seconds)


def _prepare() -> None:
    """In the child: Ctrl-C works though a background pytest ignores it, and no graph outlives a killed pytest."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; empty once it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@dataclass
class Running:
    """One `evergreen` command, its output as it comes, and every process that it ever started."""

    process: subprocess.Popen[str]
    output: Path
    mark: str
    family: dict[int, psutil.Process] = field(default_factory=dict)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def pid_of(self, name: str) -> int:
        """Process id of the newest run of the launched process `name`, as the launcher printed it."""
        return int(re.findall(rf"\[{name}-\d+\]: process started with pid \[(\d+)\]", self.text())[-1])

    def children(self) -> list[psutil.Process]:
        """Its living descendants; orphans are none."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def look(self) -> None:
        """Remember the processes that are there now."""
        self.family.update({child.pid: child for child in self.children()})

    def wait_for(self, condition: Callable[[], object], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.look()
            if self.process.poll() is not None:
                raise AssertionError(f"ended early with {self.process.returncode}:\n{self.text()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing came within {timeout_s} s:\n{self.text()}")
            pause()

    def wait_text(self, text: str, timeout_s: float, since: int = 0) -> None:
        """Wait until it has written `text`, after the first `since` characters."""
        self.wait_for(lambda: text in self.text()[since:], timeout_s)

    def finish(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.look()
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {timeout_s} s:\n{self.text()}")
            pause()
        return self.process.returncode

    def relatives(self) -> list[psutil.Process]:
        """Every living descendant, orphans too."""
        found = {process.pid: process for process in self.family.values() if process.is_running()}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found[process.pid] = process
        found.pop(self.process.pid, None)
        return list(found.values())

    def survivors(self, timeout_s: float = 5.0) -> list[str]:
        """Processes of the family that outlived the command by `timeout_s`."""
        _, alive = psutil.wait_procs(self.relatives(), timeout=timeout_s)
        return [" ".join(words) for words in map(words_of, alive) if words]

    def close(self) -> None:
        """End it, and whatever it left."""
        self.look()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.relatives():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


class Commands:
    """Starts commands; their sockets lie in `folder`/run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.run_dir.mkdir(exist_ok=True)
        self._started: list[Running] = []

    def __call__(self, words: Sequence[object], **environment: object) -> Running:
        """Start `evergreen words`, with these variables in its environment too."""
        output = self.folder / f"output-{len(self._started)}.txt"
        mark = uuid.uuid4().hex
        given = {"EVERGREEN_RUN_DIR": self.run_dir, "NO_COLOR": 1, "COLUMNS": 160, MARK: mark, **environment}
        with output.open("w") as stream:
            process = subprocess.Popen(
                [str(EVERGREEN), *map(str, words)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | {name: str(value) for name, value in given.items()},
                text=True,
                start_new_session=True,
                preexec_fn=_prepare,  # noqa: PLW1509  it takes no locks
            )
        self._started.append(Running(process, output, mark))
        return self._started[-1]

    def close(self) -> None:
        """End what still runs."""
        for running in self._started:
            running.close()
