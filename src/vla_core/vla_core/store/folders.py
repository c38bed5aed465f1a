"""Folders of a store: how large they are, and how they vanish at one stroke."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from vla_core.store import durable

TRASH = "trash."
"""Begins the name of what is being removed; whoever next looks for room removes what a cut left of it."""
_BLOCK_BYTES = 512
"""Unit of st_blocks, whatever the file system."""


def size_of(folder: Path) -> int:
    """Bytes of all files below, as the disk counts them; what vanishes meanwhile counts nothing.

    A file that several models share counts for each with its part, so that the parts of all make up the whole.
    """
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                about = Path(parent, name).lstat()
                total += about.st_blocks * _BLOCK_BYTES // max(1, about.st_nlink)
    return total


def is_trash(path: Path, staging: Path) -> bool:
    """Whether `hide` made it."""
    return path.parent == staging and path.name.startswith(TRASH)


def hide(path: Path, staging: Path) -> Path:
    """Take `path` out of sight by one rename into `staging`, and return where it is now: what is visible is whole."""
    if is_trash(path, staging):
        return path
    trash = staging / f"{TRASH}{uuid.uuid4().hex}"
    path.rename(trash)
    durable.sync_folder(path.parent)
    return trash


def sweep(trash: Path) -> None:
    """Remove what was hidden; another process may be at it too."""
    if trash.is_dir() and not trash.is_symlink():
        shutil.rmtree(trash, onerror=_unless_gone)
    else:
        trash.unlink(missing_ok=True)


def _unless_gone(_call: object, _path: str, about: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(about[1], FileNotFoundError):
        raise about[1]
