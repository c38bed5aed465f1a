"""What a model in the staging folder lacks, and what the store has of it already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from gg_bridge.fetch.job import Job
from vla_core import manifest as manifests
from vla_core.errors import ManifestError, StoreError
from vla_core.manifest import FileEntry, Manifest
from vla_core.store import Store


def find_missing(job: Job, manifest: Manifest) -> dict[str, FileEntry]:
    """The files that the staging folder lacks; what it has beside the listed ones is removed."""
    job.model.mkdir(exist_ok=True)
    for path in job.model.rglob("*"):
        if not path.is_dir() and path.relative_to(job.model).as_posix() not in manifest.files:
            path.unlink()
    missing = {}
    for name, entry in manifest.files.items():
        if is_right(job.model / name, entry):
            job.meter.found(name, entry.size)
        else:
            missing[name] = entry
    return missing


def link_from_store(job: Job, missing: dict[str, FileEntry]) -> None:
    """Take files that a stored model has too, under whatever name, and strike them off.

    They are linked, which costs neither time nor room: what is in a store never changes. A file system that knows no
    links leaves them missing, to be copied once there is room.
    """
    for name, entry in list(missing.items()):
        target = job.model / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in _twins(job.store, entry):
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:
                continue
            if is_right(target, entry):
                job.meter.found(name, entry.size)
                del missing[name]
                break
            target.unlink()


def copy_from_store(store: Store, entry: FileEntry, target: Path) -> bool:
    """Copy a file that a stored model has too; whether there was a sound one."""
    for path in _twins(store, entry):
        shutil.copyfile(path, target)
        if is_right(target, entry):
            return True
        target.unlink()
    return False


def is_right(path: Path, entry: FileEntry) -> bool:
    """Whether the file is what the manifest says; reads all of it."""
    return path.is_file() and path.stat().st_size == entry.size and manifests.sha256_file(path) == entry.sha256


def _twins(store: Store, entry: FileEntry) -> Iterator[Path]:
    for label in store.labels():
        try:
            folder, files = store.folder(label), store.manifest(label).files
        except (ManifestError, StoreError):
            continue
        yield from (folder / name for name, other in files.items() if other == entry and (folder / name).is_file())
