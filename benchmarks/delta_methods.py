"""Other ways to send a new version of a model, for `deltas.py` to compare with: bytes on the wire of each."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import zstandard

from vla_core import manifest as manifests
from vla_core.delta.build import changed
from vla_core.delta.floats import FORMATS
from vla_core.delta.layout import regions
from vla_core.errors import ConfigError

LEVEL = 9
"""As the delta itself, so that methods are compared and not levels."""
_LOW, _AVERAGE_BITS, _HIGH = 16 << 10, 16, 256 << 10
"""Content-defined chunks: shortest and longest, bytes; on average 64 KiB, as casync and restic are often set."""
_GEAR = np.random.default_rng(0).integers(0, 1 << 32, 256, np.uint32)
_WINDOW = 32


def patch_from(old: Path, new: Path) -> int:
    """`zstd --patch-from`: the whole old file, in memory, is the dictionary; long matches are looked for in all of it.

    Raises:
        ConfigError: the command is not installed.
    """
    zstd = shutil.which("zstd")
    if zstd is None:
        raise ConfigError("the command zstd is needed to compare with: `apt install zstd`")
    words = [zstd, f"-{LEVEL}", "--long=27", f"--patch-from={old}", "-c", "-q", str(new)]
    return len(subprocess.run(words, check=True, capture_output=True).stdout)


def chunks(old: Path, new: Path) -> int:
    """Content-defined chunks: those that the old file has too stay; the others travel, each compressed."""
    known = {hashlib.sha256(chunk).digest() for chunk in _cut(old.read_bytes())}
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    size = 0
    for chunk in _cut(new.read_bytes()):
        digest = hashlib.sha256(chunk).digest()
        size += len(digest) + (0 if digest in known else len(compressor.compress(chunk)))
        known.add(digest)
    return size


def _cut(content: bytes) -> Iterator[bytes]:
    """Boundaries where a hash of the last 32 bytes has 16 zeros: they move with the content (gear hash, FastCDC)."""
    gears = _GEAR[np.frombuffer(content, np.uint8)]
    hashes = np.zeros(len(gears), np.uint32)
    for age in range(min(_WINDOW, len(gears))):
        hashes[age:] += gears[: len(gears) - age] << np.uint32(age)
    begin = 0
    for place in np.flatnonzero(hashes >> np.uint32(32 - _AVERAGE_BITS) == 0):
        while place + 1 - begin > _HIGH:
            yield content[begin : begin + _HIGH]
            begin += _HIGH
        if place + 1 - begin >= _LOW:
            yield content[begin : place + 1]
            begin = int(place) + 1
    for start in range(begin, len(content), _HIGH):
        yield content[start : start + _HIGH]


def changed_tensors(old: Path, new: Path) -> int:
    """Tensors that differ, each compressed; the others by reference."""
    return _by_tensor(old, new, lambda content, _base, _dtype: content)


def xor_shuffled(old: Path, new: Path) -> int:
    """Tensors that differ as the exclusive or of their bits, first all low bytes, then all high ones."""

    def convert(content: bytes, base: bytes, dtype: str) -> bytes:
        if not base:
            return content
        both = np.frombuffer(content, np.uint8) ^ np.frombuffer(base, np.uint8)
        return np.ascontiguousarray(both.reshape(-1, FORMATS[dtype].size if dtype else 1).T).tobytes()

    return _by_tensor(old, new, convert)


def _by_tensor(old: Path, new: Path, convert: Callable[[bytes, bytes, str], bytes]) -> int:
    before, after = old.read_bytes(), new.read_bytes()
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    size = 0
    for region in regions(new, old):
        content = after[region.begin : region.end]
        base = before[region.base_begin : region.base_end]
        if content != base:
            same = len(base) == len(content)
            size += len(compressor.compress(convert(content, base if same else b"", region.dtype)))
    return size


METHODS: Mapping[str, Callable[[Path, Path], int]] = {
    "zstd --patch-from": patch_from,
    "content-defined chunks": chunks,
    "changed tensors, zstd": changed_tensors,
    "tensors, xor, shuffled": xor_shuffled,
}


def compare(old: Path, new: Path) -> dict[str, int]:
    """Each method's bytes for all files that the old model does not have; new files go compressed."""
    before, after = manifests.load(old), manifests.load(new)
    sizes = dict.fromkeys(METHODS, 0)
    for name in changed(before, after):
        for method, measure in METHODS.items():
            if name in before.files:
                sizes[method] += measure(old / name, new / name)
            else:
                sizes[method] += len(zstandard.ZstdCompressor(level=LEVEL).compress((new / name).read_bytes()))
    return sizes
