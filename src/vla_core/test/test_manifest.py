"""Manifests: reading, refusing, verifying."""

import json
from pathlib import Path

import pytest

from vla_core import manifest
from vla_core.errors import ManifestError
from vla_core.joints import SO101_JOINTS, Units


def example(**changes: object) -> manifest.Manifest:
    values = {
        "name": "act-black",
        "version": "1.0.0",
        "policy_type": "act",
        "backend": "onnx",
        "joint_names": SO101_JOINTS,
        "cameras": {"front": manifest.CameraInput(128, 64)},
        "units": Units.RAD,
        "open_loop_s": 1.0,
    } | changes
    return manifest.Manifest(**values)


def test_json_round_trip() -> None:
    whole = example(files={"policy.onnx": manifest.FileEntry(3, "a" * 64)}, provenance={"success": "99 of 100"})
    assert manifest.parse(whole.to_json()) == whole


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "../up"}, "name"),
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"open_loop_s": 5.0}, "open_loop_s"),
        ({"joint_names": ()}, "joint_names"),
        ({"joint_names": ("a", "a")}, "joint_names"),
        ({"files": {"../../etc/passwd.txt": manifest.FileEntry(1, "a" * 64)}}, "outside"),
        ({"files": {"weights.pkl": manifest.FileEntry(1, "a" * 64)}}, "nothing that could run code"),
        ({"n_obs_steps": 0}, "n_obs_steps"),
    ],
)
def test_impossible_manifests_are_refused(changes: dict, expected: str) -> None:
    with pytest.raises(ManifestError, match=expected):
        example(**changes)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "surprise": true}', '{"format":1,"cameras":[1]}'],
)
def test_malformed_text_names_its_origin(text: str) -> None:
    with pytest.raises(ManifestError, match=r"^somewhere"):
        manifest.parse(text, "somewhere")


def test_verify_finds_missing_cut_and_changed_files(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    path.write_bytes(b"weights")
    whole = example(files=manifest.list_files(tmp_path))
    manifest.write(tmp_path, whole)
    assert manifest.load(tmp_path) == whole
    manifest.verify(tmp_path, whole)
    path.write_bytes(b"weightz")
    with pytest.raises(ManifestError, match="SHA-256"):
        manifest.verify(tmp_path, whole)
    path.write_bytes(b"wei")
    with pytest.raises(ManifestError, match="3 bytes where the manifest says 7"):
        manifest.verify(tmp_path, whole)
    path.unlink()
    with pytest.raises(ManifestError, match="missing"):
        manifest.verify(tmp_path, whole)


def test_a_folder_without_manifest_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is no model"):
        manifest.load(tmp_path)
    with pytest.raises(ManifestError, match="does not exist"):
        manifest.load(tmp_path / "absent")


def test_a_newer_format_is_refused() -> None:
    text = json.dumps({**json.loads(example().to_json()), "format": 99})
    with pytest.raises(ManifestError, match="another release"):
        manifest.parse(text)
