"""/arm_controller: plays trajectories on the arm and publishes its joint states. Wires; decides nothing.

The control thread (`loop.ControlLoop`) owns the servo bus; this node's executor only passes messages to it and
publishes what it left behind.
"""

from __future__ import annotations

import gc
import sys
import time
from array import array
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from arm_driver.arm import Arm
from arm_driver.control import Controller, Event, Measured
from arm_driver.loop import ControlLoop, Latency, read_clocks
from arm_driver.messages import read_trajectory
from arm_driver.protection import Severity
from arm_driver.report import Entry, Reporter
from arm_driver.settings import Settings
from arm_driver.trajectory import Rejected, validate
from vla_ros import diagnostics, qos
from vla_ros import main as ros
from vla_ros.params import declare
from vla_ros.stamps import to_msg

SWITCH_INTERVAL_S = 0.0005
"""How long Python lets the executor's thread compute before the control thread may go on; the default of 5 ms would
be half a period."""
DIAGNOSTICS_PERIOD_S = 1.0
REJECTION_LOG_PERIOD_S = 1.0
"""A publisher that is wrong is wrong at every message; the diagnostics count them all."""

_LEVELS = {Severity.OK: diagnostics.OK, Severity.WARN: diagnostics.WARN, Severity.ERROR: diagnostics.ERROR}


class ArmController(Node):
    """See the module."""

    def __init__(self) -> None:
        super().__init__("arm_controller")
        settings = declare(self, Settings)
        calibration = settings.load_calibration()
        limits = settings.limits(calibration.limits())
        self._settings = settings
        self._rules = settings.trajectory_rules(limits)
        self._published: Measured | None = None
        self._joint_state_message = JointState(name=settings.joint_names)
        self._rejected_s = 0.0
        self._guard = self.create_guard_condition(self._on_news)
        self._loop = ControlLoop(
            Arm(settings.servo_setup(), calibration),
            Controller(settings.control_rules(limits)),
            settings.rate_hz,
            self._guard.trigger,
            notify_every=max(1, int(settings.rate_hz / settings.joint_states_hz)),
            realtime_priority=settings.realtime_priority,
            torque_off_on_exit=settings.torque_off_on_exit,
        )
        self._reporter = Reporter(self._loop, settings.health_rule(), settings.joint_names)
        self._joint_states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._latency = self.create_publisher(DiagnosticStatus, "~/latency", qos.LATENCY)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._commands = self.create_subscription(
            JointTrajectory, "~/joint_trajectory", self._on_trajectory, qos.TRAJECTORY
        )
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/resume", self._on_resume)
        self.create_service(Trigger, "~/release", self._on_release)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics)
        gc.freeze()  # what exists now stays: the collector need not go through it, which would take several periods
        self._loop.start()

    def destroy_node(self) -> None:
        """Bring the arm to rest and end the control thread first."""
        self._loop.close()
        self._log_events()
        super().destroy_node()

    def _on_trajectory(self, message: JointTrajectory, info: Mapping[str, Any]) -> None:
        now_ns, offset_ns = read_clocks()
        self._loop.heard(info.get("publication_sequence_number"), self._commands.get_publisher_count())
        content = read_trajectory(message, info, now_ns, offset_ns)
        checked = content if isinstance(content, Rejected) else validate(content, self._rules)
        rejected = checked if isinstance(checked, Rejected) else self._loop.offer(checked)
        if rejected is not None:
            self._reporter.reject(rejected.reason)
            if time.monotonic() - self._rejected_s >= REJECTION_LOG_PERIOD_S:
                self._rejected_s = time.monotonic()
                self.get_logger().warning(f"trajectory refused: {rejected.reason}")

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._loop.stop("stopped by ~/stop; ~/resume clears it")
        self.get_logger().warning("stopped: holding with torque until resume")
        response.success, response.message = True, "the arm brakes and holds, with torque, until resume"
        return response

    def _on_resume(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._loop.resume()
        self.get_logger().info(response.message)
        return response

    def _on_release(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._loop.release()
        self.get_logger().warning(response.message)
        return response

    def _on_news(self) -> None:
        """The control thread has something new."""
        measured = self._loop.measured
        if measured is not None and measured is not self._published:
            self._published = measured
            self._joint_states.publish(self._joint_state(measured))
        while self._loop.latencies:
            latency = self._loop.latencies.popleft()
            self._reporter.add(latency)
            if latency.total_ms is not None:
                self._latency.publish(self._latency_message(latency))
        self._log_events()
        if not self._loop.alive:
            raise RuntimeError("the control thread ended; the servos hold their last goal")

    def _joint_state(self, measured: Measured) -> JointState:
        full_load_nm = self._settings.full_load_nm
        message = self._joint_state_message
        message.header.stamp = to_msg(measured.stamp_ns)
        # rclpy takes arrays as they are; it would check every element of a list.
        message.position = array("d", measured.positions)
        message.velocity = array("d", measured.velocities)
        message.effort = array("d", [load * full_load_nm for load in measured.loads])
        return message

    def _on_diagnostics(self) -> None:
        entries = self._reporter.entries(time.monotonic_ns())
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.array(stamp, map(self._status, entries)))

    def _status(self, entry: Entry) -> DiagnosticStatus:
        level = _LEVELS[entry.severity]
        return diagnostics.status(
            self._status_name(entry.name), level, entry.message, entry.values, self._settings.port
        )

    def _status_name(self, part: str) -> str:
        """All nodes of all namespaces meet on /diagnostics, so a status names its node in full."""
        return f"{self.get_fully_qualified_name().lstrip('/')}: {part}"

    def _latency_message(self, latency: Latency) -> DiagnosticStatus:
        values = {
            "stamp_ns": latency.stamp_ns,
            "total_ms": latency.total_ms,
            "transport_ms": latency.transport_ms,
            "write_ms": latency.write_ms,
        }
        return diagnostics.status(self._status_name("latency"), diagnostics.OK, "", values)

    def _log_events(self) -> None:
        while self._loop.events:
            self._log(self._loop.events.popleft())

    def _log(self, event: Event) -> None:
        # rclpy ties a call site to one severity, so each has its own.
        if event.severity is Severity.ERROR:
            self.get_logger().error(event.text)
        elif event.severity is Severity.WARN:
            self.get_logger().warning(event.text)
        else:
            self.get_logger().info(event.text)


def main() -> None:
    """Entry point of the executable `arm_controller`."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(ros.run(ArmController))


if __name__ == "__main__":
    main()
