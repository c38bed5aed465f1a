"""A deployment whose address is a delta itself, for example the only artifact of a Greengrass component.

Where it cannot be used, the whole model comes from the address that the delta's header names, or from `X` where the
delta lies in `X.deltas/`. `sha256` of such a source is of the model's manifest.json, whichever way it comes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from gg_bridge.fetch import deltas
from gg_bridge.fetch.errors import FetchError
from gg_bridge.fetch.job import Job
from gg_bridge.fetch.source import HttpPlace, LocalPlace, Place, S3Place, Source, parse, whole_of
from gg_bridge.fetch.transfer import Remote
from vla_core import signing
from vla_core.delta import rebuild
from vla_core.delta.header import Header
from vla_core.errors import DeltaError, StoreError


class NeedsWholeError(Exception):
    """The delta is of no use here.

    Attributes:
        place: where the whole model is.
        body: digest of what its manifest must say; "" where the delta did not get so far.
    """

    def __init__(self, place: Place, body: str) -> None:
        super().__init__(place)
        self.place, self.body = place, body


def fetch_delta(job: Job, place: Place, remote: Remote | None) -> str:
    """Build the model that the delta at `place` leads to, and return its label.

    Args:
        job: the fetch.
        place: of the delta.
        remote: to download it with; None for a file of this machine.

    Raises:
        NeedsWholeError: it cannot be used, but it is known where the whole model is.
        FetchError: it cannot be used, and nobody knows where the whole model is.
    """
    header: Header | None = None
    try:
        delta = _bring(job, place, remote)
        header = rebuild.read_header(delta)
        _check(job, header)
        return deltas.build_model(job, delta, header, _base_of(job, header))
    except (DeltaError, StoreError) as error:
        reason = str(error)
        cause: Exception = error
    except FetchError as error:
        if error.retryable or header is not None:  # another model than was asked for is another one whole, too
            raise
        reason, cause = str(error), error
    whole = _whole(place, header)
    if whole is not None and header is None and job.source.sha256 and not is_pinned_by_manifest(whole):
        whole = None  # the hash that was given says nothing about an archive
    if whole is None:
        raise FetchError(
            f"{reason}; where the whole model is, {job.source.shown} does not say: deploy that instead", retryable=False
        ) from cause
    deltas.note_fallback(job, reason)
    raise NeedsWholeError(whole, signing.body_digest(header.text) if header else "") from cause


def is_pinned_by_manifest(place: Place) -> bool:
    """Whether a manifest's SHA-256 pins what is at `place`; that of an archive is the archive's."""
    if isinstance(place, LocalPlace):
        return not place.path.is_file()
    return not (isinstance(place, HttpPlace | S3Place) and place.is_archive)


def _bring(job: Job, place: Place, remote: Remote | None) -> Path:
    if remote is not None:
        return deltas.download(job, remote, "", None)
    if not isinstance(place, LocalPlace):
        raise TypeError(f"{place} needs a remote")
    if not rebuild.is_whole(place.path):
        raise DeltaError(f"{place.path} is damaged")
    return place.path


def _check(job: Job, header: Header) -> None:
    job.check_version(header.manifest)
    if job.source.sha256:
        job.check_hash(hashlib.sha256(header.text.encode()).hexdigest(), f"the manifest in {job.source.shown}")


def _base_of(job: Job, header: Header) -> str:
    for label, digest in deltas.find_bases(job):
        if digest == header.base_body:
            return label
    raise DeltaError(f"{header.base_label}, which it was made against, is not in the store")


def _whole(place: Place, header: Header | None) -> Place | None:
    if header is not None and header.whole:
        return parse(Source(header.whole))
    return whole_of(place)
