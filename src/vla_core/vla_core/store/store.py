"""The store itself: a folder that several processes share."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import ManifestError, StoreBusy, StoreError, StoreFull
from vla_core.manifest import Manifest
from vla_core.signing import Trust
from vla_core.store import durable, locks
from vla_core.store import history as histories
from vla_core.store import state as states
from vla_core.store.checks import inspect_folder, verify_folder
from vla_core.store.folders import TRASH, hide, is_trash, size_of, sweep
from vla_core.store.labels import split_label
from vla_core.store.space import Space, choose_evictions, order_by_use
from vla_core.store.state import StoreState

STORE_VARIABLE = "EVERGREEN_STORE"
MODEL_PART = "model"
"""Where in a staging folder the model is built; beside it lie an archive and what resuming needs."""
_RESERVED = "reserved"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADOPT_RETRY_S = 0.05
_GLANCE_S = 2.0
"""Whoever looks for something to evict has a model's folder for an instant; so long is waited for that to pass."""
_log = logging.getLogger(__name__)


def default_root(environment: Mapping[str, str]) -> Path:
    """Where the store lies when nobody says otherwise: `$EVERGREEN_STORE`, else in the user's home."""
    return Path(environment.get(STORE_VARIABLE) or "~/.local/share/evergreen/store").expanduser()


