"""A model that lies somewhere as a folder: its manifest first, then each file that is not here yet."""

from __future__ import annotations

from pathlib import Path

from gg_bridge.fetch import deltas
from gg_bridge.fetch.filling import copy_from_store, find_missing, link_from_store
from gg_bridge.fetch.job import Job
from gg_bridge.fetch.transfer import Download, Expected, Remote
from vla_core import manifest as manifests
from vla_core.manifest import FileEntry

PARTS = "parts"
"""Files on their way lie there, named by the hash that they shall have: what was begun serves any later version too."""


class FolderFetch:
    """One fetch of a folder."""

    def __init__(self, remote: Remote, job: Job, open_deltas: deltas.OpenRemote | None = None) -> None:
        self._remote, self._job, self._open_deltas = remote, job, open_deltas
        self._store, self._meter, self._model = job.store, job.meter, job.model
        self._parts = job.place / PARTS

    def run(self) -> str:
        """Fetch what is missing, commit it, and return its label."""
        self._parts.mkdir(exist_ok=True)
        text = self._read_manifest()
        manifest = manifests.parse(text, self._remote.shown(manifests.FILE_NAME))
        self._job.check_version(manifest)
        self._job.check_body(text)
        self._store.trust.check(text, self._remote.shown(manifests.FILE_NAME))
        if self._job.store.has_sound(manifest.label, text):
            return manifest.label
        self._meter.total_bytes = manifest.size_bytes
        missing = find_missing(self._job, manifest)
        link_from_store(self._job, missing)
        if self._open_deltas is not None:
            deltas.shorten(self._job, self._open_deltas, text, missing)
            self._meter.total_bytes = self._meter.done_bytes + sum(entry.size for entry in missing.values())
        if missing:
            self._store.make_room(sum(map(self._still_to_write, missing.values())), self._job.place.name)
        for name, entry in missing.items():
            self._bring(name, entry)
        (self._model / manifests.FILE_NAME).write_text(text, encoding="utf-8")
        self._meter.say("verifying")
        return self._store.commit(self._model)

    def _read_manifest(self) -> str:
        part = self._parts / manifests.FILE_NAME
        part.unlink(missing_ok=True)  # small, and another one may be there by now
        Download(
            self._remote,
            manifests.FILE_NAME,
            part,
            Expected(sha256=self._job.source.sha256),
            reached=lambda _size: self._meter.say(manifests.FILE_NAME),
            cancelled=self._job.cancelled,
            limit_bytes=manifests.MAX_BYTES,
        ).run()
        return manifests.read_text(part)

    def _still_to_write(self, entry: FileEntry) -> int:
        part = self._part(entry)
        return entry.size - (min(entry.size, part.stat().st_size) if part.exists() else 0)

    def _part(self, entry: FileEntry) -> Path:
        return self._parts / f"{entry.sha256}.part"

    def _bring(self, name: str, entry: FileEntry) -> None:
        target = self._model / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy_from_store(self._store, entry, target):
            self._meter.found(name, entry.size)
            return
        part = self._part(entry)
        if part.exists():
            self._meter.found(name, part.stat().st_size)
        Download(
            self._remote,
            name,
            part,
            Expected(entry.size, entry.sha256),
            reached=lambda size: self._meter.reached(name, size),
            cancelled=self._job.cancelled,
        ).run()
        part.replace(target)
        part.with_suffix(".about").unlink(missing_ok=True)
