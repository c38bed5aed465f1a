"""What a disk may hold after power was lost at any instant.

`Disk` watches a folder while code works on it, by standing before `os.fsync`, `os.rename`, `os.replace` and `os.rmdir`,
and after each of them lays out what a power cut would have left:

- `worst`: only what was synced: contents by fsync of the file, names by fsync of the folder;
- `ahead`: every name, but only the contents that were synced (a file system that orders nothing);
- `mixed`: of each folder either its synced or its present names, by lot;
- `actual`: what the processes see, which is what a killed process leaves.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

VARIANTS = ("worst", "ahead", "mixed", "actual")


class Disk:
    """A folder, and what of it is really on disk."""

    def __init__(self, root: Path, after_each: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._after_each = after_each
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._kinds: dict[int, bool] = {}
        self._pins: dict[int, int] = {}
        self._lot = random.Random(1)  # noqa: S311  no secret
        self._watching = False
        self._real_fsync = os.fsync
        self.events = 0
        for folder, _, files in os.walk(root):
            self._sync_folder(Path(folder))
            for name in files:
                self._sync_file(Path(folder, name))
        monkeypatch.setattr(os, "fsync", self._fsync)
        for name in ("rename", "replace", "rmdir", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._watched(getattr(os, name)))
        self._watching = True

    def close(self) -> None:
        self._watching = False
        for descriptor in self._pins.values():
            os.close(descriptor)

    def lay_out(self, variant: str, into: Path) -> None:
        """Write what this kind of cut would leave now into `into`."""
        self._lay_out(self._root, self._root.stat().st_ino, variant, into)

    def _lay_out(self, actual: Path | None, inode: int, variant: str, into: Path) -> None:
        into.mkdir()
        synced = variant == "worst" or (variant == "mixed" and self._lot.random() < 0.5) or actual is None
        present = {} if actual is None else {path.name: path.lstat().st_ino for path in actual.iterdir()}
        for path in actual.iterdir() if actual else ():
            self._pin(path)
        for name, below in (self._names.get(inode, {}) if synced else present).items():
            if self._kinds[below]:
                path = actual / name if actual and present.get(name) == below else None
                self._lay_out(path, below, variant, into / name)
            elif variant == "actual":
                assert actual is not None
                (into / name).write_bytes((actual / name).read_bytes())
            else:
                (into / name).write_bytes(self._contents.get(below, b""))

    def _fsync(self, descriptor: int) -> None:
        self._real_fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not self._watching or not path.is_relative_to(self._root):
            return
        if path.is_dir():
            self._sync_folder(path)
        else:
            self._sync_file(path)
        self._event()

    def _watched(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: os.PathLike[str] | str, *others: object, **named: object) -> None:
            base = named.get("dir_fd")
            whole = Path(path) if base is None else Path(f"/proc/self/fd/{base}").readlink() / path
            real(path, *others, **named)
            if self._watching and whole.is_relative_to(self._root):
                self._event()

        return call

    def _event(self) -> None:
        self.events += 1
        self._watching = False
        try:
            self._after_each()
        finally:
            self._watching = True

    def _sync_folder(self, path: Path) -> None:
        self._pin(path)
        self._names[path.stat().st_ino] = {below.name: self._pin(below) for below in path.iterdir()}

    def _sync_file(self, path: Path) -> None:
        self._contents[self._pin(path)] = path.read_bytes()

    def _pin(self, path: Path) -> int:
        """Keep the inode's number from being given to another file, and remember what it is."""
        about = path.lstat()
        if about.st_ino not in self._pins:
            self._pins[about.st_ino] = os.open(path, os.O_PATH | os.O_NOFOLLOW)
            self._kinds[about.st_ino] = stat.S_ISDIR(about.st_mode)
        return about.st_ino
