"""The control loop's decisions: which setpoint goes to the servos now, and why. Pure: no clock, no bus, no ROS.

    CONNECTING --connected--> HOLD --offer--> ACTIVE --end of the trajectory--> HOLD
    STOPPED and FAULT are latched: `resume` clears them.  Every way out of ACTIVE ends in a held position.
    HOLD, STOPPED or FAULT --released--> LIMP, for a hand to lead; `resume` ends it where the arm then stands.

Times are monotonic ns, positions rad in joint order. Not thread-safe: whoever owns it serialises the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from arm_driver.limiter import JointRule, Limiter
from arm_driver.protection import (
    NO_STALL,
    AlarmWatch,
    FollowRule,
    FollowWatch,
    Severity,
    SourceWatch,
    StallRule,
    StallWatch,
)
from arm_driver.trajectory import NS_PER_S, Rejected, Trajectory, joined, sample
from vla_core.errors import ConfigError

CLOCK_STEP_NS = 50_000_000
"""System against monotonic time. Slewing (at most 0.5 ms a second) stays far below, a step by NTP lies above; at
1 rad/s it would displace a trajectory by 50 mrad."""
REST_RAD_S = 1e-3
"""Slower than this a setpoint is at rest: less than two ticks a second."""
SOURCE_WINDOW_S = 1.0
"""Two policies that both send a chunk at least once a second are noticed."""


class State(StrEnum):
    """What the loop does."""

    CONNECTING = "connecting"
    HOLD = "hold"
    ACTIVE = "active"
    STOPPED = "stopped"
    FAULT = "fault"
    LIMP = "limp"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one read of all servos says, in joint order: rad, rad/s, share of full load (-1..1), V, degrees C.

    `stamp_ns` is the system time of the reading. `alarms`: joint name to what its servo complains about.
    """

    stamp_ns: int
    positions: tuple[float, ...]
    velocities: tuple[float, ...]
    loads: tuple[float, ...]
    voltages_v: tuple[float, ...]
    temperatures_c: tuple[float, ...]
    alarms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ControlRules:
    """Names and limits of all joints, in one order.

    Attributes:
        names, joints, stall: one entry for each joint.
        follow: for all joints.
        max_start_error_rad: how far from the setpoint a trajectory may begin.
    """

    names: tuple[str, ...]
    joints: tuple[JointRule, ...]
    stall: tuple[StallRule, ...]
    follow: FollowRule
    max_start_error_rad: float

    def __post_init__(self) -> None:
        if not self.max_start_error_rad > 0.0:
            raise ConfigError(f"max_start_error_rad must be above 0, not {self.max_start_error_rad}")
        if not self.names or not len(self.names) == len(self.joints) == len(self.stall):
            raise ConfigError(
                f"limits of {len(self.joints)} and stall rules of {len(self.stall)} joints for {len(self.names)} names"
            )


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line in the log."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """What to do now.

    Attributes:
        setpoint: goal of the servos; None while not connected, and while limp.
        started: the trajectory from which this setpoint comes, if it is the first one from it.
        events: in order.
    """

    setpoint: tuple[float, ...] | None
    started: Trajectory | None
    events: tuple[Event, ...]


class Controller:
    """See the module. `reason` says in words why the state is what it is."""

    def __init__(self, rules: ControlRules) -> None:
        self.rules = rules
        self.reason = "not connected yet"
        self._limiter = Limiter(rules.joints)
        self._stall = StallWatch(rules.stall)
        self._follow = FollowWatch(rules.follow, [rule.load == NO_STALL for rule in rules.stall])
        self._alarms = AlarmWatch(rules.names)
        self._alarmed = False
        self._sources = SourceWatch(SOURCE_WINDOW_S)
        self._connected = False
        self._stopped = False
        self._fault = False  # latched: a joint
        self._refused = False  # latched: the servos do not fit
        self._limp = False  # latched: released on request
        self._trajectory: Trajectory | None = None
        self._fresh = False
        self._target: tuple[float, ...] = ()
        self._before_ns: int | None = None
        self._clock_offset_ns: int | None = None
        self._events: list[Event] = []

    @property
    def state(self) -> State:
        """The latched states first."""
        if self._limp:
            return State.LIMP
        if self._stopped:
            return State.STOPPED
        if self._fault or self._refused:
            return State.FAULT
        if not self._connected:
            return State.CONNECTING
        return State.ACTIVE if self._trajectory is not None else State.HOLD

    @property
    def wants_connection(self) -> bool:
        """Whether to try to reach the servos: not connected, and not refused for good."""
        return not self._connected and not self._refused

    @property
    def at_rest(self) -> bool:
        """Whether the setpoint does not move (also while not connected)."""
        return all(abs(speed) < REST_RAD_S for speed in self._limiter.velocities)

    @property
    def setpoint(self) -> tuple[float, ...]:
        """Last setpoint; empty before the first connection."""
        return self._limiter.positions

    def connected(self, now_ns: int, setpoint: Sequence[float]) -> None:
        """The servos answer and hold `setpoint`; it starts there, and what was played before is gone."""
        self._limiter.reset(setpoint)
        self._reset_watches()
        self._connected = True
        self._limp = False
        self._before_ns = now_ns
        self._trajectory = None
        self._target = self._limiter.positions
        if not (self._stopped or self._fault):
            self.reason = "waiting for a trajectory"

    def disconnected(self, reason: str, *, final: bool = False) -> None:
        """The servos cannot be reached; `final` makes that a fault that only `resume` retries."""
        if self._limp and self._stopped:
            self.reason = "stopped while it was limp"
        self._connected = self._limp = False
        self._trajectory = None
        self._refused = self._refused or final
        if self._stopped:
            return
        if not self._fault:
            self.reason = reason
        elif final:
            self.reason = f"{self.reason}; moreover {reason}"

    def revived(self, standing: Mapping[int, float]) -> None:
        """These joints (by index) were limp and shall hold where they stand (rad); what was played is gone."""
        if not standing:
            return
        for index, position in standing.items():
            self._limiter.reset_joint(index, position)
        if not self._fault:
            self._hold("a joint had lost its torque; waiting for a trajectory")
        self._brake()

    def stop(self, reason: str) -> None:
        """Brake within the limits, hold, and refuse trajectories until `resume`."""
        self._stopped = True
        if not self._limp:
            self.reason = reason
        self._brake()

    def release(self) -> Rejected | None:
        """Let the arm go limp, so that a hand can lead it, until `resume`; None when it may.

        Refused while it moves: whoever commands it does not know of the hand.
        """
        if self.state not in (State.HOLD, State.STOPPED, State.FAULT, State.LIMP) or not self._connected:
            return Rejected(f"not released: the arm is in state {self.state} ({self.reason}); stop it first")
        if not self.at_rest:
            return Rejected("not released: the arm still brakes; ask again")
        self._limp = True
        self.reason = "released: limp until resume"
        return None

    def resume(self) -> tuple[bool, str]:
        """Clear a latched stop or fault; the arm goes on holding until the next trajectory."""
        before = self.state
        self._stopped = self._fault = self._refused = self._limp = False
        self._reset_watches()
        if before not in (State.STOPPED, State.FAULT, State.LIMP):
            return True, f"nothing to resume: the arm is in state {before}"
        self.reason = "resumed; waiting for a trajectory" if self._connected else "resumed; connecting"
        return True, self.reason

    def heard(self, now_ns: int, sequence: int | None, publishers: int) -> None:
        """Note that a message came in, valid or not; see `SourceWatch.heard`."""
        was = self._sources.contested(now_ns)
        self._sources.heard(now_ns, sequence, publishers)
        if self._sources.contested(now_ns) and not was:
            text = f"{publishers} publishers command at once; holding until only one does"
            self._hold(text)
            self._events.append(Event(Severity.ERROR, text))

    def offer(self, now_ns: int, trajectory: Trajectory) -> Rejected | None:
        """Replace what is being played; None when accepted."""
        if self.state not in (State.HOLD, State.ACTIVE):
            return Rejected(f"the arm is in state {self.state}: {self.reason}")
        if self._sources.contested(now_ns):
            return Rejected("several publishers command at once; stop all but one")
        if self._clock_offset_ns is not None:
            step_ns = trajectory.clock_offset_ns - self._clock_offset_ns
            if abs(step_ns) > CLOCK_STEP_NS:
                return Rejected(f"the system clock stepped by {step_ns / NS_PER_S:+.3f} s while it arrived")
        if refused := self._start_fault(now_ns, trajectory):
            return refused
        self._trajectory = joined(trajectory, now_ns, self._limiter.positions)
        self._fresh = True
        self.reason = "playing a trajectory"
        return None

    def step(self, now_ns: int, clock_offset_ns: int, measured: Measured | None) -> Cycle:
        """One cycle.

        Args:
            now_ns: monotonic.
            clock_offset_ns: system minus monotonic time.
            measured: this cycle's reading; None when it failed.
        """
        self._watch_clock(clock_offset_ns)
        if not self._connected:
            return Cycle(None, None, self._take_events())
        if measured is not None:
            self._watch_joints(now_ns, measured)
        if self._limp:
            self._before_ns = now_ns
            return Cycle(None, None, self._take_events())
        started = self._trajectory if self._fresh else None
        self._fresh = False
        target, speed = self._aim(now_ns)
        dt_s = 0.0 if self._before_ns is None else (now_ns - self._before_ns) / NS_PER_S
        self._before_ns = now_ns
        setpoint = self._limiter.step(target, speed, dt_s)
        return Cycle(setpoint, started, self._take_events())

    def _aim(self, now_ns: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Target and its velocity; a trajectory that has ended becomes a hold of its last point."""
        trajectory = self._trajectory
        if trajectory is None:
            return self._target, (0.0,) * len(self._target)
        if now_ns >= trajectory.end_ns:
            self._trajectory = None
            self._target = trajectory.points[-1]
            self.reason = "the trajectory ended"
        now = sample(trajectory, now_ns)
        return now.positions, now.velocities

    def _watch_clock(self, clock_offset_ns: int) -> None:
        before, self._clock_offset_ns = self._clock_offset_ns, clock_offset_ns
        if before is None or abs(clock_offset_ns - before) <= CLOCK_STEP_NS:
            return
        step = f"the system clock stepped by {(clock_offset_ns - before) / NS_PER_S:+.3f} s"
        self._events.append(Event(Severity.WARN, step))
        if self._trajectory is not None:
            self._hold(f"{step}; the trajectory's times mean nothing any more")

    def _start_fault(self, now_ns: int, trajectory: Trajectory) -> Rejected | None:
        """A trajectory that begins elsewhere was meant for another moment; the limiter would chase it at full speed.

        One that begins in the future may be further away, by what the joint covers until then at its greatest speed.
        """
        lead_s = max(0, trajectory.times_ns[0] - now_ns) / NS_PER_S
        due = sample(trajectory, now_ns).positions
        for name, rule, wanted, setpoint in zip(
            self.rules.names, self.rules.joints, due, self._limiter.positions, strict=True
        ):
            goal = min(max(wanted, rule.position.lower_rad), rule.position.upper_rad)
            allowed = self.rules.max_start_error_rad + rule.velocity_rad_s * lead_s
            if abs(goal - setpoint) > allowed:
                return Rejected(
                    f"{name} would begin at {goal:+.2f} rad, due in {lead_s:.3f} s, but its setpoint is"
                    f" {setpoint:+.2f} rad; allowed is a distance of {allowed:.2f} rad (max_start_error_rad"
                    f" {self.rules.max_start_error_rad:g}). Begin where the arm is, or give the first point more time"
                )
        return None

    def _watch_joints(self, now_ns: int, measured: Measured) -> None:
        """Latch a fault for joints that are stalled, do not follow, or whose servo complains."""
        if self._limp:  # nothing is to be followed; the setpoint goes along with the hand
            self._limiter.reset(measured.positions)
            self._target = self._limiter.positions
            return
        setpoint, actual = self._limiter.positions, measured.positions
        errors = [goal - position for goal, position in zip(setpoint, actual, strict=True)]

        def details(joints: Sequence[int]) -> str:
            return ", ".join(
                f"{self.rules.names[i]} (load {measured.loads[i]:+.0%}, {errors[i]:+.2f} rad from its goal)"
                for i in joints
            )

        if stalled := self._stall.update(now_ns, measured.loads, errors):
            self._fail(f"stalled: {details(stalled)}; holding where it is. Free the arm, then call resume")
        if lost := self._follow.update(now_ns, measured.loads, errors):
            self._fail(
                f"does not follow: {details(lost)}; holding where it is. Without load: has the servo lost its torque or"
                " its supply? With load: free the arm. Then call resume"
            )
        for index in {*stalled, *lost}:
            self._limiter.reset_joint(index, actual[index])
        if stalled or lost:
            self._brake()
        complaining = self._alarms.update(now_ns, measured.alarms)
        if complaining and not self._alarmed:
            names = [self.rules.names[index] for index in complaining]
            text = "; ".join(f"{name}: {', '.join(measured.alarms[name])}" for name in names)
            self._fail(f"servo alarm: {text}; holding where it is. Let it rest, check its supply, then call resume")
            self._brake()
        self._alarmed = bool(complaining)

    def _fail(self, text: str) -> None:
        """Latch a fault. The first reason stands: what follows is often its consequence, and is in the log."""
        if not (self._fault or self._stopped):
            self.reason = text
        self._fault = True
        self._events.append(Event(Severity.ERROR, text))

    def _reset_watches(self) -> None:
        self._stall.reset()
        self._follow.reset()
        self._alarms.reset()
        self._alarmed = False

    def _hold(self, reason: str) -> None:
        if not self._stopped:
            self.reason = reason
        self._brake()

    def _brake(self) -> None:
        self._trajectory = None
        if self._limiter.positions:
            self._target = self._limiter.stopping_point()

    def _take_events(self) -> tuple[Event, ...]:
        events, self._events = tuple(self._events), []
        return events
