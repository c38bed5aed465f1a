"""Packing as a release calls it: it adds to a model, and never blesses what became of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evergreen.model.packing import Allowed, Packed, Wanted, describe_differences, pack
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import ManifestError, SignatureError

FIELDS = {"name": "m", "version": "1", "policy_type": "act", "backend": "onnx", "joint_names": ["a", "b"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    header = json.dumps({"w": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "m/model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    (tmp_path / "m/policy.onnx").write_bytes(b"\x08" + bytes(100))
    packed(tmp_path / "m", **FIELDS)
    return tmp_path / "m"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.generate(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def packed(folder: Path, key: Path | None = None, **fields: Any) -> Packed:
    return pack(folder, Wanted(fields), key_file=key, archive=None)


def test_the_same_content_and_files_that_came_pass(folder: Path) -> None:
    first = packed(folder)
    assert packed(folder, version="1").sha256 == first.sha256
    (folder / "notes.md").write_text("new")
    assert "notes.md" in packed(folder).manifest.files


def test_files_that_are_not_as_recorded_are_all_named_and_nothing_is_written(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-3])
    (folder / "policy.onnx").unlink()
    expected = rf"model\.safetensors has {len(content) - 3} bytes instead of {len(content)}, policy\.onnx is missing"
    with pytest.raises(ManifestError, match=expected + ".*release deploy --model-version"):
        packed(folder)
    with pytest.raises(ManifestError, match="bytes where its header says"):
        packed(folder, version="2")  # another version may have other files, but no broken ones
    assert (folder / "manifest.json").read_bytes() == before


def test_other_files_pass_under_a_new_version_or_name_or_when_asked_for(folder: Path) -> None:
    for number, fields in enumerate(({"version": "2"}, {"name": "n"}), start=1):
        (folder / "policy.onnx").write_bytes(b"\x08" + bytes(100 + number))
        assert packed(folder, **fields).manifest.size_bytes > 0
    (folder / "policy.onnx").write_bytes(b"\x08" + bytes(200))
    pack(folder, Wanted({}), key_file=None, archive=None, allowed=Allowed(repack=True))


def test_a_signature_goes_only_when_asked(folder: Path, key: Path) -> None:
    """A release dropped it without a word."""
    signing.sign_folder(folder, signing.load_private(key))
    assert packed(folder).manifest.signature
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(SignatureError, match="sign it anew with --key FILE"):
        packed(folder, version="2")
    assert (folder / "manifest.json").read_bytes() == before
    assert packed(folder, key, version="2").manifest.signature
    gone = pack(folder, Wanted({"version": "3"}), key_file=None, archive=None, allowed=Allowed(drop_signature=True))
    assert gone.unsigned
    assert manifests.load(folder).signature is None


def test_differences_are_described_in_words() -> None:
    entry = {"size": 3, "sha256": "a" * 64}
    recorded = {"cut": entry, "gone": entry, "other": entry, "same": entry, "odd": "text"}
    present = {
        "cut": entry | {"size": 2},
        "other": entry | {"sha256": "b" * 64},
        "same": entry,
        "odd": entry,
        "new": entry,
    }
    assert describe_differences(recorded, present) == [
        "cut has 2 bytes instead of 3",
        "gone is missing",
        "odd has other content",
        "other has other content",
    ]