class Store:
    """Models on disk. Any number of processes may use one store; each change is made under a lock."""

    def __init__(self, root: Path, trust: Trust | None = None, space: Space | None = None) -> None:
        """Open the store, and make its folders where they are absent.

        Args:
            root: of the store.
            trust: whose models it takes; without it anybody's.
            space: how much of the disk it may take.

        Raises:
            StoreError: the folders cannot be made.
        """
        self.root = root.absolute()
        self.trust = Trust() if trust is None else trust
        self.space = Space() if space is None else space
        self._models, self._staging = self.root / "models", self.root / "staging"
        try:
            for folder in (self._models, self._staging):
                durable.make_folder(folder)
        except OSError as error:
            raise StoreError(
                f"store {self.root} cannot be made: {error.strerror}; name another with {STORE_VARIABLE} or --store"
            ) from error

    # --- what is there ------------------------------------------------------------------------------------------------

    def labels(self) -> tuple[str, ...]:
        """The models in the store, `name@version`, sorted."""
        found = [path.parent for path in self._models.glob(f"*/*/{manifests.FILE_NAME}")]
        named = [path for path in found if all(map(manifests.NAME.fullmatch, (path.parent.name, path.name)))]
        return tuple(sorted(f"{path.parent.name}@{path.name}" for path in named))

    def folder(self, label: str) -> Path:
        """Where a model lies.

        Raises:
            StoreError: there is no such model; the message lists those that there are.
        """
        path = self._path(label)
        if not (path / manifests.FILE_NAME).is_file():
            known = ", ".join(self.labels()) or "nothing"
            raise StoreError(
                f"{label} is not in the store {self.root}, which has {known}; `evergreen model fetch` gets it"
            )
        return path

    def manifest(self, label: str) -> Manifest:
        """A model's manifest, unverified."""
        return manifests.load(self.folder(label))

    def verify(self, label: str) -> Manifest:
        """Check a model whole: every hash, size and content, no file too many, signed as this store demands.

        Raises:
            StoreError: there is no such model, or (StoreBusy) it is being evicted at this moment.
            ManifestError: it is damaged.
            SignatureError: it is not signed as it must be.
        """
        with self.hold(label, note=False) as folder:
            return verify_folder(folder, self.trust)

    def size_bytes(self, label: str) -> int:
        """What a model takes on disk."""
        return size_of(self.folder(label))

    def in_use(self, label: str) -> bool:
        """Whether a live process holds the model."""
        return locks.is_held(self.folder(label))

    @contextlib.contextmanager
    def hold(self, label: str, *, note: bool = True) -> Iterator[Path]:
        """Keep a model from being evicted for as long as the block, or the process, lasts; `note` counts as a use.

        Raises:
            StoreError: it is absent, or (StoreBusy) being evicted at this moment.
        """
        folder = self.folder(label)
        with self._looking(label), contextlib.ExitStack() as stack:
            _share(stack, folder)
            try:
                if note:
                    with self._changing():
                        self._note_use(label)
            except StoreError as error:  # a full disk must not keep a robot from running what it has
                _log.warning("%s; the use of %s is not noted", error, label)
            if not (folder / manifests.FILE_NAME).is_file():  # whoever evicted it had looked before it was held
                raise StoreBusy(f"{label} was evicted just now; fetch it again")
            yield folder

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> StoreState:
        """Current, last good and refused models.

        Raises:
            StoreError: damaged beyond what power loss can do, or written by a later release.
        """
        return states.read(self.root)

    def set_current(self, label: str) -> None:
        """Let the robot boot this model.

        Raises:
            StoreError: it is not in the store.
        """
        with self._changing():
            self.folder(label)
            before = self._state_to_change()
            states.write(self.root, replace(before, current=label).used(label))
            self._note("current", label=label, before=before.current)

    def mark_good(self, label: str) -> None:
        """Remember that this model passed its probation: the one to go back to.

        Raises:
            StoreError: it is not in the store.
        """
        with self._changing():
            self.folder(label)
            before = self._state_to_change()
            states.write(self.root, replace(before, last_good=label).used(label))
            self._note("last_good", label=label, before=before.last_good)

    def refuse(self, label: str, reason: str) -> None:
        """Remember that this model shall not be tried again, and why; it need not be in the store."""
        with self._changing():
            states.write(self.root, states.read(self.root).refusing(label, reason))
            self._note("refused", label=label, reason=reason)

    def allow(self, label: str) -> None:
        """Forget that a model was refused."""
        with self._changing():
            before = states.read(self.root)
            if label in before.refused:
                states.write(self.root, before.allowing(label))
                self._note("allowed", label=label)

    # --- bringing models in -------------------------------------------------------------------------------------------

    def staging(self, key: str) -> Path:
        """The folder for one fetch, the same for the same key; `fetching` also keeps others out of it."""
        if not _KEY.fullmatch(key) or key.startswith(TRASH):
            raise StoreError(f"staging key {key!r} may hold letters, digits, '.', '_' and '-', at most 128")
        folder = self._staging / key
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def fetching(self, key: str) -> Iterator[Path]:
        """Have the staging folder of `key` for oneself.

        Raises:
            StoreBusy: another process has it.
        """
        folder = self.staging(key)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.folder(folder, shared=False))
            except FileNotFoundError:
                raise StoreBusy(f"{folder} was removed just now; try again") from None
            yield folder

    def discard(self, key: str) -> None:
        """Remove a staging folder and all in it."""
        with self._removing() as trash:
            if (folder := self._staging / key).is_dir():
                trash.append(hide(folder, self._staging))

    def make_room(self, size_bytes: int, key: str = "") -> tuple[str, ...]:
        """Evict what must go so that `size_bytes` can be written, and return what went.

        First abandoned downloads, then the models that were used longest ago; never current, last good or a model in
        use. With `key`, the bytes count as promised to that staging folder, so that two fetches never both count on
        them.

        Raises:
            StoreFull: it cannot fit; nothing was evicted.
            StoreBusy: what was to be evicted came into use at this moment.
        """
        with self._removing() as trash:
            evictable = self._evictable(key)
            available = self.space.available(
                shutil.disk_usage(self.root).free,
                size_of(self._models) + size_of(self._staging) if self.space.limit_bytes else 0,
                self._promised(key),
            )
            sizes = [(str(path.relative_to(self.root)), size_of(path)) for path in evictable]
            chosen = choose_evictions(size_bytes, available, sizes)
            gone = tuple(self._evict(self.root / path, trash) for path in chosen)
            if key:
                folder = self.staging(key)
                promise = str(size_bytes + size_of(folder))
                _write(lambda: (folder / _RESERVED).write_text(promise), trash)
            return gone

    def commit(self, staged: Path) -> str:
        """Verify a folder below `staging/` and let it appear among the models; returns its label.

        A label that is there with the same content stays (damaged files of it are replaced, and a signature is taken
        over); with other content the store keeps what it has.

        Raises:
            ManifestError, SignatureError: it is not what it must be.
            StoreError: the label exists with other content.
        """
        if not staged.absolute().is_relative_to(self._staging) or staged.absolute() == self._staging:
            raise StoreError(f"{staged} is not below {self._staging}: only staged folders can be committed")
        manifest = verify_folder(staged, self.trust)
        with self._writing():
            durable.sync_tree(staged)
        target = self._path(manifest.label)
        with self._removing() as trash:
            if (target / manifests.FILE_NAME).is_file():
                self._merge(staged, target, manifest)
                trash.append(hide(staged, self._staging))
            else:
                durable.make_folder(target.parent)
                if target.exists():  # a folder without manifest: not made by a store
                    trash.append(hide(target, self._staging))
                staged.rename(target)
                durable.sync_folder(target.parent)
                durable.sync_folder(staged.parent)
                self._note_use(manifest.label)
                self._note("added", label=manifest.label, size_bytes=manifest.size_bytes, signed_by=_signer(manifest))
        return manifest.label

    def adopt(self, folder: Path) -> str:
        """Copy a model's folder into the store; returns its label. A sound copy that is there is left as it is.

        Raises:
            ManifestError, SignatureError: it is not what it must be.
            StoreFull: it does not fit.
            StoreError: the label exists with other content.
        """
        manifest = inspect_folder(folder, self.trust)
        text = manifests.read_text(folder / manifests.FILE_NAME)
        key = f"adopt-{signing.body_digest(text)[:32]}"
        deadline_s = time.monotonic() + locks.WAIT_S
        while True:
            if self.has_sound(manifest.label, text):
                return manifest.label
            try:
                with self.fetching(key) as place:
                    return self._copy_in(folder, manifest, key, place / MODEL_PART)
            except StoreBusy:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_ADOPT_RETRY_S)

    def has(self, label: str, text: str) -> bool:
        """Whether the store has this label with the manifest `text`; its files are not read.

        Raises:
            StoreError: it has the label with another manifest.
        """
        path = self._path(label) / manifests.FILE_NAME
        try:
            there = manifests.read_text(path)
        except FileNotFoundError:
            return False
        if signing.body_digest(there, str(path)) != signing.body_digest(text):
            raise StoreError(
                f"{label} is in the store with other content: a version never changes; give the new one another version"
            )
        return there == text or manifests.parse(text).signature is None

    def has_sound(self, label: str, text: str) -> bool:
        """As `has`, and every file of it was read and is right; committing another copy repairs one that is damaged.

        Raises:
            StoreError: it has the label with another manifest.
            SignatureError: what is there is not signed as it must be.
        """
        if not self.has(label, text):
            return False
        try:
            self.verify(label)
        except ManifestError:
            return False
        except StoreError:
            if (self._path(label) / manifests.FILE_NAME).is_file():
                raise
            return False  # another process evicted it since
        return True

    # --- throwing away ------------------------------------------------------------------------------------------------

    def evictable(self) -> tuple[str, ...]:
        """What `gc` would evict, the longest unused first: labels, and `staging/…` for abandoned downloads."""
        return tuple(self._call(path) for path in self._evictable(""))

    def gc(self) -> tuple[str, ...]:
        """Evict every model that is neither current, last good nor in use, and abandoned downloads; returns them."""
        with self._removing() as trash:
            gone = []
            for path in self._evictable(""):
                with contextlib.suppress(StoreBusy):
                    gone.append(self._evict(path, trash))
            return tuple(gone)

    # --- audit trail --------------------------------------------------------------------------------------------------

    def record(self, event: str, **facts: object) -> None:
        """Add a line to the audit trail, with the time; facts must be JSON's kinds."""
        with self._changing():
            histories.append(self.root, event, facts)

    def history(self) -> Iterator[Mapping[str, Any]]:
        """The audit trail, oldest first; lines that a cut left unfinished are passed over."""
        return histories.read(self.root)

    # --- inner workings -----------------------------------------------------------------------------------------------

    def _path(self, label: str) -> Path:
        name, version = split_label(label)
        return self._models / name / version

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with self._writing(), locks.exclusive_file(self.root / "lock"):
            yield

    @contextlib.contextmanager
    def _removing(self) -> Iterator[list[Path]]:
        """As `_changing`; what is put into the list is removed once the lock is free: gigabytes take seconds."""
        trash: list[Path] = []
        with self._writing():
            try:
                with self._changing():
                    yield trash
            finally:
                for path in trash:
                    sweep(path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the disk as errors of the store."""
        try:
            yield
        except OSError as error:
            kind = StoreFull if error.errno in _FULL else StoreError
            raise kind(f"store {self.root} cannot be written: {error}; it is as it was before") from error

    @contextlib.contextmanager
    def _looking(self, label: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None and Path(error.filename) == self._path(label):
                raise StoreBusy(f"{label} was evicted just now; fetch it again") from error
            raise

    def _state_to_change(self) -> StoreState:
        """The state; where it is damaged, an empty one: naming a model anew is the cure."""
        try:
            return states.read(self.root)
        except states.StateDamagedError as error:
            _log.warning("%s", error)
            self._note("state_lost", reason=str(error))
            return StoreState()

    def _note_use(self, label: str) -> None:
        """Let `label` be the latest used."""
        with self._leaving_damage():
            states.write(self.root, states.read(self.root).used(label))

    @contextlib.contextmanager
    def _leaving_damage(self) -> Iterator[None]:
        """Leave a damaged state alone: written anew in passing, it would no longer tell that anything is lost."""
        try:
            yield
        except states.StateDamagedError as error:
            _log.warning("%s", error)

    def _evictable(self, key: str) -> list[Path]:
        """What may go, the first to go first: abandoned staging folders, then models by their last use."""
        stale = [path for path in sorted(self._staging.iterdir()) if path.name != key and not locks.is_held(path)]
        try:
            state = states.read(self.root)
        except states.StateDamagedError as error:
            _log.warning("%s; no model is evicted, since nobody knows which ones are needed", error)
            return stale
        free = [label for label in self.labels() if label not in state.kept]
        models = [self._path(label) for label in order_by_use(free, state.recent)]
        return stale + [path for path in models if not locks.is_held(path)]

    def _promised(self, key: str) -> int:
        """Bytes that other fetches under way will still write."""
        promised = 0
        for path in self._staging.iterdir():
            if path.name != key and locks.is_held(path):
                with contextlib.suppress(OSError, ValueError):
                    promised += max(0, int((path / _RESERVED).read_text()) - size_of(path))
        return promised

    def _call(self, path: Path) -> str:
        """How people call a model's folder or a staging folder."""
        in_staging = path.is_relative_to(self._staging)
        return f"staging/{path.name}" if in_staging else f"{path.parent.name}@{path.name}"

    def _evict(self, path: Path, trash: list[Path]) -> str:
        """Put a model or a staging folder into the trash; returns its name. StoreBusy where it is held by now."""
        what = self._call(path)
        holdable = path.is_dir() and not is_trash(path, self._staging)
        with locks.folder(path, shared=False) if holdable else contextlib.nullcontext():
            trash.append(hide(path, self._staging))
        if path.is_relative_to(self._models):
            with self._leaving_damage():
                state = states.read(self.root).without(what)
                _write(lambda: states.write(self.root, state), trash)
            self._note("evicted", label=what)
            with contextlib.suppress(OSError):  # other versions are there
                path.parent.rmdir()
        return what

    def _merge(self, staged: Path, target: Path, manifest: Manifest) -> None:
        """Bring what is there up to the staged copy of the same model: replace damaged files, take a signature."""
        text = manifests.read_text(staged / manifests.FILE_NAME)
        resign = not self.has(manifest.label, text) and self._may_resign(target, manifest)
        for name, entry in manifest.files.items():
            path = target / name
            if not path.is_file() or path.stat().st_size != entry.size or manifests.sha256_file(path) != entry.sha256:
                durable.make_folder(path.parent)
                (staged / name).replace(path)
                durable.sync_folder(path.parent)
                self._note("repaired", label=manifest.label, file=name)
        if resign:
            (staged / manifests.FILE_NAME).replace(target / manifests.FILE_NAME)
            durable.sync_folder(target)
            self._note("signed", label=manifest.label, signed_by=_signer(manifest))

    def _may_resign(self, target: Path, manifest: Manifest) -> bool:
        """Whether the staged signature, which was judged, is as good as the one that is there."""
        there = manifests.load(target).signature
        return there is None or (manifest.signature is not None and manifest.signature.key_id in self.trust.keys)

    def _copy_in(self, folder: Path, manifest: Manifest, key: str, place: Path) -> str:
        shutil.rmtree(place, ignore_errors=True)
        self.make_room(manifest.size_bytes + (folder / manifests.FILE_NAME).stat().st_size, key)
        try:
            with self._writing():
                for name in (manifests.FILE_NAME, *manifest.files):
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / name, place / name, follow_symlinks=False)
            return self.commit(place)
        finally:
            self.discard(key)

    def _note(self, event: str, **facts: object) -> None:
        """A line of the trail about a change that is made: it stands though the line could not be written."""
        try:
            histories.append(self.root, event, facts)
        except OSError as error:
            _log.warning("%s: %s is not in the audit trail: %s", self.root, event, error)


def _write(write: Callable[[], object], trash: list[Path]) -> None:
    """Write something small; where the disk is full, what lies in the trash makes room for it first."""
    try:
        write()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        while trash:
            sweep(trash.pop())
        write()


def _share(stack: contextlib.ExitStack, folder: Path) -> None:
    """Hold a model's folder until `stack` ends."""
    deadline_s = time.monotonic() + _GLANCE_S
    while True:
        try:
            stack.enter_context(locks.folder(folder, shared=True))
        except StoreBusy:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_ADOPT_RETRY_S)
        else:
            return


def _signer(manifest: Manifest) -> str:
    return manifest.signature.key_id if manifest.signature else ""
