"""One file over an unreliable line: resumed where it was cut, never more than it should be, and hashed at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gg_bridge.fetch.errors import ChangedError, CutError, FetchCancelled, FetchError
from vla_core.manifest import sha256_file

MAX_FRUITLESS = 6
"""Tries in a row that bring not one new byte, after which the fetch gives up: about 25 s of waiting between them."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.4, 30.0
BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Opened:
    """A file on its way.

    Attributes:
        start: offset in bytes of the first byte that comes: the one asked for, or 0 from a sender that cannot resume.
        total: bytes of the whole file; None where the sender does not say.
        tag: what the sender calls this content (its ETag); "" where it does not.
        blocks: the bytes.
    """

    start: int
    total: int | None
    tag: str
    blocks: Iterator[bytes]


class Remote(Protocol):
    """A folder somewhere else."""

    def open(self, name: str, start: int, tag: str) -> AbstractContextManager[Opened]:
        """Ask for a file from byte `start` on, if it still is the one called `tag`.

        Raises:
            CutError: it may work if asked again. Reading the blocks raises it too.
            ChangedError: it is another file by now, or shorter than `start`.
            FetchError: it will not work.
        """

    def shown(self, name: str) -> str:
        """The file's address for people, without secrets."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file beforehand; None or "" for nothing."""

    size: int | None = None
    sha256: str = ""


def nothing(_total: int) -> None:
    """For those who need not know how long a file is."""


class Download:
    """Brings one file into `part`, which may hold the beginning from an earlier try."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        part: Path,
        expected: Expected,
        *,
        reached: Callable[[int], None],
        cancelled: threading.Event,
        announce: Callable[[int], None] = nothing,
        limit_bytes: int | None = None,
    ) -> None:
        """Prepare the download of `name`.

        Args:
            remote: where it comes from.
            name: what it is called there.
            part: where it goes.
            expected: size and hash.
            reached: told the file's size after every block.
            cancelled: ends the download.
            announce: told the whole size before the first byte is written; may raise to refuse it.
            limit_bytes: the most it may have where its size is not expected.
        """
        self._remote, self._name, self._part, self._expected = remote, name, part, expected
        self._reached, self._cancelled, self._announce = reached, cancelled, announce
        self._limit_bytes = expected.size if expected.size is not None else limit_bytes
        self._about = part.with_suffix(".about")
        self._shown = remote.shown(name)

    def run(self) -> None:
        """Download until the file is whole and right.

        Raises:
            FetchError: it could not be had; what came stays in `part`, unless it is wrong.
            OSError: it could not be written.
        """
        resumed = self._size() > 0
        self._persist()
        if self._is_right():
            return
        self._forget()
        if resumed:  # the beginning was of another file, or damaged on this disk: once more from the start
            self._persist()
            if self._is_right():
                return
            self._forget()
        raise FetchError(
            f"{self._shown} does not match its SHA-256, {self._expected.sha256}: it was changed or damaged where it is",
            retryable=False,
        )

    def _is_right(self) -> bool:
        return not self._expected.sha256 or sha256_file(self._part) == self._expected.sha256

    def _persist(self) -> None:
        """Try until the file is whole, or tries bring nothing new."""
        best, fruitless = self._size(), 0
        while not self._is_whole():
            if self._cancelled.is_set():
                raise FetchCancelled
            try:
                self._once()
            except (CutError, ChangedError) as error:
                if isinstance(error, ChangedError):
                    self._forget()
                fruitless = 0 if self._size() > best else fruitless + 1
                best = max(best, self._size())
                if fruitless >= MAX_FRUITLESS:
                    raise FetchError(
                        f"{error}; {fruitless} tries brought nothing new, {self._size()} bytes are kept", retryable=True
                    ) from error
                self._pause(fruitless, error)

    def _pause(self, fruitless: int, error: FetchError) -> None:
        pause_s = min(FIRST_PAUSE_S * 2.0 ** (fruitless - 1), LONGEST_PAUSE_S) if fruitless else 0.0
        if isinstance(error, CutError):
            pause_s = max(pause_s, min(error.after_s, LONGEST_PAUSE_S))
        if self._cancelled.wait(pause_s):
            raise FetchCancelled

    def _once(self) -> None:
        start = self._size()
        tag, _ = self._read_about()
        with self._remote.open(self._name, start, tag) as opened:
            if opened.start not in (0, start):
                raise ChangedError(f"{self._shown}: byte {start} was asked for, {opened.start} came")
            if opened.start and tag and opened.tag and opened.tag != tag:
                raise ChangedError(f"{self._shown} changed during the download")
            self._check_total(opened.total)
            if opened.start == 0:
                self._forget()
            if opened.total is not None:
                self._announce(opened.total)
            self._about.write_text(json.dumps({"tag": opened.tag, "total": opened.total}))
            self._write(opened)
        if opened.total is not None and self._size() < opened.total:
            raise CutError(f"{self._shown} ended early, at {self._size()} of {opened.total} bytes")
        if opened.total is None and self._limit_bytes is not None and self._size() < (self._expected.size or 0):
            raise CutError(f"{self._shown} ended early, at {self._size()} of {self._expected.size} bytes")
        if opened.total is None:
            self._about.write_text(json.dumps({"tag": opened.tag, "total": self._size()}))

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self._expected.size is not None and total != self._expected.size:
            raise FetchError(
                f"{self._shown} has {total} bytes where the manifest says {self._expected.size}: "
                "they belong to different versions",
                retryable=False,
            )
        if self._limit_bytes is not None and total > self._limit_bytes:
            raise FetchError(f"{self._shown} has {total} bytes, over the limit of {self._limit_bytes}", retryable=False)

    def _write(self, opened: Opened) -> None:
        size = opened.start
        limits = [limit for limit in (self._limit_bytes, opened.total) if limit is not None]
        limit_bytes = min(limits, default=None)
        with self._part.open("ab") as out:
            for block in opened.blocks:
                size += len(block)
                if limit_bytes is not None and size > limit_bytes:
                    raise FetchError(f"{self._shown} sends more than its {limit_bytes} bytes", retryable=False)
                out.write(block)
                out.flush()  # what was received counts, whatever comes next
                self._reached(size)
                if self._cancelled.is_set():
                    raise FetchCancelled

    def _is_whole(self) -> bool:
        total = self._expected.size if self._expected.size is not None else self._read_about()[1]
        return total is not None and self._size() == total and self._part.exists()

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)
        self._reached(0)

    def _read_about(self) -> tuple[str, int | None]:
        """Tag and size of the file that was begun; nothing where nobody knows."""
        try:
            about = json.loads(self._about.read_text())
            tag, total = about["tag"], about["total"]
        except (OSError, ValueError, KeyError, TypeError):
            return "", None
        return str(tag), total if isinstance(total, int) else None
