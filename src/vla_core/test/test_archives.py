"""Archives: the same bytes for the same folder, and nothing written that the manifest does not list."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import write_model

from vla_core import archives, manifest
from vla_core.errors import ManifestError

TAR = shutil.which("tar") or "/bin/tar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture
def tar(folder: Path, tmp_path: Path) -> Path:
    archives.pack(folder, manifest.load(folder), tmp_path / "model.tar")
    return tmp_path / "model.tar"


def append(tar: Path, member: tarfile.TarInfo, content: bytes | None = None) -> None:
    with tarfile.open(tar, "a") as opened:
        opened.addfile(member, io.BytesIO(content) if content is not None else None)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# --- sound ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", archives.TAR_SUFFIXES)
def test_there_and_back_and_always_the_same_bytes(folder: Path, tmp_path: Path, suffix: str):
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    about = manifest.load(folder)
    archives.pack(folder, about, one)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    archives.pack(folder, about, two)
    assert one.read_bytes() == two.read_bytes()
    assert archives.unpack(one, tmp_path / "out") == about
    assert tree(tmp_path / "out") == tree(folder)
    assert archives.read_manifest(one)[0] == about


def test_archives_of_other_tools(folder: Path, tmp_path: Path):
    top = tmp_path / "top"
    top.mkdir()
    folder.rename(top / "tiny")
    subprocess.run([TAR, "-C", str(top), "-czf", str(tmp_path / "nested.tgz"), "tiny"], check=True)
    subprocess.run([TAR, "-C", str(top / "tiny"), "-cf", str(tmp_path / "dot.tar"), "."], check=True)
    with zipfile.ZipFile(tmp_path / "nested.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted((top / "tiny").rglob("*")):
            opened.write(path, path.relative_to(top))
    for name in ("nested.tgz", "dot.tar", "nested.zip"):
        archives.unpack(tmp_path / name, tmp_path / f"out-{name}")
        assert tree(tmp_path / f"out-{name}") == tree(top / "tiny")


def test_other_suffixes_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ManifestError, match="written as"):
        archives.pack(folder, manifest.load(folder), tmp_path / "model.zip")
    assert [archives.is_archive(name) for name in ("a.tar", "a.TGZ", "a.zip", "a.tar.zst", "a")] == [
        True,
        True,
        True,
        False,
        False,
    ]


# --- hostile ones ----------------------------------------------------------------------------------------------------


def _file(name: str, size: int = 1) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        _file("../escaped.txt"),
        _file("/tmp/escaped.txt"),
        _file("tokens/../../escaped.txt"),
        _file("a\\..\\b.txt"),
        _file("./../escaped.txt"),
        _file("tokens//x.txt"),
        _file("x\n.txt"),
        _file("unlisted.txt"),
        _file("README.md"),  # a second one
        _file("README.md/below.txt"),
        _file("a" * 5000 + ".txt"),
        _special("config2.json", tarfile.SYMTYPE, "/etc/passwd"),
        _special("config2.json", tarfile.LNKTYPE, "config.json"),
        _special("config2.json", tarfile.LNKTYPE, "../../etc/passwd"),
        _special("pipe.txt", tarfile.FIFOTYPE),
        _special("disk.txt", tarfile.BLKTYPE),
        _special("tty.txt", tarfile.CHRTYPE),
        _special("../folder", tarfile.DIRTYPE),
        _special("odd.txt", b"Z"),
    ],
    ids=lambda member: f"{member.type!r}-{member.name[:30]!r}",
)
def test_hostile_members_refuse_the_whole(tar: Path, tmp_path: Path, member: tarfile.TarInfo):
    append(tar, member, b"x" if member.size else None)
    before = tree(tmp_path)
    with pytest.raises(ManifestError, match=r"model\.tar"):
        archives.unpack(tar, tmp_path / "deep" / "out")
    after = tree(tmp_path)
    assert {name for name in after.keys() - before.keys() if not name.startswith("deep/out/")} == set()
    assert not Path("/tmp/escaped.txt").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "deep").rglob("*"))


def test_a_link_in_front_of_a_file_leads_nowhere(folder: Path, tmp_path: Path):
    """The classic: a link named as a folder, then a file below it."""
    tar = tmp_path / "model.tar"
    (tmp_path / "outside").mkdir()
    with tarfile.open(tar, "w") as opened:
        opened.add(folder / "manifest.json", "manifest.json")
        opened.addfile(_special("tokens", tarfile.SYMTYPE, str(tmp_path / "outside")))
        opened.add(folder / "tokens" / "merges.txt", "tokens/merges.txt")
    with pytest.raises(ManifestError, match="no plain file"):
        archives.unpack(tar, tmp_path / "out")
    assert not list((tmp_path / "outside").iterdir())


def test_files_of_another_size_are_refused_before_they_are_written(folder: Path, tmp_path: Path):
    about = manifest.load(folder)
    with (folder / "policy.onnx").open("ab") as stream:
        stream.write(bytes(1_000_000))
    archives.pack(folder, about, tmp_path / "model.tar.gz")
    with pytest.raises(ManifestError, match="where its manifest says"):
        archives.unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    assert sum(map(len, tree(tmp_path / "out").values())) < 10_000


def test_missing_files_are_told(folder: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "model.tar", "w") as opened:
        opened.add(folder / "manifest.json", "manifest.json")
    with pytest.raises(ManifestError, match="is listed in its manifest but not in it"):
        archives.unpack(tmp_path / "model.tar", tmp_path / "out")


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_a_sparse_file_is_refused(folder: Path, tmp_path: Path, kind: str):
    """Ten kilobytes that claim to be a terabyte."""
    with (tmp_path / "huge.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    tar = tmp_path / "model.tar"
    places = ["-C", str(folder), "manifest.json", "-C", str(tmp_path), "huge.txt"]
    subprocess.run([TAR, f"--format={kind}", "--sparse", "-cf", str(tar), *places], check=True)
    assert tar.stat().st_size < 100_000
    with pytest.raises(ManifestError, match=r"sparse|more than"):
        archives.unpack(tar, tmp_path / "out")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path):
    """tarfile reads an extended header whole: here four gigabytes of nothing in four megabytes."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    with pytest.raises(ManifestError, match="a header of"):
        archives.read_manifest(tmp_path / "bomb.tar.gz")


