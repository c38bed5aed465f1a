"""The last limits before the servos: position, velocity, acceleration, and the largest step. Pure.

Each joint is a point with position `x` and velocity `v` that follows a moving target as fast as the limits allow
and without overshooting one that its own velocity announces. The braking speed is the discrete-time optimum, derived
in `braking_speed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vla_core.errors import ConfigError
from vla_core.joints import JointLimits

MAX_DT_S = 0.05
"""A period longer than this (a stalled process) counts as this long: time lost is not made up by a leap."""


@dataclass(frozen=True, slots=True)
class JointRule:
    """Limits of one joint: position, greatest velocity and acceleration, and greatest change in one cycle."""

    position: JointLimits
    velocity_rad_s: float
    acceleration_rad_s2: float
    step_rad: float

    def __post_init__(self) -> None:
        for name in ("velocity_rad_s", "acceleration_rad_s2", "step_rad"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"joint limit {name} must be above 0, not {value}")


class Limiter:
    """Setpoint of the whole arm, moved by `step`. Starts where the arm is measured.

    Attributes:
        positions: present setpoint, rad, `(dof,)`.
        velocities: its velocity, rad/s, `(dof,)`.
    """

    def __init__(self, rules: Sequence[JointRule]) -> None:
        self._rules = tuple(rules)
        self.positions: tuple[float, ...] = ()
        self.velocities: tuple[float, ...] = ()

    def reset(self, positions: Sequence[float]) -> None:
        """Set the setpoint to the measured positions, at rest; also where they are outside the limits."""
        self.positions = tuple(positions)
        self.velocities = (0.0,) * len(self._rules)

    def reset_joint(self, index: int, position: float) -> None:
        """Set one joint's setpoint, at rest."""
        self.positions = (*self.positions[:index], position, *self.positions[index + 1 :])
        self.velocities = (*self.velocities[:index], 0.0, *self.velocities[index + 1 :])

    def stopping_point(self) -> tuple[float, ...]:
        """Where every joint comes to rest when it brakes from now on."""
        return tuple(
            [
                min(max(x + v * abs(v) / (2.0 * rule.acceleration_rad_s2), low), high)
                for x, v, rule in zip(self.positions, self.velocities, self._rules, strict=True)
                for low, high in [_reach(rule, x)]
            ]
        )

    def step(self, targets: Sequence[float], target_velocities: Sequence[float], dt_s: float) -> tuple[float, ...]:
        """Move the setpoint towards `targets` (rad), which move with `target_velocities` (rad/s).

        Args:
            targets: where the setpoint should be at the end of this cycle.
            target_velocities: how fast the target moves there.
            dt_s: time since the cycle before; a cycle of no time moves nothing.

        Returns:
            The new setpoint: the old one plus at most the largest step, inside the position limits. A joint that
            was outside them only ever moves inwards.
        """
        dt_s = min(dt_s, MAX_DT_S)
        if dt_s <= 0.0:
            return self.positions
        moved = [
            _advance(rule, now, target, dt_s)
            for rule, now, target in zip(
                self._rules,
                zip(self.positions, self.velocities, strict=True),
                zip(targets, target_velocities, strict=True),
                strict=True,
            )
        ]
        self.positions = tuple([x for x, _ in moved])
        self.velocities = tuple([v for _, v in moved])
        return self.positions


def _advance(rule: JointRule, now: tuple[float, float], aim: tuple[float, float], dt: float) -> tuple[float, float]:
    """One joint's next position and velocity; `now` and `aim` are such pairs, too."""
    (x, v), (target, target_v) = now, aim
    top, change = rule.velocity_rad_s, rule.acceleration_rad_s2 * dt
    low, high = _reach(rule, x)
    if not low <= target <= high:
        target, target_v = min(max(target, low), high), 0.0
    target_v = min(max(target_v, -top), top)

    behind = target - target_v * dt - x  # how far the setpoint trails the target as it was a cycle ago
    wanted = target_v + math.copysign(braking_speed(abs(behind), change, dt), behind)
    wanted = min(max(wanted, -top), top)
    wanted = min(max(wanted, v - change), v + change)
    # The limits come last: never faster towards one than braking in front of it allows, never beyond it.
    wanted = min(wanted, braking_speed(high - x, change, dt))
    wanted = max(wanted, -braking_speed(x - low, change, dt))
    step = min(max(wanted * dt, -rule.step_rad), rule.step_rad)
    reached = min(max(x + step, low), high)
    return reached, (reached - x) / dt


def _reach(rule: JointRule, x: float) -> tuple[float, float]:
    """Position limits, widened to where the joint is."""
    return min(rule.position.lower_rad, x), max(rule.position.upper_rad, x)


def braking_speed(distance: float, change: float, dt: float) -> float:
    """Greatest speed (rad/s) that stops within `distance` (rad) when each cycle of `dt` takes `change` (rad/s) off.

    In `n` cycles at speeds `v`, `v - change`, ... the way is ``(n*v - change*n*(n-1)/2) * dt``. For `n` serves the
    least number that leaves the last speed at most `change`: ``distance <= change*dt * n*(n+1)/2``. (The closed form
    for whole `n` alone would overshoot by up to ``change*dt/8``.)
    """
    cycles = max(1, math.ceil(math.sqrt(0.25 + 2.0 * distance / (change * dt)) - 0.5))
    return distance / (cycles * dt) + 0.5 * change * (cycles - 1)
