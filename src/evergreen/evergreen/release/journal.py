"""What a release has made so far, on this computer's disk: a killed release can be cleaned up after.

One file a release, locked while it runs. What is about to be made is noted before: at worst there is nothing to remove.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from evergreen.release.errors import ReleaseError

FORMAT = 1
SUFFIX = ".json"
_DAMAGED = (ValueError, KeyError, TypeError)
"""What reading notes ends with that were cut short or are somebody else's."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that stays behind where a release ends in the middle.

    Attributes:
        kind: `image`, `local_image`, `component` or `object`.
        where: registry, engine, component or bucket.
        what: `repository:tag`, image, version or key.
    """

    kind: str
    where: str
    what: str

    @property
    def shown(self) -> str:
        """For people."""
        match self.kind:
            case "image":
                return f"image {self.where}/{self.what}"
            case "local_image":
                return f"image {self.what} on this computer"
            case "component":
                return f"component {self.where} {self.what}"
        return f"s3://{self.where}/{self.what}"


@dataclass(slots=True)
class Journal:
    """One release's notes.

    Attributes:
        path: its file.
        account, region: of AWS.
        label: `name@version`.
        leftovers: what is there and not in use yet.
    """

    path: Path
    account: str
    region: str
    label: str
    leftovers: list[Leftover] = field(default_factory=list)
    _stream: IO[str] | None = None

    def note(self, leftover: Leftover) -> None:
        """Something is about to be made."""
        self.leftovers.append(leftover)
        self._write()

    def forget(self, leftover: Leftover) -> None:
        """It is gone, or it is in use."""
        self.leftovers = [other for other in self.leftovers if other != leftover]
        self._write()

    def settle(self, used: Sequence[Leftover] = ()) -> None:
        """All of it is in use now; so is `used`, which releases that ended early may have made and noted."""
        self.leftovers = []
        self._write()
        if used:
            with unfinished(self.path.parent) as others:
                for other in others:
                    if (other.account, other.region) == (self.account, self.region):
                        other.strike(used)

    def strike(self, used: Sequence[Leftover]) -> None:
        """These are in use."""
        for leftover in used:
            self.forget(leftover)

    def close(self) -> None:
        """End; without leftovers the file goes too."""
        if self._stream is None:
            return
        if not self.leftovers:
            self.path.unlink(missing_ok=True)
        self._stream.close()
        self._stream = None

    def _write(self) -> None:
        if self._stream is None:
            raise ValueError("the journal is closed")
        document = {
            "format": FORMAT,
            "account": self.account,
            "region": self.region,
            "label": self.label,
            "leftovers": [asdict(leftover) for leftover in self.leftovers],
        }
        self._stream.seek(0)
        self._stream.truncate()
        json.dump(document, self._stream, indent=1)
        self._stream.flush()
        os.fsync(self._stream.fileno())


def folder_of(environment: Mapping[str, str]) -> Path:
    """Where the notes lie."""
    state = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME") or Path.home(), ".local/state")
    return Path(state, "evergreen", "releases")


def begin(folder: Path, account: str, region: str, label: str) -> Journal:
    """A new journal, locked.

    Raises:
        ReleaseError: the folder cannot be written.
    """
    path = folder / f"{uuid.uuid4().hex[:12]}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("x+", encoding="utf-8")
    except OSError as error:
        raise ReleaseError(f"{folder} cannot be written: {error.strerror}; a release keeps its notes there") from error
    fcntl.flock(stream, fcntl.LOCK_EX)
    journal = Journal(path, account, region, label, _stream=stream)
    journal.settle()
    return journal


def unreadable(folder: Path) -> list[Path]:
    """Files of releases that ended, which do not tell what those made."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}")) if _is_unreadable(path)]


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[list[Journal]]:
    """The journals that ended releases left, locked; those of running ones are not among them."""
    found: list[Journal] = []
    try:
        found += filter(None, map(_open, sorted(folder.glob(f"*{SUFFIX}"))))
        yield found
    finally:
        for journal in found:
            journal.close()


def _open(path: Path) -> Journal | None:
    """The journal, locked; None where its release runs, or where it cannot be read."""
    try:
        stream = path.open("r+", encoding="utf-8")
    except OSError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _read(path, stream)
    except (OSError, *_DAMAGED):
        stream.close()
        return None


def _is_unreadable(path: Path) -> bool:
    try:
        with path.open("r+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _read(path, stream)
    except (BlockingIOError, FileNotFoundError):  # its release runs, or has just ended
        return False
    except (OSError, *_DAMAGED):
        return True
    return False


def _read(path: Path, stream: IO[str]) -> Journal:
    document: dict[str, Any] = json.load(stream)
    leftovers = [Leftover(**entry) for entry in document["leftovers"]]
    return Journal(path, document["account"], document["region"], document["label"], leftovers, stream)
