"""From messages that came when they came to frames at the control rate. Pure.

A frame belongs to one tick. Its picture is the one of each camera whose stamp lies nearest to the tick, its state the
joint states around the tick, interpolated, and its action the setpoint that the driver had at the tick: as in
`vla_training.record`, where all three are of one moment. A picture may lie half a camera's period before or behind the
tick; taking the newest before it instead would make pictures old by a quarter of a period in the mean, and a policy
would learn to be as late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arm_driver.trajectory import Message, Rejected, Rules, Trajectory, joined, sample, validate
from vla_core.joints import JointLimits
from vla_training.lerobot_format import DatasetError
from vla_training.mcap_recording import NS_PER_S, Command, Recording

MAX_SKEW_S = 0.2
"""A picture further from its tick than this shows something else; at 5 frames a second half a period is 0.1 s."""
SLOW_CURE = "; leave it out (--cameras) or allow more (--max-skew)"
MAX_STATE_GAP_S = 0.2
"""Joint states come 50 times a second; over a longer gap nobody knows what the arm did."""
STILL_RAD = 0.002
"""A servo's resolution is 1.5 mrad: less than this from one frame to the next is standing still."""
LEAD_S = 0.2
TAIL_S = 1.0
"""Standing still that is left at the ends: a policy that has seen long waits learns to wait, and one that has seen no
end does not stop."""
_ANYWHERE = JointLimits(-1e3, 1e3)
_DRIVER_HORIZON_S = 30.0
_DRIVER_STALE_S = 1.0
"""Defaults of the arm driver, which refuses the same trajectories."""


@dataclass(frozen=True, slots=True)
class Frames:
    """One episode at the control rate.

    Attributes:
        ticks_ns: `(n,)` system ns.
        chosen: number of the picture of each tick in `Recording.pictures`, `(n,)`, by camera.
        states, actions: `(n, dof)` rad.
        skew_s: largest distance of a picture from its tick.
    """

    ticks_ns: NDArray[np.int64]
    chosen: Mapping[str, NDArray[np.int64]]
    states: NDArray[np.float64]
    actions: NDArray[np.float64]
    skew_s: float


def resample(
    recording: Recording,
    cameras: Sequence[str],
    rate_hz: float,
    *,
    measured: bool = False,
    trim: bool = True,
    max_skew_s: float = MAX_SKEW_S,
) -> Frames:
    """Make frames.

    Args:
        recording: what was recorded.
        cameras: that each frame must have.
        rate_hz: of the frames.
        measured: take where the arm was for the action, as for a robot that somebody led by hand.
        trim: cut long standing still at both ends.
        max_skew_s: how far a picture may lie from its tick.

    Raises:
        DatasetError: a camera is missing or was silent, the arm was, or nothing was commanded.
    """
    where = recording.path.name
    missing = [name for name in cameras if not recording.pictures.get(name)]
    if missing:
        raise DatasetError(
            f"{where} has no pictures of camera {', '.join(missing)}; it has {', '.join(recording.pictures) or 'none'}"
        )
    if not measured and not recording.commands:
        raise DatasetError(
            f"{where}: nothing was commanded (no arm_controller/joint_trajectory); if somebody led the arm by hand,"
            " use --actions measured"
        )
    stamps = {name: np.array([stamp for stamp, _ in recording.pictures[name]], np.int64) for name in cameras}
    ticks = _ticks(where, stamps, recording.state_ns, rate_hz)
    states = _interpolate(where, recording, ticks)
    actions = states if measured else setpoints(recording.commands, recording.joint_names, ticks, states)
    if trim:
        begin, end = _moving(where, states, actions, rate_hz)
        ticks, states, actions = ticks[begin:end], states[begin:end], actions[begin:end]
    chosen = {name: _nearest(stamps[name], ticks) for name in cameras}
    skews = {name: np.abs(stamps[name][index] - ticks) for name, index in chosen.items()}
    for name, skew in skews.items():
        _refuse_gap(where, f"camera {name}", ticks, skew, limit_s=max_skew_s, cure=SLOW_CURE)
    largest = max((int(skew.max()) for skew in skews.values()), default=0)
    return Frames(ticks, chosen, states, actions, largest / NS_PER_S)


