"""A model that comes as one file: an archive here or elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from gg_bridge.fetch import deltas
from gg_bridge.fetch.errors import FetchError
from gg_bridge.fetch.job import Job
from gg_bridge.fetch.transfer import Download, Expected, Remote
from vla_core import archives
from vla_core.errors import ManifestError

ARCHIVE_PART = "archive.part"


def fetch_archive(remote: Remote, job: Job, open_deltas: deltas.OpenRemote | None = None) -> str:
    """Download, unpack and commit an archive, or do with a delta that lies beside it, and return the label."""
    if open_deltas is not None and (label := deltas.fetch_beside(job, open_deltas)):
        return label
    resumed = (job.place / ARCHIVE_PART).exists()
    try:
        return unpack_archive(download_archive(remote, job), job)
    except ManifestError:
        if not resumed or job.source.sha256:
            raise
        # No hash told whether its beginning outlived a power cut, or is of another file: once more from the start.
        for path in job.place.glob(f"{Path(ARCHIVE_PART).stem}.*"):
            path.unlink()
        return unpack_archive(download_archive(remote, job), job)


def download_archive(remote: Remote, job: Job) -> Path:
    """Bring the archive into the staging folder; room is made for it and for what will come out of it."""
    part, meter = job.place / ARCHIVE_PART, job.meter
    name = remote.shown("").rpartition("/")[2]
    if part.exists():
        meter.found(name, part.stat().st_size)

    def announce(total: int) -> None:
        meter.total_bytes = total
        here = part.stat().st_size if part.exists() else 0
        job.store.make_room(total - here + total, job.place.name)  # weights hardly shrink: what comes out is as long

    def reached(size: int) -> None:
        if not meter.total_bytes and size:
            raise FetchError(
                f"{remote.shown('')}: the sender does not say how long it is, so it cannot be known to fit",
                retryable=False,
            )
        meter.reached(name, size)

    expected = Expected(sha256=job.source.sha256)
    Download(remote, "", part, expected, reached=reached, cancelled=job.cancelled, announce=announce).run()
    return part


def unpack_archive(archive: Path, job: Job) -> str:
    """Unpack into the staging folder, commit, and return the label."""
    manifest, text = archives.read_manifest(archive)
    job.check_version(manifest)
    job.check_body(text)
    job.store.trust.check(text, f"{archive}: {manifest.label}")
    if job.store.has_sound(manifest.label, text):
        return manifest.label
    shutil.rmtree(job.model, ignore_errors=True)
    job.store.make_room(manifest.size_bytes, job.place.name)
    job.meter.say("unpacking")
    archives.unpack(archive, job.model)
    job.meter.say("verifying")
    return job.store.commit(job.model)
