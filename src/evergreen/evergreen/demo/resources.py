"""What a demo claims of the machine, so that two demos never disturb each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vla_core.errors import ConfigError

DOMAINS = range(60, 101)
"""ROS domain ids tried, away from 0, which a robot on the same network is likely to use; above 101 the ports of Linux'
ephemeral range begin."""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process.

    Raises:
        ConfigError: another demo writes there, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a+")
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from error
    with stream:
        if not _lock(stream):
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            raise ConfigError(
                f"another demo (process {owner}) is writing to {folder}; wait for it, stop it, or choose another --out"
            )
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


@contextlib.contextmanager
def free_domain(folder: Path) -> Iterator[int]:
    """Hold a ROS domain id that no other demo of this user holds; locks lie in `folder`.

    Raises:
        ConfigError: all are taken.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for domain in DOMAINS:
        with (folder / f"domain-{domain}.lock").open("a+") as stream:
            if _lock(stream):
                yield domain
                return
    raise ConfigError(f"{len(DOMAINS)} demos hold all ROS domains {DOMAINS[0]} to {DOMAINS[-1]}; stop some")


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
