"""A delta for shipping: written where robots look for it, and proved before."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.model.travelling import Reached, percent, share
from gg_bridge.fetch.source import DELTAS, LocalPlace, Source, is_delta, parse
from vla_core import manifest as manifests
from vla_core.delta.build import Built, build
from vla_core.delta.header import SUFFIX
from vla_core.delta.rebuild import rebuild
from vla_core.errors import ConfigError
from vla_core.signing import body_digest
from vla_core.store.space import human

_LIKE_A_FILE = re.compile(rf"\.(?!{DELTAS[1:]}$)[A-Za-z][A-Za-z0-9]{{0,7}}$")
"""The end of a name as files have them; a version, as in `black-1.1.0`, is none."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A delta on disk."""

    path: Path
    built: Built
    sha256: str

    def facts(self) -> dict[str, Any]:
        """For programs."""
        header = self.built.header
        return {
            "delta": str(self.path),
            "old": header.base_label,
            "new": header.manifest.label,
            "size_bytes": self.built.size,
            "whole_bytes": header.manifest.size_bytes,
            "share": share(self.built.size, header.manifest.size_bytes),
            "sha256": self.sha256,
            "whole": header.whole,
        }

    def lines(self) -> list[str]:
        """For people."""
        header = self.built.header
        size, whole = self.built.size, header.manifest.size_bytes
        begin = f"{self.path}: {header.base_label} -> {header.manifest.label}, {human(size)}"
        if not whole:
            return [f"{begin}; {header.manifest.label} is a manifest without files: there is nothing to save"]
        lines = [f"{begin} instead of {human(whole)} ({percent(size, whole)})"]
        if size > 0.8 * whole:
            lines.append("that is hardly less than the whole: the two were not trained from one another")
        return lines


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a delta is written.

    Attributes:
        path: the delta's file, or a folder.
        is_folder: whether it gets the name that robots look for.
    """

    path: Path
    is_folder: bool

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read `--out`; nothing is made.

        Raises:
            ConfigError: it is an address, or neither a folder's name nor that of a delta.
        """
        if "://" in text:
            raise ConfigError(
                f"--out {text}: a delta is written on this machine; give a path here, and upload what comes out "
                "(docs/deltas.md shows how)"
            )
        path, is_folder = Path(text), not text.endswith(SUFFIX)
        if is_folder and path.exists() and not path.is_dir():
            raise ConfigError(f"--out {text} is a file; a delta's name ends in {SUFFIX}")
        if not is_folder and path.is_dir():
            raise ConfigError(
                f"--out {text} is a folder; write {text}/ to have the delta in it, or choose another name"
            )
        if is_folder and not path.is_dir() and not text.endswith("/") and _LIKE_A_FILE.search(path.name):
            raise ConfigError(f"--out {text}: a delta's name ends in {SUFFIX}; write {text}/ if you mean a folder")
        return cls(path, is_folder)

    def prepared(self, old: Path) -> Path:
        """The delta's file, in a folder that is made where there is none; `old` is the base, which names it.

        Raises:
            ConfigError: nothing can be written there.
        """
        folder = self.path if self.is_folder else self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # told before the long work, not after it
                pass
        except OSError as error:
            raise ConfigError(f"--out {self.path}: nothing can be written to {folder}: {error.strerror}") from error
        name = f"{body_digest(manifests.read_text(old / manifests.FILE_NAME))}{SUFFIX}"
        return folder / name if self.is_folder else self.path


def check_whole(address: str) -> None:
    """See that robots can find a whole model by the address that a delta gives them.

    Raises:
        ConfigError: it is none that means the same on a robot as here, or is a delta's.
    """
    place = parse(Source(address))
    if isinstance(place, LocalPlace) and (address.startswith("~") or not place.path.is_absolute()):
        raise ConfigError(
            f"--whole {address} is a path of this machine; robots need an address, such as https://host/path or "
            "s3://bucket/prefix, or file:/path if it lies on them"
        )
    if is_delta(place):
        raise ConfigError(f"--whole {address} is a delta's address; give that of the whole model")


def ship(old: Path, new: Path, out: Destination, *, whole: str, reached: Reached) -> Shipped:
    """Write the delta from `old` to `new`, and see that it leads there.

    Raises:
        ConfigError: nothing can be written to `out`.
        DeltaError: it would not lead there: a disk or this program is at fault, and nothing is written.
    """
    path = out.prepared(old)
    sizes = {name: entry.size for name, entry in manifests.load(new).files.items()}
    trial = path.with_name(f"{path.name}.trial")
    try:
        built = build(old, new, trial, whole=whole, reached=lambda name, done: reached(name, done, sizes[name]))
        for name in built.header.files:
            rebuild(
                trial, old, name, lambda _content: None, lambda name, done: reached(f"{name}, proof", done, sizes[name])
            )
        trial.replace(path)
    finally:
        trial.unlink(missing_ok=True)
    return Shipped(path, built, manifests.sha256_file(path))
