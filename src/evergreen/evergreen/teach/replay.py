"""`evergreen teach replay`: goes slowly to the beginning, then plays a taught trajectory through the arm driver.

Never more than a moment of future is sent: whatever ends this process, the arm holds where that moment ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evergreen.teach import stopping
from evergreen.teach.errors import TeachError
from evergreen.teach.node import TeachNode
from vla_core import taught
from vla_core.taught import RATE_HZ, SQUEEZE_RAD, Taught
from vla_ros.spinning import spinning

ARM_S = 10.0
APPROACH_RAD_S = 0.6
"""Nobody knows what stands on the way to the beginning: slow enough to press Ctrl-C."""
APPROACH_LEAST_S = 1.0
AHEAD_S = 0.5
"""Future that is sent: what the arm plays on when this process dies."""
SEND_PERIOD_S = 0.1
ARRIVED_RAD = 0.1
"""Gravity's droop is less; the gripper may be stopped by what it holds, and is not asked."""
LOST_RAD = 0.6
"""Further from where it should be than this, the arm does not follow, or somebody else commands it."""
SETTLE_S = 3.0
STOP_AFTER_S = 0.1
GRIPPER = taught.GRIPPER


@dataclass(frozen=True, slots=True)
class Options:
    """What to play: `speed` times as fast as it was led; see `Taught.played` for the squeeze."""

    file: Path
    speed: float = 1.0
    squeeze_rad: float = SQUEEZE_RAD
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: whether to the end, and the distance of the arm from the path, rad, without the gripper."""

    finished: bool
    duration_s: float
    largest_error_rad: float
    mean_error_rad: float


def replay(options: Options, say: Callable[[str], None]) -> Outcome:
    """Play the file.

    Raises:
        ConfigError: the file cannot be played.
        TeachError: the arm is not there, of another kind, or does not follow.
    """
    lesson = taught.load(options.file)
    played = lesson.played(options.speed, options.squeeze_rad)
    if played.duration_s > lesson.duration_s / options.speed * 1.05:
        say(f"slowed down to {lesson.duration_s / played.duration_s:.2f} times its speed, which the joints can follow")
    with stopping.asked() as stop, spinning(TeachNode, options.namespace) as node:
        player = _Player(node, played, stop)
        player.wait_for_arm()
        say(f"going to the beginning ({player.approach_s():.1f} s); Ctrl-C stops the arm")
        if not player.approach():
            return Outcome(False, 0.0, 0.0, 0.0)
        say(f"playing {played.duration_s:.1f} s")
        outcome = player.play()
    say(
        f"done: {outcome.mean_error_rad * 1000:.0f} mrad from the path in the mean, at most"
        f" {outcome.largest_error_rad * 1000:.0f}"
        if outcome.finished
        else "stopped: the arm holds"
    )
    return outcome


class _Player:
    """One arm, one trajectory."""

    def __init__(self, node: TeachNode, played: Taught, stop: threading.Event) -> None:
        self._node, self._played, self._stop = node, played, stop
        self._names = played.joint_names
        self._judged = [index for index, name in enumerate(self._names) if name != GRIPPER]
        self._errors: list[float] = []

    def wait_for_arm(self) -> None:
        """Until it is heard and listens."""
        deadline_s = time.monotonic() + ARM_S
        while self._node.newest is None or not self._node.heard_by():
            if self._stop.wait(SEND_PERIOD_S) or time.monotonic() > deadline_s:
                raise TeachError(f"no arm within {ARM_S:.0f} s: does the arm driver run in this ROS domain?")
        _, joints = self._node.newest
        if set(joints) != set(self._names):
            raise TeachError(f"taught were the joints {', '.join(self._names)}, this arm has {', '.join(joints)}")

    def approach_s(self) -> float:
        """How long the way to the beginning takes."""
        far = float(np.abs(self._where() - self._played.positions[0]).max())
        return max(APPROACH_LEAST_S, far / APPROACH_RAD_S)

    def approach(self) -> bool:
        """Go to the first pose; False when somebody stopped it."""
        start, goal, duration_s = self._where(), self._played.positions[0], self.approach_s()
        share = np.linspace(0.0, 1.0, int(duration_s * RATE_HZ) + 1)
        smooth = (share * share * (3 - 2 * share))[:, None]
        way = Taught(self._names, RATE_HZ, start + smooth * (goal - start))
        if not self._send_along(way):
            return False
        if not self._arrives(goal):
            raise TeachError(f"the arm did not come to the beginning: {self._complaint()}")
        return True

    def play(self) -> Outcome:
        """Play from the first to the last pose."""
        self._errors.clear()
        began_s = time.monotonic()
        finished = self._send_along(self._played)
        if finished and not self._arrives(self._played.positions[-1]):
            raise TeachError(f"the arm did not come to the end: {self._complaint()}")
        errors = np.array(self._errors or [0.0])
        return Outcome(finished, time.monotonic() - began_s, float(errors.max()), float(errors.mean()))

    def _send_along(self, way: Taught) -> bool:
        """Send `way` piece by piece in time; False when stopped, and the arm then holds."""
        clock_ns = time.time_ns() - time.monotonic_ns()
        start_ns = time.monotonic_ns()
        rows = np.arange(len(way.positions)) / way.rate_hz
        elapsed_s = 0.0
        while elapsed_s < way.duration_s:
            due = (rows >= elapsed_s - 1 / way.rate_hz) & (rows <= elapsed_s + AHEAD_S)
            after_ns = np.rint(rows[due] * 1e9).astype(np.int64).tolist()
            self._node.send(start_ns + clock_ns, self._names, after_ns, way.positions[due])
            stopped = self._stop.wait(SEND_PERIOD_S)
            elapsed_s = (time.monotonic_ns() - start_ns) / 1e9
            if stopped:
                self._hold(way, elapsed_s)
                return False
            self._judge(way, start_ns + clock_ns)
        return True

    def _hold(self, way: Taught, elapsed_s: float) -> None:
        """Replace what is sent by a point just ahead: the driver brakes and holds there."""
        row = way.at(np.array([elapsed_s + STOP_AFTER_S / 2]))
        self._node.send(time.time_ns(), self._names, [int(STOP_AFTER_S * 1e9)], row)

    def _judge(self, way: Taught, start_ns: int) -> None:
        """Compare the arm with where it should have been when it was read."""
        if self._node.newest is None:
            return
        stamp_ns, joints = self._node.newest
        wanted = way.at(np.array([(stamp_ns - start_ns) / 1e9]))[0]
        error = float(np.abs(_row(joints, self._names) - wanted)[self._judged].max())
        self._errors.append(error)
        if error > LOST_RAD:
            self._hold(way, (time.time_ns() - start_ns) / 1e9)
            raise TeachError(f"the arm is {error:.2f} rad from where it should be: {self._complaint()}")

    def _arrives(self, goal: NDArray[np.float64]) -> bool:
        deadline_s = time.monotonic() + SETTLE_S
        while np.abs(self._where() - goal)[self._judged].max() > ARRIVED_RAD:
            if self._stop.wait(SEND_PERIOD_S) or time.monotonic() > deadline_s:
                return False
        return True

    def _where(self) -> NDArray[np.float64]:
        if self._node.newest is None:
            raise TeachError("the arm was not heard")
        return _row(self._node.newest[1], self._names)

    def _complaint(self) -> str:
        arm = self._node.arm
        said = arm.get("last_rejection") or arm.get("reason") or "the driver says nothing"
        return f"state {arm.get('state', 'unknown')}, {said}. It holds"


def _row(joints: Mapping[str, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.array([joints[name] for name in names])
