"""`evergreen model export`: what it asks, proposes and makes of the answers. No torch, no terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from evergreen.model.exporting import questions
from evergreen.model.exporting.dialogue import answer_all
from evergreen.model.exporting.questions import Robot
from vla_core.checkpoint import Checkpoint
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS, JointLimits, Units
from vla_core.manifest import CameraInput, Manifest

CAMERAS = ("overhead", "front", "left", "wrist")
RANGES = {name: JointLimits(-1.0 - number, 1.0 + number) for number, name in enumerate(SO101_JOINTS)}
ROBOT = Robot(CAMERAS, SO101_JOINTS, RANGES)
TOP, HAND = "observation.images.top", "observation.images.hand"


def checkpoint(**changes: object) -> Checkpoint:
    fields = {
        "folder": Path("/checkpoints/Pick_Cube"),
        "config": {},
        "policy_type": "act",
        "cameras": {TOP: CameraInput(640, 480), HAND: CameraInput(320, 240)},
        "state_dim": 6,
        "action_dim": 6,
        "other_inputs": (),
        "n_obs_steps": 1,
        "chunk_size": 20,
    } | changes
    return Checkpoint(**fields)


def proposals(info: Checkpoint, extent: float | None = 95.0, **answers: str) -> dict[str, str | None]:
    return {question.key: question.proposal for question in questions.open_questions(info, ROBOT, answers, extent)}


def accepted(info: Checkpoint, extent: float | None = 95.0, **given: str) -> dict[str, str]:
    return answer_all(info, ROBOT, {"rate_hz": "30"} | given, extent, accept=True, console=None)


def test_it_proposes_what_the_checkpoint_lets_it_guess() -> None:
    found = proposals(checkpoint())
    assert found == {
        "name": "pick-cube",
        "version": "1.0.0",
        "prompt": "",
        "rate_hz": None,
        questions.camera_question(TOP): "overhead",
        questions.camera_question(HAND): "wrist",
        "joints": " ".join(SO101_JOINTS),
        "units": "deg",
    }


@pytest.mark.parametrize(("extent", "units"), [(1.9, "rad"), (6.2, "rad"), (6.4, "deg"), (None, None)])
def test_units_are_proposed_from_the_largest_joint_value(extent: float | None, units: str | None) -> None:
    assert proposals(checkpoint(), extent)["units"] == units


def test_one_camera_is_not_proposed_twice() -> None:
    info = checkpoint(cameras={TOP: CameraInput(64, 64), "observation.images.up": CameraInput(64, 64)})
    found = proposals(info)
    assert [found[questions.camera_question(key)] for key in info.cameras] == ["overhead", None]
    taken = proposals(info, **{questions.camera_question("observation.images.up"): "overhead"})
    assert taken[questions.camera_question(TOP)] is None


def test_another_number_of_joints_has_no_proposal() -> None:
    assert proposals(checkpoint(action_dim=7))["joints"] is None


def test_degrees_ask_for_the_gripper_and_percent_for_every_range() -> None:
    joints = " ".join(SO101_JOINTS)
    assert proposals(checkpoint(), joints=joints, units="deg")["units:gripper"] == "percent_from_zero"
    assert "units:gripper" not in proposals(checkpoint(), joints=joints, units="rad")
    found = proposals(checkpoint(), joints=joints, units="percent")
    assert found["range:elbow_flex"] == "-3:3"
    assert {key for key in found if key.startswith("range:")} == {f"range:{name}" for name in SO101_JOINTS}


def test_accepted_proposals_make_a_manifest() -> None:
    info = checkpoint()
    fields = questions.to_fields(info, accepted(info), info.chunk_size)
    made = Manifest(backend="torch", **fields)
    assert made.label == "pick-cube@1.0.0"
    assert made.cameras == {"overhead": CameraInput(640, 480), "wrist": CameraInput(320, 240)}
    assert (made.camera_key("overhead"), made.camera_key("wrist")) == (TOP, HAND)
    assert (made.units, made.joint_units) == (Units.DEG, {"gripper": Units.PERCENT_FROM_ZERO})
    assert made.joint_ranges == {"gripper": RANGES["gripper"]}
    assert (made.rate_hz, made.observation_period_s) == (30.0, pytest.approx(1 / 30))
    assert made.open_loop_s == 0.5


def test_the_open_loop_stays_within_a_short_chunk() -> None:
    info = checkpoint(chunk_size=5)
    assert questions.to_fields(info, accepted(info), 5)["open_loop_s"] == pytest.approx(5 / 30)


def test_cameras_of_the_same_name_need_no_key() -> None:
    info = checkpoint(cameras={"observation.images.front": CameraInput(64, 64)})
    assert questions.to_fields(info, accepted(info), 20)["camera_keys"] == {}


def test_what_is_missing_is_named_by_its_option() -> None:
    with pytest.raises(ConfigError) as caught:
        answer_all(checkpoint(), ROBOT, {}, 95.0, accept=False, console=None)
    text = str(caught.value)
    assert "\n" not in text
    for option in ("--name NAME (proposed: pick-cube)", "--rate-hz HZ;", "--camera top=CAMERA (proposed: overhead)"):
        assert option in text
    assert "--units UNITS (proposed: deg)" in text
    assert "--version" not in text, "it has a default that suits everybody"
    with pytest.raises(ConfigError, match=r"^not given: --rate-hz HZ\. Give it$"):
        answer_all(checkpoint(), ROBOT, {}, 95.0, accept=True, console=None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rate_hz": "fast"}, "--rate-hz fast: is no number"),
        ({"rate_hz": "nan"}, "must be finite"),
        ({"rate_hz": "0"}, "must be positive"),
        ({"units": "grad"}, "--units grad: must be one of rad, deg, percent, percent_from_zero"),
        ({"units": "deg", "units:gripper": "inch"}, "--joint-units gripper inch: must be one of"),
        ({"units": "percent", "range:gripper": "1"}, "--range gripper=1: write it as LOW:HIGH"),
        ({"units": "percent", "range:gripper": "2:1"}, "--range gripper=2:1: lower joint limit"),
        ({"joints": "a b"}, "--joint: 2 given, the checkpoint's actions have 6"),
        ({f"camera:{TOP}": "wrist", f"camera:{HAND}": "wrist"}, "cannot feed two"),
    ],
)
def test_answers_of_another_form_are_refused(changes: dict[str, str], expected: str) -> None:
    info = checkpoint()
    with pytest.raises(ConfigError, match=expected):
        questions.to_fields(info, accepted(info, **changes), 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("top", "write it as NAME=VALUE"),
        ("rear=front", "the checkpoint sees top, hand"),
        ("=x", "write it as"),
        ("top=nose", "this robot has overhead, front, left, wrist; --robot-camera"),
    ],
)
def test_a_camera_option_names_a_picture_of_the_checkpoint(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        questions.parse_camera(checkpoint(), ROBOT, text)
    assert questions.parse_camera(checkpoint(), ROBOT, f"{TOP}=left") == (TOP, "left")
    assert questions.parse_camera(checkpoint(), ROBOT, "hand=wrist") == (HAND, "wrist")
