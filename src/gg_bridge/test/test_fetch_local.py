"""Fetching from this machine: folders, archives, Greengrass artifacts."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from fetch_support import write_model

from gg_bridge.fetch import FetchError, Source, fetch
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.store import Store


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "artifact" / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_however_it_is_named(model: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(model.parent)
    for uri in (str(model), "tiny", f"file:{model}", f"file://{model}", f"greengrass:{model}"):
        assert fetch(Source(uri, "1", sha256(model / "manifest.json")), store) == "tiny@1"
    assert store.verify("tiny@1")


def test_greengrass_unpacks_an_artifact_into_a_folder_of_its_own(model: Path, store: Store):
    assert fetch(Source(f"greengrass:{model.parent}"), store) == "tiny@1"
    write_model(model.parent / "other", "2")
    with pytest.raises(FetchError, match="holds 2 folders with one"):
        fetch(Source(f"greengrass:{model.parent}"), store)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_an_archive(model: Path, store: Store, tmp_path: Path, suffix: str):
    path = tmp_path / f"tiny{suffix}"
    archives.pack(model, manifests.load(model), path)
    assert fetch(Source(str(path), "1", sha256(path)), store) == "tiny@1"
    assert fetch(Source(f"file:{path}"), store) == "tiny@1"
    assert store.verify("tiny@1")
    assert not list((store.root / "staging").iterdir())


@pytest.mark.parametrize("what", ["folder", "archive"])
def test_another_version_or_hash_is_refused(model: Path, store: Store, tmp_path: Path, what: str):
    path = model
    if what == "archive":
        path = tmp_path / "tiny.tar"
        archives.pack(model, manifests.load(model), path)
    with pytest.raises(FetchError, match="holds tiny@1 where version 2"):
        fetch(Source(str(path), "2"), store)
    with pytest.raises(FetchError, match="it is another model"):
        fetch(Source(str(path), "", "0" * 64), store)
    assert store.labels() == ()


def test_what_is_no_model_is_told(tmp_path: Path, store: Store):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.bin").write_bytes(b"nothing")
    for name, words in (
        ("absent", "does not exist"),
        ("empty", r"no manifest\.json"),
        ("file.bin", "no sound archive"),
    ):
        with pytest.raises(FetchError, match=words) as caught:
            fetch(Source(str(tmp_path / name)), store)
        assert not caught.value.retryable


def test_a_folder_with_a_link_or_a_stranger_is_refused(model: Path, store: Store):
    (model / "README.md").unlink()
    (model / "README.md").symlink_to("/etc/hostname")
    with pytest.raises(FetchError, match="is a link"):
        fetch(Source(str(model)), store)
    (model / "README.md").unlink()
    (model / "weights.bin").write_bytes(b"x")
    with pytest.raises(FetchError, match="not in the manifest"):
        fetch(Source(str(model)), store)
    assert store.labels() == ()


def test_a_hostile_archive_leaves_nothing(model: Path, store: Store, tmp_path: Path):
    path = tmp_path / "tiny.tar"
    archives.pack(model, manifests.load(model), path)
    with tarfile.open(path, "a") as opened:
        link = tarfile.TarInfo("tokens/up.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    with pytest.raises(FetchError, match="no plain file"):
        fetch(Source(str(path)), store)
    assert store.labels() == ()
    assert not list((store.root / "staging").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(model: Path, store: Store):
    (model / "policy.onnx").chmod(0)
    with pytest.raises(FetchError):
        fetch(Source(str(model)), store)
