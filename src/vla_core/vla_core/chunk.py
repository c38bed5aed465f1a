"""Action chunks in time, and how the next one takes over from the last without a jump.

Every time here is in nanoseconds of one clock, whichever the caller uses throughout; nothing reads a clock. `join` is
a pure function of what has been commanded and what arrived. Another way to join (ensembling of overlapping chunks,
real-time chunking) is another function of the type `Joiner`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_core.errors import ConfigError, TrajectoryError

Vector = NDArray[np.float64]
"""`(dof,)`, rad."""

NS_PER_S = 1_000_000_000

BLEND_STEP_NS = 20_000_000
"""Spacing of the points that draw a blend: between them the driver's straight line leaves it by 1.5 % of the gap."""

MIN_SPACING_NS = 1_000_000
"""Points closer than a millisecond say nothing more: a servo bus is written every 10 ms or so."""

FUTURE_TOLERANCE_NS = 50_000_000
"""An observation may be stamped this far ahead of our clock: more means that a clock was set or that two disagree."""

_SMOOTHSTEP_PEAK = 1.5
"""Largest slope of 3u² - 2u³ over 0..1."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing to command: the arm keeps its last setpoint. An expected outcome, not an error."""

    reason: str


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """What a policy answered: action *k* belongs to `stamp_ns` + *k*/`rate_hz`.

    Attributes:
        stamp_ns: stamp of the observation that it answers.
        rate_hz: rate of the actions.
        actions: `(horizon, dof)` joint targets, rad. May hold NaN: `join` refuses those.
    """

    stamp_ns: int
    rate_hz: float
    actions: NDArray[np.float64]

    def __post_init__(self) -> None:
        actions = np.array(self.actions, dtype=np.float64)
        if actions.ndim != 2 or not actions.size:
            raise TrajectoryError(f"a chunk must be (horizon, dof), not of shape {actions.shape}")
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise TrajectoryError(f"a chunk's rate must be positive, not {self.rate_hz} Hz")
        actions.flags.writeable = False
        object.__setattr__(self, "actions", actions)

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """`(horizon,)`: when each action is due."""
        steps = np.rint(np.arange(len(self.actions)) * (NS_PER_S / self.rate_hz)).astype(np.int64)
        times: NDArray[np.int64] = self.stamp_ns + steps
        return times

    @property
    def end_ns(self) -> int:
        """When the last action is due."""
        return int(self.times_ns[-1])

    def at(self, times_ns: ArrayLike) -> NDArray[np.float64]:
        """Targets at `times_ns`, straight lines between actions, the first and last held outside: `(…, dof)`."""
        return _sample(self.times_ns, self.actions, times_ns)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is commanded: setpoints with straight lines between; the last is held.

    Attributes:
        stamp_ns: stamp of the observation from which it came.
        times_ns: `(n,)`, strictly ascending.
        positions: `(n, dof)`, rad, finite.
    """

    stamp_ns: int
    times_ns: NDArray[np.int64]
    positions: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.positions.ndim != 2 or self.times_ns.shape != self.positions.shape[:1] or not self.times_ns.size:
            raise TrajectoryError(f"{self.times_ns.shape} times do not fit positions of shape {self.positions.shape}")
        if not np.isfinite(self.positions).all():
            raise TrajectoryError("a plan's positions must be finite")
        if not (np.diff(self.times_ns) > 0).all():
            raise TrajectoryError("a plan's times must ascend")

    @property
    def start_ns(self) -> int:
        """When the first setpoint is due."""
        return int(self.times_ns[0])

    @property
    def end_ns(self) -> int:
        """When the last setpoint is due; held from then on."""
        return int(self.times_ns[-1])

    def at(self, times_ns: ArrayLike) -> NDArray[np.float64]:
        """Setpoints at `times_ns`; the first and last are held outside: `(…, dof)`."""
        return _sample(self.times_ns, self.positions, times_ns)


@dataclass(frozen=True, slots=True)
class JoinRules:
    """How a chunk takes over.

    Attributes:
        open_loop_s: most of the future that is commanded at once; the end of it is the arm's watchdog.
        blend_s: how long the old plan fades into the new one. Chunks disagree by 20 to 70 mrad where they meet.
        velocity_rad_s: what the fading itself may add to the speed; a wider gap fades for longer.
    """

    open_loop_s: float = 0.5
    blend_s: float = 0.15
    velocity_rad_s: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.open_loop_s <= 60:
            raise ConfigError(f"open_loop_s {self.open_loop_s} must be above 0 and at most 60")
        if not 0.001 <= self.blend_s <= 2:
            raise ConfigError(f"blend_s {self.blend_s} must be between 0.001 and 2")
        if not 0 < self.velocity_rad_s <= 20:
            raise ConfigError(f"velocity_rad_s {self.velocity_rad_s} must be above 0 and at most 20")

    def blend_ns(self, gap: Vector) -> int:
        """How long a fade over `gap` (rad) lasts so that it adds at most `velocity_rad_s`."""
        needed_s = _SMOOTHSTEP_PEAK * float(np.abs(gap).max()) / self.velocity_rad_s
        return round(max(self.blend_s, needed_s) * NS_PER_S)


Joiner: TypeAlias = Callable[[ActionChunk, int, Plan | None, Vector, JoinRules], Plan | Hold]


def join(chunk: ActionChunk, now_ns: int, last: Plan | None, state: Vector, rules: JoinRules) -> Plan | Hold:
    """Let `chunk` take over from `last` at `now_ns`.

    Actions that are past are dropped. The plan starts at `now_ns` exactly where `last` is then and fades smoothly into
    the chunk: neither position nor speed jumps.

    Where nothing was commanded yet, it fades from the measured `state`, and its first point lies `blend_s` ahead: the
    driver gets there from the setpoint that it holds. Measured positions hang below that by some hundredths of a radian
    under gravity, so that a point at `now_ns` would be a jump.

    Args:
        chunk: what the policy answered.
        now_ns: the present.
        last: the plan in force; past its end its last setpoint counts, which is what the arm holds.
        state: measured joint positions.
        rules: horizon and blend.

    Returns:
        The new plan, up to at most `now_ns` + `open_loop_s`; or why there is none.

    Raises:
        TrajectoryError: the chunk, the last plan and the state disagree about the number of joints.
    """
    dof = chunk.actions.shape[1]
    if state.shape != (dof,) or (last is not None and last.positions.shape[1] != dof):
        raise TrajectoryError(f"a chunk of {dof} joints cannot follow a state of {state.shape[0]}")
    if reason := _unusable(chunk, now_ns, state):
        return Hold(reason)
    end_ns = min(chunk.end_ns, now_ns + round(rules.open_loop_s * NS_PER_S))
    old = last or Plan(chunk.stamp_ns, np.array([now_ns]), state[None].astype(np.float64))
    fade_ns = rules.blend_ns(chunk.at(now_ns) - old.at(now_ns))
    times = _knots(now_ns, end_ns, chunk.times_ns, _fade_times(now_ns, fade_ns, old))
    if last is None:
        first_ns = min(now_ns + round(rules.blend_s * NS_PER_S), end_ns)
        times = times[times >= first_ns]
    return Plan(chunk.stamp_ns, times, _fade(times, now_ns, fade_ns, old.at(times), chunk.at(times)))


def brake(last: Plan | None, now_ns: int, rules: JoinRules) -> Plan | None:
    """A short plan that brings the arm from `last` to rest without a jerk; None where it rests already.

    The arm stops where `last` would have been after half the blend, so that no joint turns back by more than a trace.
    """
    if last is None or last.end_ns <= now_ns:
        return None
    fade_ns = round(rules.blend_s * NS_PER_S)
    times = _knots(now_ns, now_ns + fade_ns, _fade_times(now_ns, fade_ns, last))
    old = last.at(times)
    rest = np.broadcast_to(last.at(now_ns + fade_ns // 2), old.shape)
    return Plan(now_ns, times, _fade(times, now_ns, fade_ns, old, rest))


def _unusable(chunk: ActionChunk, now_ns: int, state: Vector) -> str:
    """Why `chunk` cannot be played at `now_ns`, or nothing."""
    if not np.isfinite(chunk.actions).all():
        return "the policy answered with numbers that are not finite"
    if not np.isfinite(state).all():
        return "the measured joint positions are not finite"
    if chunk.stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
        return f"the chunk is stamped {(chunk.stamp_ns - now_ns) / NS_PER_S:.3f} s in the future: was a clock set?"
    if chunk.end_ns < now_ns + MIN_SPACING_NS:
        covers_s = (chunk.end_ns - chunk.stamp_ns) / NS_PER_S
        age_s = (now_ns - chunk.stamp_ns) / NS_PER_S
        return f"the chunk came too late: it covers {covers_s:.2f} s and is {age_s:.2f} s old"
    return ""


def _fade_times(now_ns: int, fade_ns: int, old: Plan) -> NDArray[np.int64]:
    """Times that draw the fade: a grid, its end, and the old plan's own corners."""
    end_ns = now_ns + fade_ns
    grid = np.arange(now_ns, end_ns, BLEND_STEP_NS, dtype=np.int64)
    corners = old.times_ns[(old.times_ns > now_ns) & (old.times_ns < end_ns)]
    return np.concatenate([grid, corners, [end_ns]])


