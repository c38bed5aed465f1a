"""The node `/gg_bridge`: Greengrass's wishes in, requests to the policy and reports out.

This file only wires: ROS on one side, `Bridge` on the other.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from gg_bridge import models, nucleus, payload
from gg_bridge.bridge import Bridge, Ports
from gg_bridge.robot import Robot
from gg_bridge.settings import Settings
from gg_bridge.view import View
from vla_core.swap import SwapRequest
from vla_ros import diagnostics, qos
from vla_ros.main import Exit, run
from vla_ros.params import declare
from vla_ros.swap_client import SwapClient

DIAGNOSTICS_PERIOD_S = 1.0
ASK_AGAIN_S = 1.0
"""The policy answers at once; but the first answer is lost where it has not discovered who asks yet."""
EXIT_RESTART = 1
"""The nucleus starts a component that ends so again, with a fresh token."""


class BridgeNode(Node):
    """Composition root of the bridge."""

    def __init__(self) -> None:
        super().__init__("gg_bridge")
        settings = declare(self, Settings)
        self._ending = ""
        self._bridge: Bridge | None = None
        self._shown: View | None = None
        self._showing = threading.Lock()
        self._name = self.get_fully_qualified_name().lstrip("/")
        self._statuses = self.create_publisher(DiagnosticStatus, "~/status", qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._end = self.create_guard_condition(self._on_end)
        wants_nucleus = settings.wants_nucleus(os.environ)
        store = settings.open_store(os.environ)
        self._bridge = Bridge(
            Ports(
                store=store,
                connect=partial(nucleus.connect, settings.nucleus_timeout_s) if wants_nucleus else None,
                fetch=models.fetcher(store),
                preview=models.previewer(store),
                ask=self._ask,
                robot=self._ask_robot,
                show=self._show,
                log=self._log,
                end=self._end_soon,
                payload=payload.from_environment(os.environ),
            ),
            settings.manner(os.environ),
        )
        self._policy = SwapClient(self, settings.policy, on_status=self._bridge.heard)
        self._policy_parameters = self.create_client(GetParameters, f"{settings.policy}/get_parameters")
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES_SUB)
        self.create_service(Trigger, "~/retry", self._on_retry)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics)
        if not wants_nucleus:
            self._log("no nucleus: nobody can change the model through this node; the robot works on", True)
        self._bridge.start()
        self._show(self._bridge.view())

    def destroy_node(self) -> None:
        """Stop the threads before what they publish with goes away."""
        if self._bridge is not None:  # else its settings were wrong
            self._bridge.stop()
        super().destroy_node()

    # The bridge's outlets, in its threads.

    def _ask(self, request: SwapRequest, failed: Callable[[str, bool], None]) -> None:
        if not self._policy.is_ready:
            failed("the policy is not there to be asked; the swap waits for it", True)
            return

        def answered(future: Future) -> None:
            if (error := future.exception()) is not None:
                failed(f"the policy did not answer: {error}", True)
            elif not future.result().successful:
                failed(f"the policy did not take the request: {future.result().reason}", False)

        self._policy.request(request).add_done_callback(answered)

    def _ask_robot(self, limit_s: float) -> Robot | None:
        until_s = time.monotonic() + limit_s
        if not self._policy_parameters.wait_for_service(limit_s):  # it may only not have been discovered yet
            return None
        values = None
        while values is None and self.context.ok() and (left_s := until_s - time.monotonic()) > 0:
            values = self._policy_values(["cameras", "joint_names"], min(left_s, ASK_AGAIN_S))
        if values is None or len(values) != 2:
            return None
        cameras, joint_names = (tuple(value.string_array_value) for value in values)
        return Robot(cameras, joint_names) if joint_names else None

    def _policy_values(self, names: list[str], limit_s: float) -> list[ParameterValue] | None:
        answered = threading.Event()
        future = self._policy_parameters.call_async(GetParameters.Request(names=names))
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(limit_s):
            self._policy_parameters.remove_pending_request(future)
            return None
        return None if future.exception() is not None else list(future.result().values)

    def _log(self, text: str, warn: bool) -> None:
        if warn:
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)

    def _show(self, view: View) -> None:
        with self._showing:  # two threads come here, and what is latched must be what was compared with last
            if view != self._shown and self.context.ok():
                self._shown = view
                self._statuses.publish(self._report(view))

    def _end_soon(self, reason: str) -> None:
        self._ending = reason
        self._end.trigger()

    # In the executor's thread.

    def _on_end(self) -> None:
        raise Exit(f"{self._ending}; ending with {EXIT_RESTART}, to be started again", EXIT_RESTART)

    def _on_joints(self, message: JointState) -> None:
        self._bridge.joints(message.velocity)

    def _on_retry(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._bridge.retry()
        return response

    def _on_diagnostics(self) -> None:
        if self._bridge.defect is not None:
            raise self._bridge.defect
        view = self._bridge.view()
        self._show(view)
        self._diagnostics.publish(diagnostics.array(self.get_clock().now().to_msg(), [self._report(view)]))

    def _report(self, view: View) -> DiagnosticStatus:
        level = diagnostics.OK if view.is_well else diagnostics.WARN
        return diagnostics.status(self._name, level, view.sentence, asdict(view))


def main() -> None:
    """Entry point of the executable `gg_bridge`."""
    sys.exit(run(BridgeNode))


if __name__ == "__main__":
    main()
