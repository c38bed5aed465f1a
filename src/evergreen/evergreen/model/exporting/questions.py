"""What a checkpoint does not say of itself, what it lets us propose, and the manifest that the answers make.

Pure: answers are text, whether they came from the command line, from a dialogue or from the proposals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vla_core.checkpoint import Checkpoint
from vla_core.errors import ConfigError, EvergreenError
from vla_core.joints import SO101_JOINTS, JointLimits, Units
from vla_core.observation import IMAGE_KEY

OPEN_LOOP_S = 0.5
"""As much of a chunk as Evergreen plays before it wants the next."""
RAD_LIMIT = 2 * math.pi
"""Joint values beyond a full turn are no radians."""
GRIPPER = "gripper"
ALIASES: Mapping[str, tuple[str, ...]] = {
    "overhead": ("top", "up", "above", "cam_high", "bird", "ceiling"),
    "wrist": ("hand", "gripper", "cam_wrist", "handeye", "eye_in_hand"),
    "front": ("image", "cam", "camera", "camera1", "laptop", "webcam", "phone", "main", "base"),
    "left": ("cam_left", "side"),
    "right": ("cam_right",),
}
"""What people call their cameras; only ever proposed."""


@dataclass(frozen=True, slots=True)
class Robot:
    """What this robot has: its cameras, its joints and their ranges in rad."""

    cameras: tuple[str, ...]
    joints: tuple[str, ...]
    ranges: Mapping[str, JointLimits]


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to be known.

    Attributes:
        key: of its answer.
        option: of the command line, as it would be written.
        text: as a person is asked.
        proposal: what fits, if anything does.
        may_default: whether the proposal is taken without a word where nobody can be asked.
        choices: the only answers that there are; empty where any text will do.
    """

    key: str
    option: str
    text: str
    proposal: str | None = None
    may_default: bool = False
    choices: tuple[str, ...] = ()


def camera_question(feature: str) -> str:
    """Key of the answer that says which camera feeds `feature`."""
    return f"camera:{feature}"


def open_questions(info: Checkpoint, robot: Robot, answers: Mapping[str, str], extent: float | None) -> list[Question]:
    """Every question that `answers` leave open.

    Args:
        info: the checkpoint.
        robot: the robot that shall run it.
        answers: so far.
        extent: largest joint value of the training data, in its own units; None where the checkpoint does not tell.
    """
    asked = [*_identity(info), *_cameras(info, robot, answers), *_joints(info, robot, answers, extent)]
    return [question for question in asked if question.key not in answers]


def _identity(info: Checkpoint) -> list[Question]:
    name = "-".join(part for part in info.folder.resolve().name.replace("_", "-").lower().split() if part)
    return [
        Question("name", "--name NAME", "Name of the model", name or info.policy_type),
        Question("version", "--version V", "Its version", "1.0.0", may_default=True),
        Question("prompt", "--prompt TEXT", "Default prompt", "", may_default=True),
        Question("rate_hz", "--rate-hz HZ", "Frames a second of the data that it was trained on"),
    ]


def _cameras(info: Checkpoint, robot: Robot, answers: Mapping[str, str]) -> list[Question]:
    asked = []
    taken = {answers[key] for key in map(camera_question, info.cameras) if key in answers}
    for feature, name in info.camera_names.items():
        proposal = propose_camera(name, [camera for camera in robot.cameras if camera not in taken])
        if camera_question(feature) not in answers and proposal:
            taken.add(proposal)
        size = info.cameras[feature]
        text = f"Which camera feeds {feature} ({size.width}x{size.height} px)?"
        option = f"--camera {name}=CAMERA"
        asked.append(Question(camera_question(feature), option, text, proposal, choices=robot.cameras))
    return asked


def propose_camera(name: str, free: Sequence[str]) -> str | None:
    """The camera that a checkpoint's name for it most likely means."""
    if name in free:
        return name
    return next((camera for camera, others in ALIASES.items() if camera in free and name in others), None)


def _joints(info: Checkpoint, robot: Robot, answers: Mapping[str, str], extent: float | None) -> list[Question]:
    fits = len(robot.joints) == info.action_dim
    asked = [
        Question(
            "joints",
            "--joint NAME (once for each)",
            f"Names of the {info.action_dim} joints in the order of the action, separated by spaces",
            " ".join(robot.joints) if fits else None,
        ),
        Question(
            "units",
            "--units UNITS",
            "Units of its joints",
            None if extent is None else (Units.RAD if extent <= RAD_LIMIT else Units.DEG).value,
            choices=tuple(units.value for units in Units),
        ),
    ]
    if GRIPPER in answers.get("joints", "").split() and answers.get("units") in (Units.DEG, Units.PERCENT):
        text = "Units of its gripper (LeRobot's own is percent_from_zero)"
        units = tuple(units.value for units in Units)
        option = f"--joint-units {GRIPPER}=UNITS"
        asked.append(Question(units_question(GRIPPER), option, text, Units.PERCENT_FROM_ZERO.value, choices=units))
    for joint in _joints_of_a_range(answers):
        known = robot.ranges.get(joint)
        text = f"Calibrated range of {joint} in rad, as LOW:HIGH"
        proposal = f"{known.lower_rad:g}:{known.upper_rad:g}" if known else None
        asked.append(Question(range_question(joint), f"--range {joint}=LOW:HIGH", text, proposal))
    return asked


