"""A model's folder as one file: packing it reproducibly, and unpacking what others packed without trusting it.

Unpacking writes only the plain files that the archive's own manifest lists, each at its listed size and not a byte
more. Everything else in an archive (links, devices, absolute or climbing paths, sparse files, files said twice,
unlisted ones) refuses the whole.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, cast

from vla_core import manifest as manifests
from vla_core.errors import ManifestError
from vla_core.manifest import Manifest

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
SUFFIXES = (*TAR_SUFFIXES, ".zip")
MAX_MEMBERS = manifests.MAX_FILES * 2
"""Files and the folders that they lie in."""
MAX_TOTAL_BYTES = 64 << 30
"""The largest open vision-language-action models have 15 GB; this bounds what a bomb costs in computing."""
_GZIP_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
_BLOCK_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError)
"""What the standard library raises on archives that are cut short or damaged."""


def is_archive(name: str) -> bool:
    """Whether a file of this name would be unpacked."""
    return name.lower().endswith(SUFFIXES)


# --- packing ---------------------------------------------------------------------------------------------------------


def pack(folder: Path, manifest: Manifest, archive: Path) -> None:
    """Write a model's folder into `archive` (`.tar` or `.tar.gz`); the same folder always gives the same bytes.

    The manifest comes first, so that whoever unpacks knows early what to expect.

    Raises:
        ManifestError: the archive's suffix is another.
    """
    if not archive.name.endswith(TAR_SUFFIXES):
        raise ManifestError(f"{archive}: archives are written as {' or '.join(TAR_SUFFIXES)}")
    temporary = archive.with_name(archive.name + ".new")
    with temporary.open("wb") as raw, contextlib.ExitStack() as stack:
        packed = None if archive.name.endswith(".tar") else gzip.GzipFile("", "wb", fileobj=raw, mtime=0)
        if packed is not None:
            stack.enter_context(packed)
        tar = stack.enter_context(tarfile.open(fileobj=packed or raw, mode="w", format=tarfile.PAX_FORMAT))
        for name in (manifests.FILE_NAME, *sorted(manifest.files)):
            member = tarfile.TarInfo(name)  # its defaults: no time, no owner
            member.size, member.mode = (folder / name).stat().st_size, 0o644
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)
    temporary.replace(archive)


# --- unpacking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Member:
    """A plain file in an archive: its name as written, its size in bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def read_manifest(archive: Path) -> tuple[Manifest, str]:
    """The manifest in an archive and its text; nothing is written.

    Raises:
        ManifestError: no archive, a damaged or a hostile one, or one without a model.
    """
    with _members(archive) as members:
        _, text = _find_manifest(members, archive)
    return manifests.parse(text, f"{archive}: {manifests.FILE_NAME}"), text


def unpack(archive: Path, into: Path) -> Manifest:
    """Write the model in `archive` into the folder `into`, which is made, and return its manifest.

    The model may lie at the archive's root or in its only folder. Hashes are left to whoever takes the folder.

    Raises:
        ManifestError: the archive is damaged or hostile, or what it holds is not what its manifest lists. What was
            written by then lies below `into`.
        OSError: `into` exists or cannot be written.
    """
    with _members(archive) as members:
        top, text = _find_manifest(members, archive)
    manifest = manifests.parse(text, f"{archive}: {manifests.FILE_NAME}")
    into.mkdir(parents=True)
    written: set[str] = set()
    with _members(archive) as members:
        for member in members:
            name = _name_in_model(member.name, top, archive)
            if name in written:
                raise ManifestError(f"{archive}: {name} is in it twice")
            _extract(member, name, manifest, into / name, archive)
            written.add(name)
    missing = {manifests.FILE_NAME, *manifest.files} - written
    if missing:
        raise ManifestError(f"{archive}: {min(missing)} is listed in its manifest but not in it")
    return manifest


def _find_manifest(members: Iterable[_Member], archive: Path) -> tuple[str, str]:
    """The folder in the archive that the model lies in ("" for its root), and the manifest's text."""
    for member in members:
        folder, _, name = _plain(member.name, archive).rpartition("/")
        if name != manifests.FILE_NAME or "/" in folder:
            continue
        if member.size > manifests.MAX_BYTES:
            raise ManifestError(f"{archive}: its manifest has {member.size} bytes, more than {manifests.MAX_BYTES}")
        with member.open() as stream:
            content = stream.read(manifests.MAX_BYTES + 1)
        try:
            return folder, content.decode()
        except UnicodeDecodeError as error:
            raise ManifestError(f"{archive}: its manifest is no text") from error
    raise ManifestError(f"{archive}: no {manifests.FILE_NAME} in it, neither at the root nor in its only folder")


