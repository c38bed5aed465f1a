"""Verifies a model in a process of its own, which yields to all others.

Hashing gigabytes in the policy node would take the interpreter lock from the loop that drives, and a thread of low
priority that is preempted while it holds that lock would stall the loop for as long.

    python -m vla_policy.serving.verification --parent-pid PID (--store ROOT --label NAME@VERSION | --folder FOLDER)

Exit codes: 0 for a sound model; 2 with one line that says what is wrong with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from vla_core.errors import EvergreenError, ManifestError
from vla_core.signing import Trust, trust_of
from vla_core.store import Store
from vla_core.store.checks import verify_folder
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.serving.lifetime import die_with
from vla_policy.serving.priority import NICE

EXIT_FAULTY = 2
POLL_S = 0.01
"""A small model is verified in a tenth of a second, most of which is Python's start."""
ERROR_PREFIX = "error: "


def verify(words: Sequence[str], cancelled: threading.Event) -> None:
    """Run the program with `words` and wait for it.

    Raises:
        ManifestError: what is wrong with the model.
        ServerUnavailableError: `cancelled` was set, or somebody ended the program.
    """
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--parent-pid", str(os.getpid()), *words]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        while process.poll() is None:
            if cancelled.wait(POLL_S):
                raise ServerUnavailableError("verifying was cancelled")
        said = process.communicate()[1].strip().rpartition("\n")[2]
    finally:
        process.kill()
        process.wait()
    if process.returncode == EXIT_FAULTY:
        raise ManifestError(said.removeprefix(ERROR_PREFIX))
    if process.returncode:
        raise ServerUnavailableError(
            f"verifying ended with exit code {process.returncode}: {said or 'it said nothing'}"
        )


def in_store(root: Path, label: str) -> list[str]:
    """The words for a model in a store."""
    return ["--store", str(root), "--label", label]


def in_folder(folder: Path) -> list[str]:
    """The words for a model without one."""
    return ["--folder", str(folder)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the program."""
    parser = argparse.ArgumentParser(description="Verify one model.")
    parser.add_argument("--parent-pid", type=int, default=0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--label", default="")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    os.nice(NICE)
    try:
        if given.parent_pid:
            die_with(given.parent_pid)
        if given.store is not None:
            Store(given.store, trust_of(os.environ)).verify(given.label)
        else:
            verify_folder(given.folder, Trust())
    except EvergreenError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr, flush=True)
        return EXIT_FAULTY
    return 0


if __name__ == "__main__":
    sys.exit(main())