def units_question(joint: str) -> str:
    """Key of the answer that gives the units of one joint."""
    return f"units:{joint}"


def range_question(joint: str) -> str:
    """Key of the answer that gives the range of one joint."""
    return f"range:{joint}"


def _joints_of_a_range(answers: Mapping[str, str]) -> list[str]:
    """Joints whose units are percent of a range, as far as is known yet."""
    relative = [units for units in Units if units.needs_range]
    return [
        joint
        for joint in answers.get("joints", "").split()
        if answers.get(units_question(joint), answers.get("units")) in relative
    ]


def to_fields(info: Checkpoint, answers: Mapping[str, str], chunk_size: int) -> dict[str, Any]:
    """The manifest's fields that the answers make; all questions are answered.

    Raises:
        ConfigError: an answer is not of the form that is wanted.
    """
    joints = tuple(answers["joints"].split())
    rate_hz = parse_rate(answers["rate_hz"])
    named = {answers[camera_question(feature)]: feature for feature in info.cameras}
    if len(named) != len(info.cameras):
        raise ConfigError("--camera: one camera cannot feed two of the checkpoint's pictures")
    if len(joints) != info.action_dim:
        raise ConfigError(f"--joint: {len(joints)} given, the checkpoint's actions have {info.action_dim}")
    others = {joint: answers[units_question(joint)] for joint in joints if units_question(joint) in answers}
    units = _units("--units", answers["units"])
    joint_units = {joint: _units(f"--joint-units {joint}", text) for joint, text in others.items()}
    return {
        "name": answers["name"],
        "version": answers["version"],
        "policy_type": info.policy_type,
        "joint_names": joints,
        "cameras": {name: info.cameras[feature] for name, feature in named.items()},
        "camera_keys": {name: feature for name, feature in named.items() if feature != IMAGE_KEY + name},
        "units": units,
        "joint_units": {joint: own for joint, own in joint_units.items() if own is not units},
        "joint_ranges": {joint: _range(joint, answers[range_question(joint)]) for joint in _joints_of_a_range(answers)},
        "rate_hz": rate_hz,
        "chunk_size": chunk_size,
        "open_loop_s": min(
            _number("--open-loop-s", answers.get("open_loop_s", f"{OPEN_LOOP_S}")), chunk_size / rate_hz
        ),
        "n_obs_steps": info.n_obs_steps,
        "observation_period_s": 1.0 / rate_hz,
        "prompt": answers["prompt"],
        "licence": answers.get("licence", "unknown"),
    }


def parse_rate(text: str) -> float:
    """Frames a second.

    Raises:
        ConfigError: no positive number.
    """
    rate_hz = _number("--rate-hz", text)
    if rate_hz <= 0:
        raise ConfigError(f"--rate-hz {text}: must be positive")
    return rate_hz


def parse_pair(option: str, text: str) -> tuple[str, str]:
    """`KEY=VALUE`.

    Raises:
        ConfigError: it has another form.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ConfigError(f"{option} {text}: write it as NAME=VALUE")
    return key, value


def parse_camera(info: Checkpoint, robot: Robot, text: str) -> tuple[str, str]:
    """`--camera top=overhead`: the checkpoint's feature, or its last part, and the robot's camera.

    Raises:
        ConfigError: the checkpoint has no such feature, or the robot no such camera.
    """
    name, camera = parse_pair("--camera", text)
    if camera not in robot.cameras:
        raise ConfigError(
            f"--camera {text}: this robot has {', '.join(robot.cameras)}; --robot-camera tells of another robot's"
        )
    for feature, short in info.camera_names.items():
        if name in (feature, short):
            return feature, camera
    raise ConfigError(f"--camera {text}: the checkpoint sees {', '.join(info.camera_names.values()) or 'no pictures'}")


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: is no number") from error
    if not math.isfinite(value):
        raise ConfigError(f"{option} {text}: must be finite")
    return value


def _units(option: str, text: str) -> Units:
    try:
        return Units(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: must be one of {', '.join(Units)}") from error


def _range(joint: str, text: str) -> JointLimits:
    low, colon, high = text.partition(":")
    option = f"--range {joint}"
    if not colon:
        raise ConfigError(f"{option}={text}: write it as LOW:HIGH in rad")
    try:
        return JointLimits(_number(option, low), _number(option, high))
    except EvergreenError as error:
        raise ConfigError(f"{option}={text}: {error}") from error


def default_robot(cameras: tuple[str, ...], ranges: Mapping[str, JointLimits]) -> Robot:
    """An SO-101 with these cameras."""
    return Robot(cameras, SO101_JOINTS, ranges)
