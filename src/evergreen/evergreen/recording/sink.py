"""The file under an MCAP writer: records go to the disk whole, also when the disk runs full."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

BUFFER_BYTES = 256 * 1024
"""Written at once: few, large writes suit SD cards."""


class Store(Protocol):
    """What the operating system offers; a test fills the disk here."""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`, return how much."""
        ...


class _System:
    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)


class RecordSink:
    """A stream for `mcap.writer.Writer`, whose every `write` is one whole record (or the magic number).

    Where a write fails, the file is cut back to the last record that fits, so that it can be read to its end.
    """

    def __init__(self, path: Path, system: Store | None = None) -> None:
        """Make the file; FileExistsError where there is one."""
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._system = system or _System()
        self._buffer = bytearray()
        self._ends: list[int] = []  # of records in the buffer
        self._written = 0

    @property
    def size(self) -> int:
        """Bytes so far, buffered ones included."""
        return self._written + len(self._buffer)

    def tell(self) -> int:
        """As for files."""
        return self.size

    def write(self, data: bytes) -> int:
        """Take one record; OSError when the disk is full."""
        self._buffer += data
        self._ends.append(len(self._buffer))
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Hand everything to the kernel: it outlives this process."""
        waiting, ends = memoryview(bytes(self._buffer)), self._ends
        self._buffer, self._ends = bytearray(), []
        done = 0
        try:
            while done < len(waiting):
                done += self._system.write(self._descriptor, waiting[done:])
        except OSError:
            self._cut_back(max((end for end in ends if end <= done), default=0))
            raise
        self._written += done

    def sync(self) -> None:
        """Flush, and wait until the disk has it: it outlives the power."""
        self.flush()
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; what is not flushed is gone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut_back(self, whole: int) -> None:
        self._written += whole
        os.ftruncate(self._descriptor, self._written)
