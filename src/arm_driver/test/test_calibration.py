import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_driver import calibration
from arm_driver.calibration import GRIPPER_CENTRE_RAD, JointCalibration, differences, load, parse
from arm_driver.errors import CalibrationError
from vla_core.joints import SO101_JOINTS

CENTRES = {"gripper": GRIPPER_CENTRE_RAD}
DOCUMENT = {
    name: {"id": i, "drive_mode": 0, "homing_offset": -85 + i, "range_min": 800 + i, "range_max": 3200 + i}
    for i, name in enumerate(SO101_JOINTS, start=1)
}


def changed(joint, **values):
    document = copy.deepcopy(DOCUMENT)
    document[joint] |= values
    return document


def test_the_mapping_of_the_contract():
    document = changed("gripper", range_min=2048 - 626, range_max=2048 + 626)
    arm = parse(document, SO101_JOINTS, CENTRES)
    assert arm.names == SO101_JOINTS
    assert arm.ids == (1, 2, 3, 4, 5, 6)
    middles = [2000 + i for i in range(1, 6)] + [2048]
    assert arm.to_rad(middles) == pytest.approx((0, 0, 0, 0, 0, 0.785398))
    assert arm.to_rad([middle + 1024 for middle in middles])[0] == pytest.approx(math.pi / 2)
    # so101_new_calib: the gripper's URDF limits are -10 and 100 degrees.
    assert arm.limits()[5].lower_rad == pytest.approx(-0.174533, abs=2e-3)
    assert arm.limits()[5].upper_rad == pytest.approx(1.745329, abs=2e-3)


def test_an_inverted_joint_turns_the_other_way():
    arm = parse(changed("elbow_flex", drive_mode=1), SO101_JOINTS, CENTRES)
    ticks = [2001, 2002, 2003 + 100, 2004, 2005, 2006]
    assert arm.to_rad(ticks)[2] == pytest.approx(-100 * 2 * math.pi / 4096)
    assert arm.to_ticks(arm.to_rad(ticks)) == ticks
    assert arm.velocity_rad_s([0, 0, 10, 0, 0, 0])[2] < 0.0
    assert arm.direction([0.1] * 6)[2] == -0.1


def test_joints_are_taken_by_name_not_by_place():
    document = dict(reversed(DOCUMENT.items()))
    assert parse(document, SO101_JOINTS, CENTRES).ids == (1, 2, 3, 4, 5, 6)


@given(st.lists(st.integers(801, 3201), min_size=6, max_size=6), st.booleans())
def test_ticks_there_and_back(ticks, inverted):
    arm = parse(changed("wrist_flex", drive_mode=int(inverted)), SO101_JOINTS, CENTRES)
    ticks = [min(max(tick, 800 + i), 3200 + i) for i, tick in enumerate(ticks, start=1)]
    assert arm.to_ticks(arm.to_rad(ticks)) == ticks


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_goals_never_leave_the_calibrated_range(positions):
    arm = parse(DOCUMENT, SO101_JOINTS, CENTRES)
    for tick, servo in zip(arm.to_ticks(positions), arm.joints.values(), strict=True):
        assert servo.range_min <= tick <= servo.range_max


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "object of joints, not list"),
        ({}, "shoulder_pan, .* are missing; the file has none"),
        ({k: v for k, v in DOCUMENT.items() if k != "gripper"}, r"gripper are missing; the file has shoulder_pan"),
        (changed("gripper", id=5), "share a servo id"),
        (changed("gripper", id=254), r"gripper: id is 254, allowed is 0\.\.253"),
        (changed("gripper", drive_mode=2), "drive_mode is 2"),
        (changed("gripper", range_max=4096), "range_max is 4096"),
        (changed("gripper", range_min=3300), "range_min 3300 must be below range_max 3206"),
        (changed("gripper", homing_offset=2048), "homing_offset is 2048"),
        (changed("gripper", range_min=1.5), "range_min must be a whole number, not 1.5"),
        (changed("gripper", id=True), "id must be a whole number, not True"),
        (DOCUMENT | {"gripper": {"id": 6}}, "gripper must be an object with id, drive_mode"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(document, message):
    with pytest.raises(CalibrationError, match=message):
        parse(document, SO101_JOINTS, CENTRES)


def test_files(tmp_path):
    path = tmp_path / "arm.json"
    with pytest.raises(CalibrationError, match=r"there is no file .*lerobot-calibrate"):
        load(path, SO101_JOINTS, CENTRES)
    path.write_text("{")
    with pytest.raises(CalibrationError, match=r"cannot read .*lerobot-calibrate"):
        load(path, SO101_JOINTS, CENTRES)
    path.write_text("{}")
    with pytest.raises(CalibrationError, match=f"calibration file {path}: .*missing"):
        load(path, SO101_JOINTS, CENTRES)
    path.write_text(json.dumps(DOCUMENT))
    assert load(path, SO101_JOINTS, CENTRES).joints["gripper"] == JointCalibration(**DOCUMENT["gripper"])


def test_servos_that_disagree_are_named_with_the_cure():
    arm = parse(DOCUMENT, SO101_JOINTS, CENTRES)
    registers = {name: (s.range_min, s.range_max, s.homing_offset) for name, s in arm.joints.items()}
    assert differences(arm, registers) == ()
    registers["elbow_flex"] = (0, 3203, 12)
    found = differences(arm, registers)
    assert [(d.joint, d.register) for d in found] == [
        ("elbow_flex", "minimum position"),
        ("elbow_flex", "homing offset"),
    ]
    message = calibration.mismatch_message(found)
    assert "elbow_flex minimum position: servo 0, file 803" in message
    assert "write_calibration: true" in message
