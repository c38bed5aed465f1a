"""What is watched while the arm moves: stalled and limp joints, servos, and who commands. Pure; times are arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from arm_driver.trajectory import NS_PER_S
from vla_core.errors import ConfigError

NO_STALL = 0.0
"""A joint with this load threshold is never judged: a gripper that holds something is *meant* to stall."""
LIMP_LOAD = 0.05
"""Share of full load. A gripper that squeezes something far from its goal pushes much harder; below this it is limp."""
ALARM_DURATION_S = 0.2
"""For how long a servo must complain: a supply that sags while all joints start at once does not stop the arm."""


class Lasting:
    """For how long each of several conditions has been true without a pause."""

    def __init__(self, count: int) -> None:
        self._since_ns: list[int | None] = [None] * count

    def reset(self) -> None:
        """Forget what has begun."""
        self._since_ns = [None] * len(self._since_ns)

    def update(self, now_ns: int, conditions: Sequence[bool], durations_s: Sequence[float]) -> tuple[int, ...]:
        """Indices of the conditions that are true and have been for their duration; `now_ns` is monotonic."""
        lasting: list[int] = []
        for index, (true, duration_s) in enumerate(zip(conditions, durations_s, strict=True)):
            since_ns = self._since_ns[index]
            if not true:
                self._since_ns[index] = None
            elif since_ns is None:
                self._since_ns[index] = now_ns
            elif now_ns - since_ns >= duration_s * NS_PER_S:
                lasting.append(index)
        return tuple(lasting)


@dataclass(frozen=True, slots=True)
class StallRule:
    """When a joint counts as stalled: load and distance from the setpoint both too large for too long.

    Attributes:
        load: share of full load, 0..1; 0: this joint is never judged.
        error_rad: distance between setpoint and measured position.
        duration_s: for how long both must last.
    """

    load: float
    error_rad: float
    duration_s: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.load <= 1.0:
            raise ConfigError(f"stall load must be in 0..1 (0: never), not {self.load}")
        if not (self.error_rad > 0.0 and self.duration_s > 0.0):
            raise ConfigError(
                f"stall error and duration must be above 0, not {self.error_rad} rad, {self.duration_s} s"
            )


class StallWatch:
    """Finds stalled joints."""

    def __init__(self, rules: Sequence[StallRule]) -> None:
        self._rules = tuple(rules)
        self._durations_s = tuple(rule.duration_s for rule in self._rules)
        self._lasting = Lasting(len(self._rules))

    def reset(self) -> None:
        """Forget what has begun."""
        self._lasting.reset()

    def update(self, now_ns: int, loads: Sequence[float], errors_rad: Sequence[float]) -> tuple[int, ...]:
        """Indices of the joints that have been stalled for long enough.

        Args:
            now_ns: monotonic.
            loads: share of full load, -1..1, `(dof,)`.
            errors_rad: setpoint minus measured position, `(dof,)`.
        """
        stalled = [
            rule.load != NO_STALL and abs(load) >= rule.load and abs(error) >= rule.error_rad
            for rule, load, error in zip(self._rules, loads, errors_rad, strict=True)
        ]
        return self._lasting.update(now_ns, stalled, self._durations_s)


@dataclass(frozen=True, slots=True)
class FollowRule:
    """When a joint counts as not following its setpoint, whatever its load: a limp one has none.

    Attributes:
        error_rad: distance between setpoint and measured position; well above droop and the lag of fast motion.
        duration_s: for how long it must last.
    """

    error_rad: float
    duration_s: float

    def __post_init__(self) -> None:
        if not (self.error_rad > 0.0 and self.duration_s > 0.0):
            raise ConfigError(
                f"following error and duration must be above 0, not {self.error_rad} rad, {self.duration_s} s"
            )


class FollowWatch:
    """Finds joints that do not follow. A joint that may squeeze is judged only while it does not push.

    Args:
        rule: for all joints.
        squeezing: of each joint, whether it may stand far from its setpoint with a load.
    """

    def __init__(self, rule: FollowRule, squeezing: Sequence[bool]) -> None:
        self._rule = rule
        self._squeezing = tuple(squeezing)
        self._lasting = Lasting(len(self._squeezing))

    def reset(self) -> None:
        """Forget what has begun."""
        self._lasting.reset()

    def update(self, now_ns: int, loads: Sequence[float], errors_rad: Sequence[float]) -> tuple[int, ...]:
        """Indices of the joints that have not followed for long enough; arguments as of `StallWatch.update`."""
        lost = [
            abs(error) > self._rule.error_rad and not (squeezes and abs(load) >= LIMP_LOAD)
            for squeezes, load, error in zip(self._squeezing, loads, errors_rad, strict=True)
        ]
        return self._lasting.update(now_ns, lost, (self._rule.duration_s,) * len(lost))


class AlarmWatch:
    """Finds joints whose servo keeps complaining."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._lasting = Lasting(len(self._names))

    def reset(self) -> None:
        """Forget what has begun."""
        self._lasting.reset()

    def update(self, now_ns: int, alarms: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
        """Indices of the joints with an alarm for long enough; `alarms` by joint name, empty while all is well."""
        complaining = [name in alarms for name in self._names]
        return self._lasting.update(now_ns, complaining, (ALARM_DURATION_S,) * len(complaining))


class Severity(IntEnum):
    """As the levels of `diagnostic_msgs/DiagnosticStatus`."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class HealthRule:
    """Bounds of temperature and supply voltage; a servo protects itself at its own limits, this is the word before."""

    warn_c: float
    error_c: float
    min_v: float
    max_v: float

    def __post_init__(self) -> None:
        if not self.warn_c <= self.error_c:
            raise ConfigError(f"warn_temperature_c {self.warn_c} must not exceed error_temperature_c {self.error_c}")
        if not self.min_v < self.max_v:
            raise ConfigError(f"min_voltage_v {self.min_v} must be below max_voltage_v {self.max_v}")


def health(
    names: Sequence[str], temperatures_c: Sequence[float], voltages_v: Sequence[float], rule: HealthRule
) -> tuple[Severity, str]:
    """The worst finding over all joints, in words."""
    worst, findings = Severity.OK, []
    for name, temperature, voltage in zip(names, temperatures_c, voltages_v, strict=True):
        if temperature >= rule.warn_c:
            level = Severity.ERROR if temperature >= rule.error_c else Severity.WARN
            worst = max(worst, level)
            findings.append(f"{name} has {temperature:.0f} C (warning from {rule.warn_c:g} C); let it rest")
        if not rule.min_v <= voltage <= rule.max_v:
            worst = max(worst, Severity.WARN)
            findings.append(
                f"{name} has {voltage:.1f} V, outside {rule.min_v:g}..{rule.max_v:g} V; check the power supply"
            )
    return worst, "; ".join(findings)


MAX_LOST_MESSAGES = 16
"""Between two messages of one publisher that both arrive; the topic is reliable and keeps ten."""


@dataclass(slots=True)
class _Source:
    """One publisher, as far as its sequence numbers tell."""

    number: int
    last_ns: int


class SourceWatch:
    """Tells whether two publishers command at once, from the sequence number that each publisher counts.

    rclpy (Jazzy) does not tell which publisher a message came from, but passes on its sequence number. Messages
    that continue one count are one source. A source that is heard again after another one was heard, within
    `window_s`, competes with it; a publisher that was restarted or handed over is never heard again.
    """

    def __init__(self, window_s: float) -> None:
        if not (math.isfinite(window_s) and window_s > 0.0):
            raise ConfigError(f"the window for several publishers must be above 0 s, not {window_s}")
        self._window_ns = int(window_s * NS_PER_S)
        self._sources: list[_Source] = []
        self._latest: _Source | None = None
        self._contested_ns: int | None = None

    def heard(self, now_ns: int, number: int | None, publishers: int) -> None:
        """Note one message.

        Args:
            now_ns: monotonic time of arrival.
            number: the publisher's sequence number; None where the middleware does not tell: then the mere presence
                of several publishers counts.
            publishers: how many are on the topic now.
        """
        if publishers <= 1:
            self._sources.clear()
            self._latest = None
            self._contested_ns = None
        if number is None:
            if publishers > 1:
                self._contested_ns = now_ns
            return
        self._sources = [source for source in self._sources if now_ns - source.last_ns <= self._window_ns]
        source = self._continued(number)
        if source is None:
            source = _Source(number, now_ns)
            self._sources.append(source)
        elif source is not self._latest:
            self._contested_ns = now_ns
        source.number, source.last_ns = number, now_ns
        self._latest = source

    def contested(self, now_ns: int) -> bool:
        """Whether several publishers commanded within the window before now."""
        return self._contested_ns is not None and now_ns - self._contested_ns <= self._window_ns

    def _continued(self, number: int) -> _Source | None:
        """The source whose count this number continues most closely; of equals the one unheard for longest."""
        near = [source for source in self._sources if 0 < number - source.number <= MAX_LOST_MESSAGES]
        return min(near, key=lambda source: (number - source.number, source.last_ns), default=None)
