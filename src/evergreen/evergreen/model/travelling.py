"""What a new version of a model costs on the way to a robot that has the old one, by each way to send it."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from vla_core import manifest as manifests
from vla_core.delta.build import build, changed

LINES = {"LTE": 10.0, "weak LTE": 1.0, "satellite": 0.4}
"""Mbit/s down, as assumed: what is left of a shared cell on the move; one bar; Inmarsat BGAN's background class."""
LAYER_LEVEL, FILE_LEVEL = 3, 9
"""Of zstd: what image builders use; what a delta uses."""
_GZIP_LEVEL = 6
_BLOCK_BYTES = 1 << 20
Reached = Callable[[str, int, int], None]
"""Told what is being measured, how many bytes are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Row:
    """One file of the new model, in bytes.

    Attributes:
        whole: its size.
        zstd: compressed.
        delta: in the delta; 0 where the old model has the file.
    """

    name: str
    whole: int
    zstd: int
    delta: int


@dataclass(frozen=True, slots=True)
class Travel:
    """What would travel, in bytes.

    Attributes:
        old, new: labels.
        rows: file by file.
        whole: all files as they are, as a fetch without a store would bring them.
        changed: files that the old model does not have, as they are: what a fetch brings without a delta.
        zstd: all files, each compressed.
        layer_gzip, layer_zstd: the layer of a container image with the new model, which moves whole.
        delta: the delta's file.
    """

    old: str
    new: str
    rows: tuple[Row, ...]
    whole: int
    changed: int
    zstd: int
    layer_gzip: int
    layer_zstd: int
    delta: int

    @property
    def ways(self) -> dict[str, int]:
        """Each way and its bytes."""
        return {
            "whole": self.whole,
            "whole, zstd": self.zstd,
            "image layer, gzip": self.layer_gzip,
            "image layer, zstd": self.layer_zstd,
            "changed files": self.changed,
            "delta": self.delta,
        }

    def facts(self) -> dict[str, Any]:
        """For programs; times in s on the assumed lines."""
        return {
            "old": self.old,
            "new": self.new,
            "files": {row.name: {"whole": row.whole, "zstd": row.zstd, "delta": row.delta} for row in self.rows},
            "bytes": self.ways,
            "delta_share": share(self.delta, self.whole),
            "assumed_mbit_s": LINES,
            "times_s": {
                line: {way: round(seconds(size, rate), 1) for way, size in self.ways.items()}
                for line, rate in LINES.items()
            },
        }


def share(size_bytes: int, whole_bytes: int) -> float | None:
    """The part that it is of the whole, to four digits; None of a model without files."""
    return round(size_bytes / whole_bytes, 4) if whole_bytes else None


def percent(size_bytes: int, whole_bytes: int) -> str:
    """The same for people."""
    return f"{100 * size_bytes / whole_bytes:.1f} %" if whole_bytes else "-"


def seconds(size_bytes: int, mbit_s: float) -> float:
    """Time on a line that carries nothing else."""
    return size_bytes * 8e-6 / mbit_s


def measure(old: Path, new: Path, reached: Reached) -> Travel:
    """Make everything that could be sent, in blocks, and count it; nothing is written."""
    before, after = manifests.load(old), manifests.load(new)
    sizes = {name: entry.size for name, entry in after.files.items()}
    fresh = changed(before, after)

    def on_delta(name: str, done: int) -> None:
        reached(f"delta, {name}", done, sizes[name])

    built = build(old, new, None, reached=on_delta)
    rows = tuple(
        Row(name, size, _zstd_size(new / name, size, reached), built.costs(name)) for name, size in sizes.items()
    )
    layer_gzip, layer_zstd = _layer(new, [manifests.FILE_NAME, *sizes], reached)
    return Travel(
        old=before.label,
        new=after.label,
        rows=rows,
        whole=after.size_bytes,
        changed=sum(sizes[name] for name in fresh),
        zstd=sum(row.zstd for row in rows),
        layer_gzip=layer_gzip,
        layer_zstd=layer_zstd,
        delta=built.size,
    )


class _Counter:
    """Counts what is written to it."""

    def __init__(self) -> None:
        self.size = 0

    @property
    def stream(self) -> IO[bytes]:
        """Itself, as those who write take it."""
        return cast("IO[bytes]", self)

    def write(self, content: bytes) -> int:
        """As a file does."""
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """As a file does."""


class _Tee:
    """Writes to several."""

    def __init__(self, streams: Iterable[Any], reached: Callable[[int], None]) -> None:
        self._streams, self._reached, self._done = list(streams), reached, 0

    def write(self, content: bytes) -> int:
        for stream in self._streams:
            stream.write(content)
        self._done += len(content)
        self._reached(self._done)
        return len(content)


def _zstd_size(path: Path, size: int, reached: Reached) -> int:
    counter = _Counter()
    compressor = zstandard.ZstdCompressor(level=FILE_LEVEL)
    with path.open("rb") as stream, compressor.stream_writer(counter.stream) as out:
        done = 0
        while block := stream.read(_BLOCK_BYTES):
            out.write(block)
            done += len(block)
            reached(f"zstd, {path.name}", done, size)
    return counter.size


def _layer(folder: Path, names: list[str], reached: Reached) -> tuple[int, int]:
    """Bytes of the folder as an image's layer: a tar, by gzip and by zstd, as registries keep and move it."""
    as_gzip, as_zstd = _Counter(), _Counter()
    total = sum((folder / name).stat().st_size for name in names)
    with (
        gzip.GzipFile("", "wb", _GZIP_LEVEL, fileobj=as_gzip.stream, mtime=0) as packed,
        zstandard.ZstdCompressor(level=LAYER_LEVEL).stream_writer(as_zstd.stream) as smaller,
    ):
        tee = _Tee((packed, smaller), lambda done: reached("image layer", min(done, total), total))
        with tarfile.open(fileobj=cast("IO[bytes]", tee), mode="w|", bufsize=_BLOCK_BYTES) as tar:
            for name in names:
                member = tarfile.TarInfo(name)  # its defaults: no time, no owner, so that it always has the same size
                member.size = (folder / name).stat().st_size
                with (folder / name).open("rb") as content:
                    tar.addfile(member, content)
    return as_gzip.size, as_zstd.size