def test_too_many_members_are_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "many.tar", "w") as opened:
        for number in range(archives.MAX_MEMBERS + 1):
            opened.addfile(tarfile.TarInfo(f"{number}.txt"))
    with pytest.raises(ManifestError, match="more than"):
        archives.read_manifest(tmp_path / "many.tar")


def _zip(folder: Path, path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name in tree(folder):
            opened.write(folder / name, name)
        change(opened)
    return path


def _zip_link(opened: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("link.txt")
    info.external_attr = 0o120777 << 16
    opened.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    "change",
    [
        _zip_link,
        lambda opened: opened.writestr("../escaped.txt", "x"),
        lambda opened: opened.writestr("/tmp/escaped.txt", "x"),
        lambda opened: opened.writestr("README.md", "x"),
        lambda opened: opened.writestr("more.txt", "x"),
        lambda opened: opened.writestr(zipfile.ZipInfo("more.txt"), "x", zipfile.ZIP_LZMA),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_zips_are_refused(folder: Path, tmp_path: Path, change: Callable[[zipfile.ZipFile], None]):
    path = _zip(folder, tmp_path / "model.zip", change)
    with pytest.raises(ManifestError, match=r"model\.zip"):
        archives.unpack(path, tmp_path / "out")
    assert not list(tmp_path.glob("**/escaped.txt"))


def test_a_zip_that_lies_about_a_size_is_refused(folder: Path, tmp_path: Path):
    """The directory says 16 bytes, the data goes on for a megabyte."""
    (folder / "config.json").write_bytes(b'{"a": "' + b"a" * 1_000_000 + b'"}')
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        for name in tree(folder):
            opened.write(folder / name, name)
    raw = (tmp_path / "model.zip").read_bytes()
    true, lie = (1_000_009).to_bytes(4, "little"), manifest.load(folder).files["config.json"].size.to_bytes(4, "little")
    assert raw.count(true) >= 2
    (tmp_path / "model.zip").write_bytes(raw.replace(true, lie))
    with pytest.raises(ManifestError, match=r"model\.zip"):
        archives.unpack(tmp_path / "model.zip", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"x", b"\x1f\x8b", b"PK\x03\x04", b"PK\x03\x04" + bytes(500), bytes(2000)])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "model.tar").write_bytes(content)
    with pytest.raises(ManifestError, match=r"model\.tar"):
        archives.unpack(tmp_path / "model.tar", tmp_path / "out")
    with pytest.raises(ManifestError, match="does not exist"):
        archives.unpack(tmp_path / "absent.tar", tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_cut_anywhere_is_refused(folder: Path, tmp_path: Path, suffix: str):
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".zip":
        _zip(folder, whole, lambda _opened: None)
    else:
        archives.pack(folder, manifest.load(folder), whole)
    content = whole.read_bytes()
    last = content.rstrip(b"\0")
    for number, length in enumerate(range(0, len(last) - 600, 487)):
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(content[:length])
        with pytest.raises(ManifestError):
            archives.unpack(cut, tmp_path / f"out-{number}")


NAMES = st.lists(
    st.sampled_from(["..", ".", "", "/", "a", "tokens", "README.md", "C:", "~", "\\", "a" * 300, "é", "\0", "\n", " "]),
    min_size=1,
    max_size=5,
).map("/".join)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=300, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4), zipped=st.booleans())
def test_whatever_the_paths_nothing_is_written_outside(names: list[str], zipped: bool):
    with tempfile.TemporaryDirectory() as base:
        root = Path(base) / "a" / "b" / "c"
        root.mkdir(parents=True)
        model = write_model(Path(base) / "source")
        path = Path(base) / "hostile"
        if zipped:
            with zipfile.ZipFile(path, "w") as opened:
                opened.write(model / "manifest.json", "manifest.json")
                for name in names:
                    opened.writestr(zipfile.ZipInfo(name), "x")
        else:
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as opened:
                opened.add(model / "manifest.json", "manifest.json")
                for name in names:
                    opened.addfile(_file(name.replace("\0", "?")), io.BytesIO(b"x"))
        with pytest.raises(ManifestError):
            archives.unpack(path, root / "out")
        written = {found for found in Path(base).rglob("*") if found.is_file()}
        outside = {found for found in written if not found.is_relative_to(root / "out")}
        assert outside == {path, *(found for found in model.rglob("*") if found.is_file())}
