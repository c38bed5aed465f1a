"""Manifests: reading, refusing, verifying."""

import json
from pathlib import Path

import pytest

from vla_core import manifest
from vla_core.errors import ManifestError
from vla_core.joints import SO101_JOINTS, JointLimits, Units


def example(**changes: object) -> manifest.Manifest:
    values = {
        "name": "evergreen-black",
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


def test_what_a_foreign_checkpoint_needs_survives_the_round_trip() -> None:
    whole = example(
        units=Units.DEG,
        joint_units={"gripper": Units.PERCENT_FROM_ZERO},
        joint_ranges={"gripper": JointLimits(-0.17, 1.75)},
        camera_keys={"front": "observation.images.top"},
        action_offset=1,
    )
    found = manifest.parse(whole.to_json())
    assert found == whole
    assert found.camera_key("front") == "observation.images.top"
    assert found.conversion().to_rad([180.0, 0, 0, 0, 0, 100.0]) == pytest.approx([3.14159265, 0, 0, 0, 0, 1.75])


def test_a_manifest_that_needs_none_of_it_stays_readable_for_older_releases() -> None:
    assert {"joint_units", "joint_ranges", "camera_keys", "action_offset"}.isdisjoint(json.loads(example().to_json()))


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
        ({"files": {"/etc/passwd.txt": manifest.FileEntry(1, "a" * 64)}}, "outside"),
        ({"files": {"a//b.txt": manifest.FileEntry(1, "a" * 64)}}, "no plain relative path"),
        ({"files": {"./b.txt": manifest.FileEntry(1, "a" * 64)}}, "no plain relative path"),
        ({"files": {"b\n.txt": manifest.FileEntry(1, "a" * 64)}}, "no plain relative path"),
        ({"files": {"manifest.json": manifest.FileEntry(1, "a" * 64)}}, "no plain relative path"),
        ({"files": {"b" * 300 + ".txt": manifest.FileEntry(1, "a" * 64)}}, "longer name"),
        ({"files": {name: manifest.FileEntry(1, "a" * 64) for name in ("a.txt", "a.txt/b.txt")}}, "a file too"),
        ({"files": {f"{n}.txt": manifest.FileEntry(1, "a" * 64) for n in range(5000)}}, "5000 files"),
        ({"n_obs_steps": 0}, "n_obs_steps"),
        (
            {"units": Units.PERCENT},
            "'shoulder_pan' speaks percent of a range that is not given; give it in joint_ranges",
        ),
        ({"joint_units": {"gripper": Units.PERCENT_FROM_ZERO}}, "'gripper' speaks percent_from_zero of a range"),
        ({"joint_units": {"tail": Units.DEG}}, "'tail', which is not in joint_names"),
        ({"camera_keys": {"rear": "observation.images.top"}}, "'rear', which is not in cameras"),
        ({"action_offset": 21}, "action_offset 21 is longer than the chunk of 20"),
    ],
)
def test_impossible_manifests_are_refused(changes: dict, expected: str) -> None:
    with pytest.raises(ManifestError, match=expected):
        example(**changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        "9" * 10_000,
        '{"format": 2}',
        '{"format": 1}',
        '{"format": 1, "surprise": true}',
        '{"format":1,"cameras":[1]}',
    ],
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


def test_what_is_missing_or_unknown_is_named_without_a_word_of_python() -> None:
    """A newcomer was told of `Manifest.__init__()` and its positional arguments."""
    with pytest.raises(ManifestError, match="lacks name, version, policy_type, backend, joint_names"):
        manifest.parse('{"format": 1}')
    text = '{"format": 1, "name": "a", "version": "1", "policy_type": "act", "backend": "onnx", "joint_names": ["j"]'
    assert manifest.parse(text + "}").label == "a@1"
    with pytest.raises(ManifestError, match="unknown field 'rate'"):
        manifest.parse(text + ', "rate": 3}')
