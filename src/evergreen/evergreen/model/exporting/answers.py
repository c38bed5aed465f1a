"""The command line's part: the answers that it gives, the robot that it describes, and what is said in the end."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from arm_driver import calibration
from arm_driver.settings import Settings as ArmSettings
from evergreen.model.exporting import questions
from evergreen.model.exporting.program import Exported
from evergreen.model.exporting.questions import Robot
from vla_core.checkpoint import Checkpoint
from vla_core.errors import ConfigError
from vla_core.joints import JointLimits
from vla_policy.settings import CAMERAS

SINGLE_ACTIONS = 1
"""A chunk of one action is over before it arrives: such a policy is asked for several."""


def described_robot(arguments: argparse.Namespace) -> Robot:
    """The robot that the command line describes; the shipped SO-101 where it does not.

    Raises:
        ConfigError: the calibration file is at fault.
    """
    arm = ArmSettings()
    limits = [JointLimits(*pair) for pair in zip(arm.lower_rad, arm.upper_rad, strict=True)]
    if arguments.calibration:
        centres = dict(zip(arm.joint_names, arm.centre_rad, strict=True))
        limits = list(calibration.load(arguments.calibration, arm.joint_names, centres).limits())
    ranges = dict(zip(arm.joint_names, limits, strict=True))
    return Robot(tuple(arguments.robot_camera) or CAMERAS, tuple(arm.joint_names), ranges)


def given(arguments: argparse.Namespace, info: Checkpoint, robot: Robot) -> dict[str, str]:
    """Every answer on the command line.

    Raises:
        ConfigError: an option is not of the form that it should have.
    """
    found = {
        key: value
        for key in ("name", "version", "prompt", "rate_hz", "units", "open_loop_s", "licence")
        if (value := getattr(arguments, key)) is not None
    }
    if arguments.joint:
        found["joints"] = " ".join(arguments.joint)
    for text in arguments.camera:
        feature, camera = questions.parse_camera(info, robot, text)
        found[questions.camera_question(feature)] = camera
    for text in arguments.joint_units:
        joint, units = questions.parse_pair("--joint-units", text)
        found[questions.units_question(joint)] = units
    for text in arguments.range:
        joint, written = questions.parse_pair("--range", text)
        found[questions.range_question(joint)] = written
    if arguments.calibration:  # measured on this very arm: nothing is left to ask
        for joint, limits in robot.ranges.items():
            found.setdefault(questions.range_question(joint), f"{limits.lower_rad}:{limits.upper_rad}")
    return found


def check_joints(arguments: argparse.Namespace, joints: Sequence[str]) -> None:
    """See whether what was said of single joints is about the checkpoint's.

    Raises:
        ConfigError: an option names another joint.
    """
    for option, texts in (("--joint-units", arguments.joint_units), ("--range", arguments.range)):
        for text in texts:
            joint, _ = questions.parse_pair(option, text)
            if joint not in joints:
                raise ConfigError(f"{option} {text}: its joints are {', '.join(joints)}")


def chunk_size(arguments: argparse.Namespace, info: Checkpoint, rate_hz: float) -> int:
    """Actions in an answer.

    Raises:
        ConfigError: fewer than one.
    """
    if arguments.chunk_size is not None:
        if arguments.chunk_size < 1:
            raise ConfigError(f"--chunk-size {arguments.chunk_size}: must be at least 1")
        return int(arguments.chunk_size)
    if info.chunk_size == SINGLE_ACTIONS:
        return math.ceil(questions.OPEN_LOOP_S * rate_hz) + 1
    return info.chunk_size


def backbones(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """`[REFERENCE=]FOLDER`, split."""
    pairs = [text.rpartition("=") for text in texts]
    return [(name, Path(folder).expanduser()) for name, _, folder in pairs]


def report(made: Exported) -> list[str]:
    """What came out, for people."""
    model = made.manifest
    what = f"{model.policy_type} with the {model.backend} backend, {model.chunk_size} actions at {model.rate_hz:g} Hz"
    lines = [f"{made.folder}: {model.label}, {what}", f"one answer takes {made.infer_ms:.0f} ms here"]
    if made.parity_rad is not None:
        lines.append(f"the ONNX graph is at most {made.parity_rad:.1e} rad off LeRobot")
    if made.left_out:
        lines.append(f"left out, since a model holds no such files: {', '.join(made.left_out)}")
    return lines
