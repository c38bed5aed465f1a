"""Judging a new model's answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from policy_logic import SPEC

from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_policy.gate import GateLimits, object_to_actions, object_to_latency, time_for_answer_s

LIMITS = GateLimits(pose_rad=0.5, velocity_rad_s=2.0)
POSE = np.full(6, 0.1)
GOOD = POSE + 0.01 * np.arange(20)[:, None]
PAN, GRIPPER = 0, 5


def changed(row: int, joint: int, value: float) -> np.ndarray:
    actions = GOOD.copy()
    actions[row:, joint] = value
    return actions


def judge(actions: np.ndarray, limits: GateLimits = LIMITS) -> str:
    return object_to_actions(actions, SPEC, POSE, limits)


def test_good_answers_pass():
    assert judge(GOOD) == ""
    assert judge(GOOD[:10]) == "", "as long as the open loop is covered"


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        (GOOD[:, :5], r"answered (20, 5) where tiny@1 promises (20, 6)"),
        (GOOD[:9], r"answered (9, 6)"),
        (np.concatenate([GOOD, GOOD]), r"answered (40, 6)"),
        (GOOD[0], r"answered (6,)"),
        (changed(19, 2, np.nan), "not finite"),
        (changed(3, 2, np.inf), "not finite"),
        (changed(0, PAN, -2.2), "sends shoulder_pan 0.28 rad beyond its limit; 0.1 are allowed"),
        (changed(0, PAN, 0.7), "first action has shoulder_pan 0.60 rad from where it is; 0.5 are allowed"),
        (changed(10, PAN, 0.5), "moves shoulder_pan with 3.1 rad/s; 2 are allowed"),
    ],
)
def test_others_do_not_and_it_is_said_why(actions: np.ndarray, reason: str):
    assert reason in judge(actions)


def test_the_gripper_may_be_anywhere_within_its_limits():
    """It stands where what it holds stops it, and closes at once."""
    assert judge(changed(0, GRIPPER, 1.5)) == ""
    assert judge(changed(10, GRIPPER, 1.5)) == ""
    assert "sends gripper" in judge(changed(10, GRIPPER, 2.0))


def test_limits_follow_names_not_columns():
    turned = replace(SPEC, joint_names=SO101_JOINTS[::-1])
    actions = np.zeros((20, 6))
    actions[:, 0] = 1.5  # the gripper's
    assert object_to_actions(actions, turned, actions[0], LIMITS) == ""
    actions[:, 0], actions[:, 5] = 0.0, 1.95  # shoulder_pan's, within the margin
    assert object_to_actions(actions, turned, actions[0], LIMITS) == ""
    actions[:, 5] = 2.1
    assert "shoulder_pan" in object_to_actions(actions, turned, actions[0], LIMITS)


def test_latency():
    assert object_to_latency([100.0] * 9 + [150.0], 1.0, 1.0) == ""
    assert "an answer takes 800 ms where at most 760 ms keep the arm moving" in object_to_latency([800.0] * 3, 1.0, 1.0)
    assert object_to_latency([300.0], 1.0, 0.3) != "", "what it saw would be too old"
    assert time_for_answer_s(0.5, 1.0) == pytest.approx(0.36)


def test_limits_must_fit_the_joints():
    with pytest.raises(ConfigError, match="lower_rad has 5 values for 6 joints"):
        GateLimits(lower_rad=(0.0,) * 5)
    with pytest.raises(ConfigError, match=r"joint gripper has 2\.0 and 1\.0"):
        GateLimits(lower_rad=(0.0,) * 5 + (2.0,), upper_rad=(1.0,) * 6)
