"""Writing so that power loss at any instant leaves the old or the new, never half of one.

A rename is atomic, but neither it nor what it names is on disk before both were synced: first the file, then the
rename, then the folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vla_core.errors import StoreError

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""Of a stored model: readable by every process of the robot (LeRobot writes weights as 0600), executable by none."""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are absent, each on disk before anything is put into it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on disk."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Put every file below `folder`, then the folders themselves, on disk, with a stored model's modes.

    Raises:
        StoreError: something that is neither a file nor a folder, for example a link.
    """
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(parent, name)
            if not stat.S_ISREG(path.lstat().st_mode):
                raise StoreError(f"{path} is no plain file")
            path.chmod(FILE_MODE)
            _sync(path, os.O_RDONLY)
        for name in folders:
            if Path(parent, name).is_symlink():
                raise StoreError(f"{Path(parent, name)} is no plain folder")
        Path(parent).chmod(FOLDER_MODE)
        sync_folder(Path(parent))


def replace_text(path: Path, text: str, mode: int = FILE_MODE) -> None:
    """Put `text` in the place of a file."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, mode)

    temporary = path.with_name(path.name + ".new")
    with open(temporary, "w", encoding="utf-8", opener=opener) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line; one that a cut left unfinished before is ended first."""
    new = not path.exists()
    with path.open("ab+") as stream:
        if stream.seek(0, os.SEEK_END) > 0:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(line.encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(path.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