def setpoints(
    commands: Sequence[Command], joint_names: Sequence[str], ticks_ns: NDArray[np.int64], states: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the arm driver wanted the joints at each tick, before its limits of speed: `(n, dof)` rad.

    Before the first command it holds where it stands, which `states` says.
    """
    rules = Rules(tuple(joint_names), (_ANYWHERE,) * len(joint_names), _DRIVER_HORIZON_S, _DRIVER_STALE_S)
    waiting = list(commands)
    playing: Trajectory | None = None
    wanted = np.array(states, np.float64)
    for number, tick_ns in enumerate(ticks_ns.tolist()):
        while waiting and waiting[0].received_ns <= tick_ns:
            command = waiting.pop(0)
            before = tuple(states[number]) if playing is None else sample(playing, command.received_ns).positions
            playing = _accepted(command, rules, before) or playing
        if playing is not None:
            wanted[number] = sample(playing, tick_ns).positions
    return wanted


def _accepted(command: Command, rules: Rules, setpoint: tuple[float, ...]) -> Trajectory | None:
    message = Message(
        command.stamp_ns, command.names, command.times_ns, command.positions, command.received_ns, clock_offset_ns=0
    )
    checked = validate(message, rules)
    return None if isinstance(checked, Rejected) else joined(checked, command.received_ns, setpoint)


def _ticks(
    where: str, stamps: Mapping[str, NDArray[np.int64]], state_ns: NDArray[np.int64], rate_hz: float
) -> NDArray[np.int64]:
    """Times at which everything was there."""
    every = [*stamps.values(), state_ns]
    start, end = max(int(each[0]) for each in every), min(int(each[-1]) for each in every)
    count = int((end - start) * rate_hz / NS_PER_S) + 1
    if count < 2:
        raise DatasetError(
            f"{where} is too short: all cameras and the arm were there together for less than two frames"
        )
    ticks: NDArray[np.int64] = start + np.rint(np.arange(count) * (NS_PER_S / rate_hz)).astype(np.int64)
    return ticks


def _nearest(stamps: NDArray[np.int64], ticks: NDArray[np.int64]) -> NDArray[np.int64]:
    after = np.clip(np.searchsorted(stamps, ticks), 1, max(len(stamps) - 1, 1))
    if len(stamps) == 1:
        return np.zeros(len(ticks), np.int64)
    return np.where(ticks - stamps[after - 1] <= stamps[after] - ticks, after - 1, after)


def _interpolate(where: str, recording: Recording, ticks: NDArray[np.int64]) -> NDArray[np.float64]:
    stamps = recording.state_ns
    nearest = np.abs(stamps[_nearest(stamps, ticks)] - ticks)
    _refuse_gap(where, "the arm (joint_states)", ticks, nearest, limit_s=MAX_STATE_GAP_S)
    origin = stamps[0]  # float64 cannot tell ns since 1970 apart
    columns = [np.interp(ticks - origin, stamps - origin, column) for column in recording.positions.T]
    return np.stack(columns, axis=1)


def _refuse_gap(
    where: str, what: str, ticks: NDArray[np.int64], away: NDArray[np.int64], *, limit_s: float, cure: str = ""
) -> None:
    late = np.flatnonzero(away > limit_s * NS_PER_S)
    if len(late):
        begin_s, end_s = ((ticks[late[index]] - ticks[0]) / NS_PER_S for index in (0, -1))
        raise DatasetError(
            f"{where}: {what} was silent or slow between {begin_s:.1f} s and {end_s:.1f} s: {len(late)} of {len(ticks)}"
            f" frames have nothing within {limit_s:g} s{cure}"
        )


def _moving(where: str, states: NDArray[np.float64], actions: NDArray[np.float64], rate_hz: float) -> tuple[int, int]:
    """First and one past the last frame to keep."""
    steps = np.maximum(np.abs(np.diff(states, axis=0)), np.abs(np.diff(actions, axis=0))).max(axis=1)
    moving = np.flatnonzero(steps > STILL_RAD)
    if not len(moving):
        raise DatasetError(f"{where}: the arm does not move (keep it with --no-trim)")
    begin = max(0, int(moving[0]) - round(LEAD_S * rate_hz))
    end = min(len(states), int(moving[-1]) + 2 + round(TAIL_S * rate_hz))
    return begin, end
