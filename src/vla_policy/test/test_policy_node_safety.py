"""The node `/policy` as a process: stopping means stopping, and what it says where."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import test_policy_node as base
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from policy_support import WAIT_S
from std_srvs.srv import Trigger
from test_policy_node import Robot, StartPolicy, healthy_robot, robot, seconds, start_policy  # noqa: F401  fixtures

from vla_ros import diagnostics, qos
from vla_ros.stamps import to_ns

pytestmark = pytest.mark.ros

BLEND_S = 0.15


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """Nothing meets the nodes of a test run beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DOMAIN", "51")
        yield


def wait_reports(robot: Robot, count: int, policy: base.PolicyProcess) -> None:  # noqa: F811
    """Wait for some of the node's reports, one of which comes with every look at whether to try again."""
    fresh: list[DiagnosticArray] = []  # those of a subscription that already waited may be old
    subscription = robot.node.create_subscription(DiagnosticArray, "/diagnostics", fresh.append, qos.DIAGNOSTICS)
    robot.wait(f"{count} reports", lambda: len(fresh) >= count, policy)
    robot.node.destroy_subscription(subscription)


class TestStopping:
    def test_ends_the_retries(self, robot: Robot, model: Path, run_folder: Path, start_policy, start_server):  # noqa: F811
        """A stop was acknowledged, but a second later the node tried again, and drove once the server was there."""
        policy = start_policy(server=f"unix:{run_folder}/later", autostart=True)
        robot.wait("a reason", lambda: "cannot be reached" in robot.values.get("reason", ""), policy)
        assert robot.trigger("policy/stop").success
        start_server(f"unix:{run_folder}/later", "--model", str(model)).wait_healthy()
        wait_reports(robot, 3, policy)
        assert robot.values["state"] == "unconfigured"
        assert robot.trajectories == []
        assert robot.trigger("policy/start").success
        robot.wait_state("driving", policy)

    def test_while_the_model_loads(self, robot: Robot, model: Path, start_policy: StartPolicy):  # noqa: F811
        """The stop waited for its turn behind the start, which moved the arm first."""
        policy = start_policy(model)
        robot.wait_state("unconfigured", policy)
        client = robot.node.create_client(Trigger, "policy/start")
        robot.wait("the service", client.service_is_ready, policy)
        started = client.call_async(Trigger.Request())
        robot.wait_state("configuring", policy)
        assert robot.trigger("policy/stop").success
        robot.wait("the start's answer", started.done, policy)
        assert not started.result().success
        assert started.result().message == "stopped before it drove"
        assert robot.values["state"] == "inactive"
        assert robot.trajectories == []
        assert robot.trigger("policy/start").success
        robot.wait_state("driving", policy)
        assert robot.transition(Transition.TRANSITION_DEACTIVATE)
        wait_reports(robot, 2, policy)
        assert robot.lifecycle() == "inactive"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_by_a_signal_brakes(self, robot: Robot, model: Path, start_policy: StartPolicy, number: signal.Signals):  # noqa: F811
        """The ROS context ended with the signal, before the brake was published: the arm ran on to its plan's end."""
        policy = start_policy(model, autostart=True)
        robot.wait("two chunks", lambda: len(robot.trajectories) >= 2, policy)
        assert policy.stop(number) == 0, policy.text
        robot.wait("the brake", lambda: _lasts_s(robot.trajectories[-1]) == pytest.approx(BLEND_S, abs=1e-3))
        driving, brake = robot.trajectories[-2:]
        begins_s = (to_ns(brake.header.stamp) - to_ns(driving.header.stamp)) * 1e-9
        assert begins_s < seconds(driving.points[-1].time_from_start)
        times = [seconds(point.time_from_start) for point in driving.points]
        held = np.interp(begins_s, times, [point.positions[0] for point in driving.points])
        assert brake.points[0].positions[0] == pytest.approx(held, abs=2e-3)


def _lasts_s(message: object) -> float:
    return seconds(message.points[-1].time_from_start) - seconds(message.points[0].time_from_start)


def test_a_driver_that_refuses_is_noticed(
    robot: Robot,  # noqa: F811
    model: Path,
    start_policy: StartPolicy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    """The node said `driving` for as long as the driver took up nothing."""
    policy = start_policy(model, autostart=True)
    robot.wait_state("driving", policy)
    with monkeypatch.context() as refusing:
        refusing.setattr(robot, "_driver", SimpleNamespace(publish=lambda _: None))
        robot.wait("a hold", lambda: "the arm does not follow" in robot.values["reason"], policy)
        assert robot.values["state"] == "holding"
    robot.wait_state("driving", policy)


def test_names_follow_the_namespace(robot: Robot):  # noqa: F811
    """Two arms' policies called themselves the same, on topics where diagnostic_aggregator does not listen."""
    arrays: list[DiagnosticArray] = []
    subscription = robot.node.create_subscription(DiagnosticArray, "/diagnostics", arrays.append, qos.DIAGNOSTICS)
    environment = os.environ | {"ROS_DOMAIN_ID": base.DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    command = [sys.executable, "-m", "vla_policy.node", "--ros-args", "-r", "__ns:=/left"]
    process = subprocess.Popen(command, env=environment)
    try:
        robot.wait("diagnostics", lambda: arrays)
    finally:
        process.terminate()
        assert process.wait(WAIT_S) == 0
        robot.node.destroy_subscription(subscription)
    assert {status.name for status in arrays[-1].status} == {"left/policy: latency", "left/policy: chunks"}
    assert all(status.level == diagnostics.OK for status in arrays[-1].status)
