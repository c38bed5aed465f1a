"""`fetch`: from an address to a label in the store."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from gg_bridge.fetch.archived import fetch_archive, unpack_archive
from gg_bridge.fetch.delta_source import NeedsWholeError, fetch_delta, is_pinned_by_manifest
from gg_bridge.fetch.errors import FetchCancelled, FetchError
from gg_bridge.fetch.folders import PARTS, FolderFetch
from gg_bridge.fetch.http import HttpRemote
from gg_bridge.fetch.hub import open_hub
from gg_bridge.fetch.job import Job
from gg_bridge.fetch.progress import Meter, Progress
from gg_bridge.fetch.source import (
    HttpPlace,
    HubPlace,
    LocalPlace,
    Place,
    S3Place,
    Source,
    deltas_of,
    is_delta,
    parse,
)
from gg_bridge.fetch.transfer import Remote
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import EvergreenError, ManifestError, SignatureError, StoreBusy, StoreError, StoreFull
from vla_core.store import Store

BUSY_RETRY_S = 0.2
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_SOMEBODY_MUST_ACT = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
"""Of a local source: nothing of that passes by itself."""
_log = logging.getLogger(__name__)


def ignore(_progress: Progress) -> None:
    """For those who do not watch."""


def fetch(
    source: Source,
    store: Store,
    progress: Callable[[Progress], None] = ignore,
    cancelled: threading.Event | None = None,
) -> str:
    """Bring a model into the store, unless it is there, and return its label.

    What a cut left behind is used by the next fetch of the same source. Whatever happens, the store stays as it was
    until the whole model appears in it.

    Args:
        source: what to fetch.
        store: where to; its trust decides whose models are taken.
        progress: called in this thread, after every block.
        cancelled: set from another thread to end the fetch.

    Raises:
        FetchError: it could not be had. `retryable` says whether the same call may succeed later.
    """
    cancelled = threading.Event() if cancelled is None else cancelled
    meter = Meter(progress)
    with _as_fetch_errors(source):
        place = parse(source)
        if known := _known(source, store):
            with contextlib.suppress(StoreError):
                store.record("present", label=known, source=source.shown)
            return known
        with _own_staging(source, store, meter, cancelled) as job:
            try:
                label = _bring(place, job)
            except (ManifestError, SignatureError):
                store.discard(source.key)  # a next try starts anew
                raise
            _conclude(job, label)
            return label


def _conclude(job: Job, label: str) -> None:
    """Note what was fetched and clear up; the model is there, and stays, though this cannot be done."""
    source, store = job.source, job.store
    way = {name: value for name, value in asdict(job.way).items() if value}
    came = job.meter.transferred_bytes
    try:
        body = _body(store, label)
        store.record("fetched", label=label, source=source.shown, sha256=source.sha256, body=body, came=came, **way)
        store.discard(source.key)
    except (StoreError, ManifestError, OSError) as error:
        _log.warning("%s was fetched; %s", label, error)


def _bring(place: Place, job: Job) -> str:
    if not is_delta(place):
        return _bring_model(place, job, with_deltas=True)
    try:
        return fetch_delta(job, place, None if isinstance(place, LocalPlace) else open_remote(place))
    except NeedsWholeError as needed:
        source = job.source if is_pinned_by_manifest(needed.place) else replace(job.source, sha256="")
        job = replace(job, source=source, body=needed.body)
        return _bring_model(needed.place, job, with_deltas=False)


def _bring_model(place: Place, job: Job, *, with_deltas: bool) -> str:
    if isinstance(place, LocalPlace):
        return _local(place.path, job)
    remote = open_remote(place)
    open_deltas = partial(_open_deltas, place) if with_deltas else None
    if isinstance(place, HttpPlace | S3Place) and place.is_archive:
        return fetch_archive(remote, job, open_deltas)
    return FolderFetch(remote, job, open_deltas).run()


def _open_deltas(place: HttpPlace | S3Place | HubPlace) -> Remote:
    return open_remote(deltas_of(place))


def open_remote(place: HttpPlace | S3Place | HubPlace) -> Remote:
    """Where files of that place come from."""
    if isinstance(place, HttpPlace):
        return HttpRemote(place.url)
    if isinstance(place, HubPlace):
        return open_hub(place, os.environ)
    from gg_bridge.fetch.s3 import S3Remote  # noqa: PLC0415  boto3 takes long to import

    return S3Remote(place)


def _local(path: Path, job: Job) -> str:
    if path.is_file():
        if job.source.sha256:
            job.check_hash(manifests.sha256_file(path), str(path))
        return unpack_archive(path, job)
    model = model_folder(path)
    job.check_version(manifests.load(model))
    job.check_body(manifests.read_text(model / manifests.FILE_NAME))
    if job.source.sha256:
        job.check_hash(manifests.sha256_file(model / manifests.FILE_NAME), str(model / manifests.FILE_NAME))
    job.meter.say("copying")
    return job.store.adopt(model)


def model_folder(path: Path) -> Path:
    """The folder itself, or its only subfolder with a model: Greengrass unpacks an archive into a folder of its own."""
    if not path.exists():
        raise FetchError(f"{path} does not exist on this machine", retryable=False)
    if (path / manifests.FILE_NAME).is_file():
        return path
    below = sorted(found.parent for found in path.glob(f"*/{manifests.FILE_NAME}"))
    if len(below) == 1:
        return below[0]
    many = f"{len(below)} folders with one" if below else f"no {manifests.FILE_NAME}"
    raise FetchError(f"{path} holds {many}: name the model's folder", retryable=False)


def _known(source: Source, store: Store) -> str:
    """The label of the model with this very hash, if it was fetched before and is here and whole: no network needed."""
    if not source.sha256:
        return ""
    for entry in store.history():
        if entry.get("event") == "fetched" and entry.get("sha256") == source.sha256:
            label = str(entry.get("label"))
            with contextlib.suppress(StoreError, ManifestError, FileNotFoundError):
                if source.version in ("", store.verify(label).version) and _body(store, label) == entry.get("body"):
                    return label
    return ""


def _body(store: Store, label: str) -> str:
    """What the stored model is, as `_conclude` noted it: a label that was evicted may come back with other content."""
    return signing.body_digest(manifests.read_text(store.folder(label) / manifests.FILE_NAME))


@contextlib.contextmanager
def _own_staging(source: Source, store: Store, meter: Meter, cancelled: threading.Event) -> Iterator[Job]:
    """The staging folder of this source for oneself; waits for another process that fetches the same."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                folder = stack.enter_context(store.fetching(source.key))
                break
            except StoreBusy:
                meter.say("waiting: another process fetches the same")
                if cancelled.wait(BUSY_RETRY_S):
                    raise FetchCancelled from None
        try:
            yield Job(source, store, folder, meter, cancelled)
        finally:
            for empty in (folder / PARTS, folder):  # a mistyped address leaves nothing behind
                with contextlib.suppress(OSError):
                    empty.rmdir()


@contextlib.contextmanager
def _as_fetch_errors(source: Source) -> Iterator[None]:
    try:
        yield
    except FetchError:
        raise
    except (StoreBusy, StoreFull) as error:  # a disk gets room again
        raise FetchError(str(error), retryable=True) from error
    except StoreError as error:  # a disk that cannot be written says nothing about the model
        raise FetchError(str(error), retryable=isinstance(error.__cause__, OSError)) from error
    except EvergreenError as error:
        raise FetchError(str(error), retryable=False) from error
    except OSError as error:
        full = error.errno in _DISK_FULL
        passing = full or not isinstance(error, _SOMEBODY_MUST_ACT)
        cure = "the disk is full; what came is kept for the next try" if full else str(error)
        raise FetchError(f"{source.shown}: {cure}; the store is as it was", retryable=passing) from error