def _knots(start_ns: int, end_ns: int, *groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """`start_ns`, `end_ns` and what `groups` holds between them, thinned to MIN_SPACING_NS."""
    inner = np.unique(np.concatenate(groups))
    inner = inner[(inner >= start_ns + MIN_SPACING_NS) & (inner <= end_ns - MIN_SPACING_NS)]
    kept = [start_ns]
    for time_ns in inner.tolist():
        if time_ns - kept[-1] >= MIN_SPACING_NS:
            kept.append(time_ns)
    return np.array([*kept, end_ns], dtype=np.int64)


def _fade(
    times_ns: NDArray[np.int64], now_ns: int, fade_ns: int, old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`(n, dof)`: `old` at `now_ns`, `new` from `now_ns + fade_ns` on, a smoothstep between."""
    u = np.clip((times_ns - now_ns) / fade_ns, 0.0, 1.0)
    weight = (u * u * (3.0 - 2.0 * u))[:, None]
    return old + weight * (new - old)


def _sample(times_ns: NDArray[np.int64], positions: NDArray[np.float64], wanted_ns: ArrayLike) -> NDArray[np.float64]:
    """Straight lines through `positions` `(n, dof)` at `wanted_ns` `(…)`: `(…, dof)`."""
    # Relative to the first: nanoseconds since 1970 do not fit a float64 exactly.
    wanted = np.asarray(np.asarray(wanted_ns, dtype=np.int64) - times_ns[0], dtype=np.float64)
    known = (times_ns - times_ns[0]).astype(np.float64)
    return np.stack([np.interp(wanted, known, column) for column in positions.T], axis=-1)
