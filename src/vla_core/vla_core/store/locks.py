"""Locks between processes, by flock(2): they end with whoever holds them, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from vla_core.errors import StoreBusy

WAIT_S = 30.0
"""A change of the store takes milliseconds, the eviction of a model of gigabytes a second: who waits longer waits for
a stopped process."""
_RETRY_S = 0.01


@contextlib.contextmanager
def exclusive_file(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, made where absent.

    Raises:
        StoreBusy: another process held it for all of `WAIT_S`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline_s:
                raise StoreBusy(f"{path} is held by another process for {WAIT_S:.0f} s; `fuser {path}` names it")
            time.sleep(_RETRY_S)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def folder(path: Path, *, shared: bool) -> Iterator[None]:
    """Hold a folder: `shared` to keep it from being removed, else alone.

    Raises:
        StoreBusy: somebody holds it otherwise, or replaced it just now.
        FileNotFoundError: there is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _try(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
            raise StoreBusy(f"{path} is in use by another process")
        if not _still_there(path, descriptor):
            raise StoreBusy(f"{path} was replaced just now; try again")
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a live process holds this folder."""
    try:
        with folder(path, shared=False):
            return False
    except StoreBusy:
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
