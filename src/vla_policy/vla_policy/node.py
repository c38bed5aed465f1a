"""The node `/policy`: pictures, joint states and a prompt in, joint trajectories out.

This file only wires: ROS on one side, `Engine` and its `ControlLoop` on the other.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from vla_core.chunk import Plan
from vla_core.errors import EvergreenError
from vla_policy import messages
from vla_policy.clock import SystemClock
from vla_policy.engine import Engine
from vla_policy.inbox import Inbox
from vla_policy.model import ModelSpec
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.settings import ACTIVE_MODEL, CHANGEABLE, Settings, objection
from vla_policy.stages import ChunkTiming, Meter, flatten, verdict
from vla_policy.status import ACTIVE, HOLDING, ChunkCounts, PolicyStatus
from vla_ros import diagnostics, qos
from vla_ros.lifecycle import BackgroundLifecycleNode, Outcome, reported
from vla_ros.main import run
from vla_ros.params import declare

DIAGNOSTICS_PERIOD_S = 1.0
SWITCH_INTERVAL_S = 0.0005
"""The loop must not wait 5 ms (Python's default) for the interpreter while the executor unpacks a picture."""
LAST_WORD_S = 0.5
"""How long a driver may take to receive the brake when the process ends."""
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(BackgroundLifecycleNode):
    """Composition root of the policy; also the control loop's outlet into ROS."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._settings: Settings = declare(self, Settings, read_only=False)
        self.declare_parameter(ACTIVE_MODEL, "", ParameterDescriptor(description="what runs: name@version (read-only)"))
        self.add_on_set_parameters_callback(self._judge_parameters)
        self._clocks, self._inbox, self._meter = SystemClock(), Inbox(), Meter()
        self._engine = Engine(
            self._inbox, self, self._clocks, log=lambda line: self.get_logger().info(f"policy_server: {line}")
        )
        self._status, self._counts = PolicyStatus(), ChunkCounts()
        self._report = partial(messages.report, self.get_fully_qualified_name())
        self._saying = threading.Lock()
        self._inputs: list[Any] = []
        self._defect: Exception | None = None
        self._wanted, self._stopping, self._try_again = self._settings.autostart, False, False
        self._trajectories = self.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)
        self._statuses = self.create_publisher(DiagnosticStatus, "~/status", qos.STATUS)
        self._latencies = self.create_publisher(DiagnosticStatus, "~/latency", qos.LATENCY)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_subscription(String, "prompt", self._on_prompt, qos.PROMPT)
        self.create_subscription(DiagnosticStatus, "arm_controller/latency", self._on_driver_latency, qos.LATENCY)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics)
        self.create_background_trigger("~/start", self._bring_up, at_once=partial(self._want, True))
        self.create_background_trigger("~/stop", self._bring_down, at_once=partial(self._want, False))
        self._say()
        if self._wanted:
            self.in_background(self._bring_up)

    def destroy_node(self) -> None:
        """Bring the arm to rest, and end the server."""
        self._engine.cancel()
        self.in_background(self._engine.release).result()
        self._trajectories.wait_for_all_acked(Duration(seconds=LAST_WORD_S))
        super().destroy_node()

    # Transitions, in their thread.

    @reported
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Start or find the server, and see whether model and robot fit."""
        asked = {name: self.get_parameter(name).value for name in CHANGEABLE}
        self._settings = settings = replace(self._settings, **asked)
        self._say(state="configuring", model=settings.model, server=settings.server)
        try:
            spec = self._engine.load(settings)
        except EvergreenError as error:
            self._try_again = settings.autostart and self._wanted and isinstance(error, ServerUnavailableError)
            if str(error) != self._status.reason:
                self.get_logger().error(str(error))
            self._say(state="unconfigured", reason=str(error))
            return FAILED
        self._inbox.put_prompt(None)  # an override does not outlive its model
        self._subscribe(spec)
        self._say(state="inactive", active_model=spec.label, prompt=settings.prompt or spec.prompt, reason="")
        self.get_logger().info(f"{spec.label} is ready, server {settings.server}")
        return OK

    @reported
    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Drive."""
        self._say(state=HOLDING, reason="waiting for the first chunk")
        self._engine.start()
        return OK

    @reported
    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the arm to rest; model and server stay loaded."""
        self._wanted = self._wanted and self._stopping
        self._engine.stop()
        self._say(state="inactive", reason="")
        return OK

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of model and server."""
        return self._release("unconfigured")

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """As cleaning up, for good."""
        return self._release("finalized")

    on_error = on_cleanup

    @reported
    def _release(self, state: str) -> TransitionCallbackReturn:
        self._wanted = False
        self._engine.release()
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._say(state=state, active_model="", prompt="")
        return OK

    def _want(self, wanted: bool) -> None:
        self._wanted = wanted

    def _bring_up(self) -> Outcome:
        """As long as it is wanted: a stop may come while a model loads."""
        if self._wanted and self._status.state == "unconfigured":
            self.trigger_configure()
        if self._wanted and self._status.state == "inactive":
            self.trigger_activate()
        driving = self._status.state in ACTIVE
        return driving, self._status.sentence if self._wanted or driving else "stopped before it drove"

    def _bring_down(self) -> Outcome:
        if self._status.state in ACTIVE:
            self._stopping = True  # a start that has come meanwhile stays wanted
            self.trigger_deactivate()
            self._stopping = False
        return True, self._status.sentence

    # Inputs, in the executor's thread.

    def _subscribe(self, spec: ModelSpec) -> None:
        self._inputs = [self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES_SUB)]
        for name in spec.cameras:
            topic, callback = f"camera/{name}/image_raw/compressed", partial(self._on_frame, name)
            self._inputs.append(self.create_subscription(CompressedImage, topic, callback, qos.CAMERA_SUB))

    def _on_frame(self, camera: str, message: CompressedImage, info: dict[str, int]) -> None:
        self._inbox.put_frame(camera, messages.to_frame(message, info, self._clocks.now()))

    def _on_joints(self, message: JointState) -> None:
        self._inbox.put_joints(messages.to_joints(message, self._clocks.now()))

    def _on_prompt(self, message: String) -> None:
        self._inbox.put_prompt(message.data)
        self._engine.poke()
        self._say(prompt=message.data)

    def _on_driver_latency(self, message: DiagnosticStatus) -> None:
        if (stamp_ns := self._meter.add_report(diagnostics.values(message))) is not None:
            self._inbox.put_report(stamp_ns)

    def _judge_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        reasons = [objection(parameter.name, parameter.value, self._status.active_model) for parameter in parameters]
        return SetParametersResult(successful=not any(reasons), reason="; ".join(filter(None, reasons)))

    # The control loop's outlet, in its thread.

    def command(self, plan: Plan, stamp_ns: int) -> None:
        """Publish a plan; its points' times count from the stamp in the header."""
        if self.context.ok() and self._engine.spec is not None:
            self._trajectories.publish(messages.from_plan(plan, stamp_ns, self._engine.spec.joint_names))

    def chunk_done(self, timing: ChunkTiming, gap_s: float) -> None:
        """Count a chunk and publish its stages."""
        self._meter.add(timing)
        self._counts = self._counts.with_chunk(gap_s)
        if self.context.ok():
            self._latencies.publish(self._report("latency", True, "", timing.values()))

    def driving(self, spec: ModelSpec) -> None:
        """Say that it drives."""
        self._say(state="driving", active_model=spec.label)
        self.get_logger().info(f"driving {spec.label}")

    def holding(self, reason: str) -> None:
        """Say that it holds, and why."""
        self._counts = self._counts.with_hold()
        self._say(state=HOLDING, reason=reason)
        self.get_logger().warning(f"holding: {reason}")

    def crashed(self, error: Exception) -> None:
        """Keep the defect for the executor, which ends the process with it."""
        self._defect = error

    # Reports.

    def _say(self, **changes: str) -> None:
        """Change the status and publish it."""
        with self._saying:
            self._status = status = replace(self._status, **changes)
            if not self.context.ok():
                return
            if self.get_parameter(ACTIVE_MODEL).value != status.active_model:
                self.set_parameters([Parameter(ACTIVE_MODEL, value=status.active_model)])
            self._statuses.publish(self._report("", status.is_well, status.sentence, asdict(status)))

    def _on_diagnostics(self) -> None:
        if self._defect is not None:
            raise self._defect
        due, self._try_again = self._try_again, False
        if due and self._wanted:
            self.in_background(self._bring_up)
        summaries, status = self._meter.summaries(), self._status
        latency = self._report("latency", *verdict(summaries), flatten(summaries))
        chunks = self._report("chunks", status.is_well, status.sentence, asdict(self._counts))
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().to_msg(), [latency, chunks]))


def main() -> None:
    """Entry point of the executable `policy`."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
