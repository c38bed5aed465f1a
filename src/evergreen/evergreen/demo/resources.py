"""What a demo claims of the machine, so that two demos never disturb each other."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
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
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("a+")
    with stream:
        if not _lock(stream):
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            raise ConfigError(
                f"another demo (process {owner}) is writing to {folder}; wait for it, stop it, or choose another --out"
            )
        with writing(folder):
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around whatever writes `path`, or into it.

    Raises:
        ConfigError: it cannot be written to, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(cannot_write(path, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    """What to tell the user when `path` cannot be written."""
    cure = "choose another folder with --out"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        cure = f"free some space, or {cure}"
    return f"cannot write to {path}: {error.strerror or error}; {cure}"


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Hold a ROS domain id that no other demo on this network stack holds.

    Discovery meets whoever shares the loopback interface: other users, other run folders, containers on the host's
    network. Abstract sockets are seen by exactly these, and the kernel removes them with the process.

    Raises:
        ConfigError: all are taken.
    """
    for domain in DOMAINS:
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                claim.bind(f"\0evergreen-ros-domain-{domain}")
            except OSError:
                continue
            yield domain
            return
    raise ConfigError(f"{len(DOMAINS)} demos hold all ROS domains {DOMAINS[0]} to {DOMAINS[-1]}; stop some")


@contextlib.contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """A folder below `base` for sockets, removed at the end.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = tempfile.TemporaryDirectory(prefix="demo-", dir=base)
    except OSError as error:
        raise ConfigError(
            f"cannot make a folder for sockets in {base}: {error.strerror}; set EVERGREEN_RUN_DIR to another one"
        ) from error
    with made as folder:
        yield Path(folder)


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
