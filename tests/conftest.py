"""The whole graph, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
EVERGREEN = Path(sys.executable).with_name("evergreen")


@dataclass
class Running:
    """One `evergreen` command, its output as it comes, and every process that it ever started."""

    process: subprocess.Popen[str]
    output: Path
    family: dict[int, psutil.Process] = field(default_factory=dict)

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def look(self) -> None:
        """Remember the processes that are there now."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.family[child.pid] = child
        except psutil.NoSuchProcess:
            return

    def wait_for(self, condition: Callable[[], object], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.look()
            if self.process.poll() is not None:
                raise AssertionError(f"ended early with {self.process.returncode}:\n{self.text()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing came within {timeout_s} s:\n{self.text()}")
            time.sleep(0.05)

    def finish(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self.look()
            if time.monotonic() > deadline:
                raise AssertionError(f"still running after {timeout_s} s:\n{self.text()}")
            time.sleep(0.1)
        return self.process.returncode

    def survivors(self, timeout_s: float = 5.0) -> list[str]:
        """Processes of the family that outlived the command."""
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=timeout_s)
        return [" ".join(process.cmdline()) for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def environment(run_dir: Path) -> dict[str, str]:
    return {**os.environ, "EVERGREEN_RUN_DIR": str(run_dir), "NO_COLOR": "1", "COLUMNS": "160"}


@pytest.fixture
def evergreen(tmp_path: Path) -> Iterator[Callable[[Sequence[str]], Running]]:
    """Starts `evergreen …`; whatever is left is killed at the end, and would have failed `survivors` before."""
    started: list[Running] = []
    run_dir = tmp_path / "run"

    def start(words: Sequence[str]) -> Running:
        run_dir.mkdir(exist_ok=True)
        output = tmp_path / f"output-{len(started)}.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [str(EVERGREEN), *map(str, words)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment(run_dir),
                text=True,
                start_new_session=True,
            )
        started.append(Running(process, output))
        return started[-1]

    yield start
    for running in started:
        running.look()
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
            try:
                running.process.wait(20)
            except subprocess.TimeoutExpired:
                running.process.kill()
        for process in running.family.values():
            if process.is_running():
                process.kill()
