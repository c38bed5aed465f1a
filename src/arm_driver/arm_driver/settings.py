"""The node's parameters, and what the pure parts are built from. The defaults are those of an SO-101."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arm_driver import calibration
from arm_driver.arm import ServoSetup
from arm_driver.calibration import GRIPPER_CENTRE_RAD, Calibration
from arm_driver.control import ControlRules
from arm_driver.errors import CalibrationError
from arm_driver.feetech.bus import DEFAULT_BAUD
from arm_driver.limiter import JointRule
from arm_driver.protection import FollowRule, HealthRule, StallRule
from arm_driver.trajectory import Rules
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS, JointLimits
from vla_ros.params import param

MS_PER_S = 1e3


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of /arm_controller. Lists have one entry for each of `joint_names`, in that order."""

    port: str = param("", "serial device (better: its name under /dev/serial/by-id) or socket:// or rfc2217:// address")
    calibration: str = param("", "LeRobot calibration file of this arm")
    write_calibration: bool = param(
        False, "write the calibration file to servos that disagree with it (torque is off meanwhile: support the arm)"
    )
    baud: int = param(DEFAULT_BAUD, "speed of the servo bus", unit="bit/s", minimum=38_400, maximum=1_000_000)
    reply_timeout_ms: float = param(
        20.0, "how long to wait for a servo beyond the time on the wire", unit="ms", minimum=1.0, maximum=500.0
    )
    rate_hz: float = param(100.0, "control cycles (read all, write all)", unit="Hz", minimum=10.0, maximum=500.0)
    joint_states_hz: float = param(50.0, "least rate of joint_states", unit="Hz", minimum=1.0, maximum=500.0)
    realtime_priority: int = param(0, "SCHED_FIFO priority of the control thread; 0: none", minimum=0, maximum=99)
    torque_off_on_exit: bool = param(False, "let the arm go limp when the node ends; a raised arm falls")

    joint_names: tuple[str, ...] = param(SO101_JOINTS, "joints, named as in the calibration file")
    # Limits of so101_new_calib.urdf.
    lower_rad: tuple[float, ...] = param(
        (-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.174533), "least position", unit="rad"
    )
    upper_rad: tuple[float, ...] = param(
        (1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.74533), "greatest position", unit="rad"
    )
    centre_rad: tuple[float, ...] = param(
        (0.0, 0.0, 0.0, 0.0, 0.0, GRIPPER_CENTRE_RAD), "position in the middle of the calibrated range", unit="rad"
    )
    max_velocity_rad_s: tuple[float, ...] = param(
        (4.0,) * 6, "greatest velocity; an STS3215 without load reaches 4.7", unit="rad/s"
    )
    max_acceleration_rad_s2: tuple[float, ...] = param(
        (40.0,) * 6, "greatest acceleration; the servos' own limit is 39", unit="rad/s^2"
    )
    max_step_rad: tuple[float, ...] = param(
        (0.08,) * 6, "greatest change of the setpoint in one cycle, however late it is", unit="rad"
    )
    stall_load: tuple[float, ...] = param(
        (0.8, 0.8, 0.8, 0.8, 0.8, 0.0),
        "share of full load from which a joint may be stalled; 0: never, as for a gripper that holds something",
    )
    stall_error_rad: float = param(0.15, "distance from the setpoint that makes it a stall", unit="rad", minimum=0.001)
    stall_duration_s: float = param(1.0, "for how long both must last", unit="s", minimum=0.05, maximum=60.0)

    follow_error_rad: float = param(
        0.35,
        "distance from the setpoint that no joint keeps, whatever its load; droop and fast motion stay below 0.15",
        unit="rad", minimum=0.01,
    )  # fmt: skip
    follow_duration_s: float = param(0.5, "for how long it must last", unit="s", minimum=0.05, maximum=60.0)

    max_start_error_rad: float = param(
        0.5,
        "how far from the present setpoint a trajectory may begin; one that begins in the future may begin further"
        " away, by what the joint covers until then",
        unit="rad", minimum=0.01,
    )  # fmt: skip
    max_horizon_s: float = param(
        30.0, "how far ahead a trajectory may reach; more means clocks that differ", unit="s", minimum=0.1
    )
    max_stale_s: float = param(
        1.0, "how long ago a trajectory may have ended when it arrives", unit="s", minimum=0.0, maximum=60.0
    )

    p_gain: int = param(16, "proportional gain of the servos; LeRobot's value", minimum=0, maximum=254)
    i_gain: int = param(0, "integral gain of the servos; 0 lets the arm droop a little", minimum=0, maximum=254)
    d_gain: int = param(32, "derivative gain of the servos", minimum=0, maximum=254)
    servo_acceleration: int = param(
        254, "acceleration of the servos; the driver shapes the motion", unit="100 steps/s^2", minimum=0, maximum=254
    )
    gripper_joint: str = param("gripper", "joint that closes on things and is spared; empty: none")
    gripper_torque: float = param(
        0.5, "share of full torque that the gripper may use, so that it does not burn", minimum=0.05, maximum=1.0
    )
    full_load_nm: float = param(
        2.94,
        "torque at full load, for the effort in joint_states; an STS3215 at 12 V (the simulator's stalls at 3.35)",
        unit="N m", minimum=0.0,
    )  # fmt: skip
    warn_temperature_c: float = param(55.0, "servo temperature that is worth a warning", unit="C")
    error_temperature_c: float = param(65.0, "servo temperature that is an error; at 70 it goes limp", unit="C")
    min_voltage_v: float = param(5.5, "supply voltage below which a warning is given", unit="V")
    max_voltage_v: float = param(13.0, "supply voltage above which a warning is given", unit="V")

    def __post_init__(self) -> None:
        for name in (
            "lower_rad", "upper_rad", "centre_rad",
            "max_velocity_rad_s", "max_acceleration_rad_s2", "max_step_rad", "stall_load",
        ):  # fmt: skip
            values = getattr(self, name)
            if len(values) != len(self.joint_names):
                raise ConfigError(
                    f"parameter {name} has {len(values)} values for the {len(self.joint_names)} joints of joint_names"
                )
        if self.gripper_joint and self.gripper_joint not in self.joint_names:
            raise ConfigError(
                f"parameter gripper_joint is {self.gripper_joint!r}; allowed are {', '.join(self.joint_names)} or ''"
            )

    def load_calibration(self) -> Calibration:
        """The calibration file.

        Raises:
            CalibrationError: it cannot be used.
        """
        if not self.calibration:
            raise CalibrationError(f"parameter calibration is empty; {calibration.CURE}")
        centres = dict(zip(self.joint_names, self.centre_rad, strict=True))
        return calibration.load(Path(self.calibration), self.joint_names, centres)

    def servo_setup(self) -> ServoSetup:
        """For `Arm`."""
        return ServoSetup(
            port=self.port,
            baud=self.baud,
            reply_timeout_s=self.reply_timeout_ms / MS_PER_S,
            p_gain=self.p_gain,
            i_gain=self.i_gain,
            d_gain=self.d_gain,
            acceleration=self.servo_acceleration,
            torque_share={self.gripper_joint: self.gripper_torque} if self.gripper_joint else {},
            write_calibration=self.write_calibration,
            keep_goal_rad=self.stall_error_rad,
        )

    def limits(self, reachable: Sequence[JointLimits]) -> tuple[JointLimits, ...]:
        """The configured limits, cut to what the calibrated servos can reach.

        Raises:
            ConfigError: nothing of a joint's range remains.
        """
        cut: list[JointLimits] = []
        for name, low, high, reach in zip(self.joint_names, self.lower_rad, self.upper_rad, reachable, strict=True):
            try:
                cut.append(JointLimits(max(low, reach.lower_rad), min(high, reach.upper_rad)))
            except ConfigError as error:
                raise ConfigError(
                    f"joint {name}: the limits {low}..{high} rad and the calibrated range"
                    f" {reach.lower_rad:.3f}..{reach.upper_rad:.3f} rad do not overlap ({error});"
                    " check lower_rad, upper_rad and centre_rad"
                ) from error
        return tuple(cut)

    def control_rules(self, limits: Sequence[JointLimits]) -> ControlRules:
        """For `Controller`."""
        motion = zip(limits, self.max_velocity_rad_s, self.max_acceleration_rad_s2, self.max_step_rad, strict=True)
        return ControlRules(
            self.joint_names,
            tuple(JointRule(*joint) for joint in motion),
            tuple(StallRule(load, self.stall_error_rad, self.stall_duration_s) for load in self.stall_load),
            FollowRule(self.follow_error_rad, self.follow_duration_s),
            self.max_start_error_rad,
        )

    def trajectory_rules(self, limits: tuple[JointLimits, ...]) -> Rules:
        """For `trajectory.validate`."""
        return Rules(self.joint_names, limits, self.max_horizon_s, self.max_stale_s)

    def health_rule(self) -> HealthRule:
        """For the diagnostics."""
        return HealthRule(self.warn_temperature_c, self.error_temperature_c, self.min_voltage_v, self.max_voltage_v)
