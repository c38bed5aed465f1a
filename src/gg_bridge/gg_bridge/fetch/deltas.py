"""Bringing what changed instead of the whole: deltas that lie beside a model, made against one that is here.

Beside `<address of the model>` there may be `<address>.deltas/<digest of the old manifest>.delta` (docs/deltas.md). A
delta is only a way to travel. Where there is none, where it is damaged or does not fit, the files come whole, and the
log and the store's history say why; what was rebuilt is verified as if it had come whole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from gg_bridge.fetch.errors import FetchCancelled, FetchError
from gg_bridge.fetch.filling import find_missing, link_from_store
from gg_bridge.fetch.job import Job
from gg_bridge.fetch.transfer import Download, Expected, Remote
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.delta import rebuild as deltas
from vla_core.delta.header import SUFFIX, Header
from vla_core.errors import DeltaError, ManifestError, SignatureError, StoreError
from vla_core.manifest import FileEntry

FOLDER = "deltas"
"""Deltas on their way lie there, in the staging folder."""
WORTH_BYTES = 64 << 10
"""Less comes as fast whole: asking for a delta is a round trip, which takes 0.6 s by satellite."""
MAX_BASES = 4
"""So many are asked for, a round trip each; the first is the model that runs."""
_log = logging.getLogger(__name__)

OpenRemote = Callable[[], Remote]
"""Opens the place where the deltas lie."""


def shorten(job: Job, open_deltas: OpenRemote, text: str, missing: dict[str, FileEntry]) -> None:
    """Rebuild what can be rebuilt of the missing files of the model with the manifest `text`, and strike them off.

    Raises:
        FetchError: retryable only; whatever else goes wrong is noted, and the files stay missing.
    """
    size = sum(entry.size for entry in missing.values())
    if size < WORTH_BYTES:
        return
    body = signing.body_digest(text)
    with _falling_back(job):
        for base, delta in _beside(job, open_deltas, size):
            header = deltas.read_header(delta)
            if signing.body_digest(header.text) != body:
                raise DeltaError(f"the delta from {base} leads to another model")
            rebuild(job, delta, header, base, missing)
            forget(delta)  # room for the files that are still missing
            return


def fetch_beside(job: Job, open_deltas: OpenRemote) -> str:
    """A whole model from a delta that lies beside an archive; returns its label, "" where the archive is needed.

    Only where a version is asked for: an archive may have been replaced since the delta to it was made. And its hash
    says nothing about a delta, so where one was given only a signature will do.

    Raises:
        FetchError: retryable only.
    """
    if not job.source.version or (job.source.sha256 and not job.store.trust.required):
        return ""
    with _falling_back(job):
        for base, delta in _beside(job, open_deltas, None):
            header = deltas.read_header(delta)
            job.check_version(header.manifest)
            return build_model(job, delta, header, base)
    return ""


def build_model(job: Job, delta: Path, header: Header, base: str) -> str:
    """The whole model that a delta leads to, committed; returns its label.

    Raises:
        DeltaError: it cannot be built.
    """
    job.store.trust.check(header.text, f"{delta.name}: {header.manifest.label}")
    if job.store.has_sound(header.manifest.label, header.text):
        return header.manifest.label
    missing = find_missing(job, header.manifest)
    with job.store.hold(base, note=False):
        link_from_store(job, missing)
        job.store.make_room(sum(entry.size for entry in missing.values()), job.place.name)
        rebuild(job, delta, header, base, missing)
    if missing:
        raise DeltaError(f"the delta from {base} lacks {min(missing)}")
    (job.model / manifests.FILE_NAME).write_text(header.text, encoding="utf-8")
    job.meter.say("verifying")
    return job.store.commit(job.model)


def rebuild(job: Job, delta: Path, header: Header, base: str, missing: dict[str, FileEntry]) -> None:
    """Make those of the missing files that are in the delta, and strike them off; `base` is held.

    Raises:
        DeltaError: the first one that could not be made; those before it are.
    """
    folder = job.store.folder(base)
    for name in [name for name in header.files if name in missing]:
        _rebuild_one(job, delta, folder, name, missing[name].size)
        del missing[name]
    job.way.base, job.way.delta_bytes = base, delta.stat().st_size
    _log.info("%s: rebuilt from %s and a delta of %d bytes", header.manifest.label, base, job.way.delta_bytes)


def _rebuild_one(job: Job, delta: Path, folder: Path, name: str, size: int) -> None:
    target, part = job.model / name, job.place / FOLDER / "built"
    part.parent.mkdir(exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)

    def reached(_name: str, done: int) -> None:
        job.meter.say(f"rebuilding {name}, {100 * done // max(1, size)} %")
        if job.cancelled.is_set():
            raise FetchCancelled

    with part.open("wb") as out:
        deltas.rebuild(delta, folder, name, out.write, reached)
    part.replace(target)


def find_bases(job: Job) -> Iterator[tuple[str, str]]:
    """Labels of the stored models and the digests of their manifests: current, last good, then the latest used."""
    store = job.store
    preferred: list[str] = []
    with contextlib.suppress(StoreError):  # a damaged state
        state = store.state()
        preferred = [state.current, state.last_good, *reversed(state.recent)]
    for label in dict.fromkeys([*preferred, *store.labels()]):
        with contextlib.suppress(StoreError, ManifestError, FileNotFoundError):
            yield label, signing.body_digest(manifests.read_text(store.folder(label) / manifests.FILE_NAME))


def _beside(job: Job, open_deltas: OpenRemote, whole_bytes: int | None) -> Iterator[tuple[str, Path]]:
    """The deltas that there are, downloaded one by one, with the labels that they were made against, which are held."""
    bases = [found for found, _ in zip(find_bases(job), range(MAX_BASES), strict=False)]
    if not bases:
        return
    remote = open_deltas()
    for base, digest in bases:
        with job.store.hold(base, note=False):  # making room must not evict it
            try:
                delta = download(job, remote, f"{digest}{SUFFIX}", whole_bytes)
            except FetchError as error:
                if error.retryable:
                    raise
                _log.debug("no delta from %s: %s", base, error)
            else:
                yield base, delta


def download(job: Job, remote: Remote, name: str, whole_bytes: int | None) -> Path:
    """Bring a delta into the staging folder; with `whole_bytes`, what would come otherwise, only a shorter one.

    Raises:
        FetchError: it is not there, or too long; or, retryable, the line is bad.
        DeltaError: it is damaged.
        StoreFull: delta and files do not fit at once.
    """
    part = job.place / FOLDER / (name or f"given{SUFFIX}")
    part.parent.mkdir(exist_ok=True)
    meter, found_bytes = job.meter, job.meter.done_bytes
    resumed, announced = part.exists(), False
    if resumed:
        meter.found(part.name, part.stat().st_size)

    def announce(total: int) -> None:
        nonlocal announced
        announced = True
        meter.total_bytes = found_bytes + total
        here = part.stat().st_size if part.exists() else 0
        job.store.make_room(total - here + (whole_bytes or 0), job.place.name)

    def reached(size: int) -> None:
        if size and not announced:
            raise FetchError(f"{remote.shown(name)}: the sender does not say how long it is", retryable=False)
        meter.reached(part.name, size)

    while True:
        Download(
            remote,
            name,
            part,
            Expected(),
            reached=reached,
            cancelled=job.cancelled,
            announce=announce,
            limit_bytes=whole_bytes,
        ).run()
        try:
            if deltas.is_whole(part):
                return part
            problem = DeltaError(f"{remote.shown(name)} is damaged")
        except DeltaError as error:
            problem = error
        forget(part)
        if not resumed:
            raise problem
        resumed = False  # its beginning was damaged here, or of another: once more from the start


def forget(delta: Path) -> None:
    """Remove a delta, and what is known about it."""
    for path in delta.parent.glob(f"{delta.stem}.*"):
        path.unlink()


@contextlib.contextmanager
def _falling_back(job: Job) -> Iterator[None]:
    """Whatever makes a delta useless is noted; what passes by itself, and a full disk, is not its fault."""
    try:
        yield
    except (DeltaError, ManifestError, SignatureError, StoreError) as error:
        note_fallback(job, str(error))
        _clear(job)
    except FetchError as error:
        if error.retryable:
            raise
        note_fallback(job, str(error))
        _clear(job)


def note_fallback(job: Job, reason: str) -> None:
    """Say in log and history why files come whole."""
    job.way.fallback = reason
    _log.warning("%s: no delta could be used, so files come whole: %s", job.source.shown, reason)
    job.meter.say(f"whole, since no delta could be used: {reason}")


def _clear(job: Job) -> None:
    for path in (job.place / FOLDER).glob("*"):
        path.unlink()