def _plain(name: str, archive: Path) -> str:
    """A member's path without a leading `./`; refuses what leads out of the folder."""
    short = name.removeprefix("./")
    if not short or short.startswith("/") or "\\" in short or not short.isprintable() or "//" in short:
        raise ManifestError(f"{archive}: member {name[:200]!r} would lie outside the model's folder")
    if any(part in ("", ".", "..") for part in short.split("/")):
        raise ManifestError(f"{archive}: member {name[:200]!r} would lie outside the model's folder")
    return short


def _name_in_model(name: str, top: str, archive: Path) -> str:
    short = _plain(name, archive)
    if top and not short.startswith(f"{top}/"):
        raise ManifestError(f"{archive}: member {name[:200]!r} lies beside the model's folder {top!r}")
    return short[len(top) + 1 :] if top else short


def _extract(member: _Member, name: str, manifest: Manifest, target: Path, archive: Path) -> None:
    if name != manifests.FILE_NAME:
        entry = manifest.files.get(name)
        if entry is None:
            raise ManifestError(f"{archive}: member {name!r} is not in its manifest")
        if member.size != entry.size:
            raise ManifestError(f"{archive}: {name} has {member.size} bytes where its manifest says {entry.size}")
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as out, member.open() as stream:
        left = member.size
        while left and (block := stream.read(min(left, _BLOCK_BYTES))):
            out.write(block)
            left -= len(block)
        if left:
            raise ManifestError(f"{archive}: {name} is cut short")
        if stream.read(1):
            raise ManifestError(f"{archive}: {name} has more bytes than the {member.size} it declares")


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[_Member]]:
    """The plain files of an archive, one after another; errors of damaged archives become ManifestError."""
    try:
        with archive.open("rb") as stream:
            magic = stream.read(4)
            stream.seek(0)
            if magic == _ZIP_MAGIC:
                with zipfile.ZipFile(stream) as opened:
                    yield _zip_members(opened, archive)
            else:
                with contextlib.ExitStack() as stack:
                    plain: BinaryIO | gzip.GzipFile = stream
                    if magic.startswith(_GZIP_MAGIC):
                        plain = stack.enter_context(gzip.GzipFile(fileobj=stream))
                    tar = stack.enter_context(tarfile.open(fileobj=cast("IO[bytes]", _Sips(plain)), mode="r:"))
                    yield _tar_members(tar, archive)
    except _BROKEN as error:
        raise ManifestError(
            f"{archive}: no sound archive ({', '.join(SUFFIXES)}): {str(error) or type(error).__name__}"
        ) from error
    except FileNotFoundError as error:
        if error.filename != str(archive):
            raise
        raise ManifestError(f"{archive} does not exist") from error


class _Sips:
    """A stream that hands out little at a time: tarfile reads a header's extension whole, however long."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile) -> None:
        self._stream = stream
        self.tell, self.seek = stream.tell, stream.seek

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _BLOCK_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)


def _tar_members(tar: tarfile.TarFile, archive: Path) -> Iterator[_Member]:
    total = 0
    for count, member in enumerate(tar):
        total += member.size
        if count >= MAX_MEMBERS or total > MAX_TOTAL_BYTES:
            raise ManifestError(f"{archive}: more than {MAX_MEMBERS} members or {MAX_TOTAL_BYTES} bytes")
        if member.isdir():
            if member.name not in (".", "./"):
                _plain(member.name, archive)
            continue
        if not member.isreg() or member.issparse():
            raise ManifestError(f"{archive}: member {member.name[:200]!r} is no plain file (link, device or sparse)")
        try:
            tarfile.data_filter(member, str(archive.parent))
        except tarfile.FilterError as error:
            raise ManifestError(f"{archive}: {error}") from error
        yield _Member(member.name, member.size, partial(_opened, tar, member))


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    if stream is None:
        raise tarfile.ReadError(f"{member.name} cannot be read")
    return stream


def _zip_members(opened: zipfile.ZipFile, archive: Path) -> Iterator[_Member]:
    infos = opened.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ManifestError(f"{archive}: more than {MAX_MEMBERS} members")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir():
            _plain(info.filename.rstrip("/"), archive)
            continue
        if kind not in (0, stat.S_IFREG):
            raise ManifestError(f"{archive}: member {info.filename[:200]!r} is no plain file")
        if info.flag_bits & 1:
            raise ManifestError(f"{archive}: member {info.filename[:200]!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ManifestError(f"{archive}: member {info.filename[:200]!r} is neither stored nor deflated")
        yield _Member(info.filename, info.file_size, partial(opened.open, info))
