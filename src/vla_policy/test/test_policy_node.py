"""The node `/policy` as a process: camera and arm in the test's process, a real policy server, a real ONNX model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from policy_support import HORIZON, POLL_S, WAIT_S, Server, write_model

from vla_core.image import encode_jpeg
from vla_core.joints import SO101_JOINTS

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import GetParameters, SetParametersAtomically  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CompressedImage, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from vla_ros import diagnostics, qos  # noqa: E402
from vla_ros.stamps import to_msg, to_ns  # noqa: E402

pytestmark = pytest.mark.ros

DOMAIN = "45"
FRAME_PERIOD_S, STATE_PERIOD_S = 1 / 15, 1 / 50
SERVICES_WAIT_S = 30.0


class Robot:
    """A camera, an arm that goes where it is told, and everything that a user would look at."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=int(DOMAIN))
        self.node = rclpy.create_node("robot", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.jpeg = encode_jpeg(np.full((240, 320, 3), 100, np.uint8))
        self.positions = dict.fromkeys(SO101_JOINTS, 0.25)
        self.filming = self.measuring = True
        self.delay_ns = 0
        self.since_ns = 0
        self.trajectories: list[JointTrajectory] = []
        self.latencies: list[DiagnosticStatus] = []
        self.status: DiagnosticStatus | None = None
        self.diagnostics: dict[str, DiagnosticStatus] = {}
        node = self.node
        self._cameras: dict[str, Any] = {}
        self.film_too("front")
        self._states = node.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._driver = node.create_publisher(DiagnosticStatus, "arm_controller/latency", qos.LATENCY)
        self.prompts = node.create_publisher(String, "prompt", qos.PROMPT)
        node.create_subscription(JointTrajectory, "arm_controller/joint_trajectory", self._move, qos.TRAJECTORY)
        node.create_subscription(DiagnosticStatus, "policy/latency", self.latencies.append, qos.LATENCY)
        node.create_subscription(DiagnosticStatus, "policy/status", self._note, qos.STATUS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, qos.DIAGNOSTICS)
        node.create_timer(FRAME_PERIOD_S, self._film)
        node.create_timer(STATE_PERIOD_S, self._measure)

    def film_too(self, camera: str) -> None:
        if camera not in self._cameras:
            topic = f"camera/{camera}/image_raw/compressed"
            self._cameras[camera] = self.node.create_publisher(CompressedImage, topic, qos.CAMERA_PUB)

    def _film(self) -> None:
        if self.filming:
            message = CompressedImage(format="jpeg", data=self.jpeg)
            message.header.stamp = to_msg(time.time_ns() - self.delay_ns)
            for camera in self._cameras.values():
                camera.publish(message)

    def _measure(self) -> None:
        if self.measuring:
            message = JointState(name=list(self.positions), position=list(self.positions.values()))
            message.header.stamp = to_msg(time.time_ns())
            self._states.publish(message)

    def _move(self, message: JointTrajectory) -> None:
        if to_ns(message.header.stamp) < self.since_ns:
            return  # the last word of another test's policy
        self.trajectories.append(message)
        total_ms = (time.time_ns() - to_ns(message.header.stamp)) / 1e6 + 1.0
        values = {"stamp_ns": to_ns(message.header.stamp), "total_ms": total_ms, "write_ms": 1.0}
        self._driver.publish(diagnostics.status("arm_controller: latency", diagnostics.OK, "", values))

    def _note(self, message: DiagnosticStatus) -> None:
        self.status = message

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.diagnostics.update({status.name: status for status in message.status})

    @property
    def values(self) -> dict[str, str]:
        return {} if self.status is None else diagnostics.values(self.status)

    def wait(self, what: str, true: Callable[[], object], policy: PolicyProcess | None = None) -> None:
        deadline = time.monotonic() + WAIT_S
        while not true():
            self._executor.spin_once(timeout_sec=POLL_S)
            assert time.monotonic() < deadline, (
                f"waited {WAIT_S} s for {what}; status {self.values}\n{policy and policy.text}"
            )
            assert policy is None or policy.process.poll() is None, policy.text

    def wait_state(self, state: str, policy: PolicyProcess | None = None) -> None:
        self.wait(f"state {state}", lambda: self.values.get("state") == state, policy)

    def call(self, kind: type, name: str, request: object) -> object:
        client = self.node.create_client(kind, name)
        self.wait(f"service {name}", client.service_is_ready)
        future = client.call_async(request)
        self.wait(f"answer of {name}", future.done)
        self.node.destroy_client(client)
        return future.result()

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name, Trigger.Request())

    def transition(self, number: int) -> bool:
        return self.call(
            ChangeState, "policy/change_state", ChangeState.Request(transition=Transition(id=number))
        ).success

    def lifecycle(self) -> str:
        return self.call(GetState, "policy/get_state", GetState.Request()).current_state.label

    def set(self, **values: str) -> object:
        parameters = [
            Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value))
            for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call(SetParametersAtomically, "policy/set_parameters_atomically", request).result

    def get(self, name: str) -> str:
        return (
            self.call(GetParameters, "policy/get_parameters", GetParameters.Request(names=[name]))
            .values[0]
            .string_value
        )

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class PolicyProcess:
    """The node under test."""

    def __init__(self, model: Path | str, *words: str, **parameters: object) -> None:
        environment = os.environ | {"ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        given = ({"model": str(model)} if model else {}) | parameters
        arguments = [f"{name}:={value}" for name, value in given.items()]
        command = [
            sys.executable,
            "-m",
            "vla_policy.node",
            "--ros-args",
            *(w for a in arguments for w in ("-p", a)),
            *words,
        ]
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=lambda: self._lines.extend(self.process.stdout), daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def servers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "vla_policy.serving.server" in child.cmdline()]

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        try:
            code = self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(WAIT_S)
        return code


@pytest.fixture(scope="module")
def robot() -> Iterator[Robot]:
    robot = Robot()
    yield robot
    robot.close()


@pytest.fixture(autouse=True)
def healthy_robot(robot: Robot, run_folder: Path) -> None:
    robot.filming = robot.measuring = True
    robot.delay_ns = 0
    robot.positions = dict.fromkeys(SO101_JOINTS, 0.25)
    robot.status = None
    robot.since_ns = time.time_ns()
    robot.trajectories.clear()
    robot.latencies.clear()
    robot.diagnostics.clear()


@pytest.fixture
def start_policy() -> Iterator[Callable[..., PolicyProcess]]:
    policies: list[PolicyProcess] = []

    def start(model: Path | str = "", *words: str, **parameters: object) -> PolicyProcess:
        policies.append(PolicyProcess(model, *words, **parameters))
        return policies[-1]

    yield start
    codes = [policy.stop() for policy in policies if policy.process.poll() is None]
    assert set(codes) <= {0}, [policy.text for policy in policies]


StartPolicy = Callable[..., PolicyProcess]


def seconds(duration: object) -> float:
    return duration.sec + duration.nanosec * 1e-9


class TestDriving:
    def test_from_start_to_stop(self, robot: Robot, model: Path, start_policy: StartPolicy):
        policy = start_policy(model, autostart=True)
        robot.wait("four chunks", lambda: len(robot.trajectories) >= 4, policy)
        for message in robot.trajectories:
            self.check_trajectory(message)
        robot.wait_state("driving", policy)
        assert robot.values["active_model"] == "tiny@1"
        assert robot.values["prompt"] == "put the black cube on the spot"
        assert robot.get("active_model") == "tiny@1"
        robot.wait("latencies", lambda: len(robot.latencies) >= 4, policy)
        self.check_latency(diagnostics.values(robot.latencies[-1]))
        robot.wait(
            "diagnostics of four chunks",
            lambda: (
                int(diagnostics.values(robot.diagnostics["policy: chunks"])["chunks"]) >= 4
                if "policy: chunks" in robot.diagnostics
                else False
            ),
            policy,
        )
        summary = diagnostics.values(robot.diagnostics["policy: latency"])
        assert summary["line_ms"] == "100"
        assert {"total_p50_ms", "total_p95_ms", "total_p99_ms", "infer_p99_ms", "write_p50_ms"} <= set(summary)

        response = robot.trigger("policy/stop")
        assert response.success
        assert robot.lifecycle() == "inactive"
        robot.wait_state("inactive", policy)
        before = len(robot.trajectories)
        assert robot.trigger("policy/start").success
        robot.wait("chunks again", lambda: len(robot.trajectories) > before, policy)
        servers = policy.servers()
        assert len(servers) == 1
        assert policy.stop() == 0, policy.text
        assert not servers[0].is_running()

    @staticmethod
    def check_trajectory(message: JointTrajectory) -> None:
        assert tuple(message.joint_names) == SO101_JOINTS
        times = [seconds(point.time_from_start) for point in message.points]
        assert all(after > before for before, after in pairwise(times))
        assert times[0] >= 0
        assert times[-1] <= (HORIZON - 1) / 10 + 1e-6
        assert times[-1] - times[0] <= 1.0 + 1e-6

    @staticmethod
    def check_latency(values: dict[str, str]) -> None:
        stages = [
            float(values[f"{name}_ms"])
            for name in ("capture", "transport", "decode", "wait", "infer", "return", "join")
        ]
        assert all(stage >= 0 for stage in stages)
        assert sum(stages) == pytest.approx(float(values["age_ms"]), abs=0.01)

    def test_chunks_join_without_a_jump(self, robot: Robot, model: Path, start_policy: StartPolicy):
        """The model ramps joints by 0.1 rad/s from the measured state, which never moves here: chunks disagree."""
        policy = start_policy(model, autostart=True)
        robot.wait("four chunks", lambda: len(robot.trajectories) >= 4, policy)
        for before, after in pairwise(robot.trajectories):
            begins_ns = to_ns(after.header.stamp) + round(seconds(after.points[0].time_from_start) * 1e9)
            offset_s = (begins_ns - to_ns(before.header.stamp)) * 1e-9
            times = [seconds(point.time_from_start) for point in before.points]
            held = np.interp(offset_s, times, [point.positions[0] for point in before.points])
            assert after.points[0].positions[0] == pytest.approx(held, abs=2e-3)  # stamps lose no more than this

    def test_the_prompt_is_overridden_at_once(self, robot: Robot, model: Path, start_policy: StartPolicy):
        policy = start_policy(model, autostart=True)
        robot.wait_state("driving", policy)
        robot.wait("a listener", lambda: robot.prompts.get_subscription_count() == 1, policy)
        robot.prompts.publish(String(data="put the white cube on the spot"))
        robot.wait("the prompt", lambda: robot.values["prompt"] == "put the white cube on the spot", policy)

    def test_a_second_arm_in_a_namespace(self, robot: Robot, model: Path, start_policy: StartPolicy):
        policy = start_policy(model, "-r", "__ns:=/second_arm")
        name = "second_arm/policy: chunks"
        robot.wait("its diagnostics", lambda: name in robot.diagnostics, policy)
        assert robot.trigger("second_arm/policy/start").success
        robot.wait("its state", lambda: "no picture yet" in robot.diagnostics[name].message, policy)
        assert robot.trajectories == []

    def test_at_a_server_elsewhere(self, robot: Robot, served: Server, start_policy: StartPolicy):
        policy = start_policy(server=str(served.address), autostart=True)
        robot.wait_state("driving", policy)
        assert policy.servers() == []
        assert policy.stop(signal.SIGTERM) == 0


class TestHolding:
    def test_while_pictures_or_joint_states_are_missing_or_old(
        self, robot: Robot, model: Path, start_policy: StartPolicy
    ):
        robot.filming = False
        policy = start_policy(model, autostart=True)
        robot.wait("a reason", lambda: "no picture yet" in robot.values.get("reason", ""), policy)
        assert robot.trajectories == []
        robot.filming = True
        robot.wait_state("driving", policy)
        robot.measuring = False
        robot.wait("a reason", lambda: "no joint state for more than 0.25 s" in robot.values["reason"], policy)
        robot.measuring = True
        robot.wait_state("driving", policy)
        robot.delay_ns = 3_000_000_000
        robot.wait("a reason", lambda: "no picture newer than 0.5 s" in robot.values["reason"], policy)
        robot.delay_ns = -3_000_000_000
        robot.wait("a reason", lambda: "in the future" in robot.values["reason"], policy)
        robot.delay_ns = 0
        robot.wait_state("driving", policy)
        assert policy.text.count("no joint state for more than") == 1

    def test_while_its_server_is_dead_and_goes_on_with_a_new_one(
        self, robot: Robot, model: Path, start_policy: StartPolicy
    ):
        policy = start_policy(model, autostart=True)
        robot.wait_state("driving", policy)
        first = policy.servers()[0]
        first.kill()
        robot.wait("a hold", lambda: "server" in robot.values["reason"], policy)
        robot.wait_state("driving", policy)
        assert policy.servers()[0].pid != first.pid
        assert policy.stop() == 0, policy.text

    def test_while_joint_names_differ(self, robot: Robot, model: Path, start_policy: StartPolicy):
        robot.positions = dict.fromkeys(("a", "b"), 0.0)
        policy = start_policy(model, autostart=True)
        robot.wait("a reason", lambda: "joint(s) shoulder_pan" in robot.values.get("reason", ""), policy)
        assert robot.trajectories == []


class TestConfiguring:
    def test_models_that_do_not_fit_are_refused_in_one_sentence_and_a_right_one_follows(
        self, robot: Robot, model: Path, tmp_path: Path, start_policy: StartPolicy
    ):
        policy = start_policy("/nowhere/model")
        robot.wait_state("unconfigured", policy)
        assert not robot.transition(Transition.TRANSITION_CONFIGURE)
        robot.wait("a reason", lambda: "model folder /nowhere/model does not exist" in robot.values["reason"], policy)
        assert robot.lifecycle() == "unconfigured"

        side = write_model(tmp_path / "side", camera="side")
        assert robot.set(model=str(side)).successful
        response = robot.trigger("policy/start")
        assert not response.success
        assert "wants camera(s) side; this robot has overhead, front" in response.message

        five = write_model(tmp_path / "five", dof=5)
        assert robot.set(model=str(five)).successful
        assert "does not move joint(s) gripper" in robot.trigger("policy/start").message

        cut = write_model(tmp_path / "cut")
        (cut / "policy.onnx").write_bytes((cut / "policy.onnx").read_bytes()[:100])
        assert robot.set(model=str(cut)).successful
        assert "has 100 bytes where the manifest says" in robot.trigger("policy/start").message

        assert policy.servers() == []
        assert robot.trajectories == []
        assert robot.set(model=str(model)).successful
        assert robot.trigger("policy/start").success
        robot.wait_state("driving", policy)
        assert policy.stop() == 0, policy.text

    def test_lifecycle_services_and_parameters(self, robot: Robot, model: Path, start_policy: StartPolicy):
        policy = start_policy(model)
        robot.wait_state("unconfigured", policy)
        assert robot.transition(Transition.TRANSITION_CONFIGURE)
        assert robot.lifecycle() == "inactive"
        assert robot.trajectories == []
        refused = robot.set(active_model="other@1")
        assert not refused.successful
        assert "read-only" in refused.reason
        refused = robot.set(server="local", wire_keys="a=b")
        assert not refused.successful
        assert "wire_keys is fixed while the node runs" in refused.reason
        assert robot.transition(Transition.TRANSITION_ACTIVATE)
        robot.wait_state("driving", policy)
        assert robot.transition(Transition.TRANSITION_DEACTIVATE)
        assert robot.transition(Transition.TRANSITION_CLEANUP)
        robot.wait_state("unconfigured", policy)
        assert robot.get("active_model") == ""
        assert policy.servers() == []
        assert policy.stop() == 0, policy.text

    def test_a_server_that_is_not_there_yet_is_tried_again(
        self, robot: Robot, model: Path, run_folder: Path, start_policy: StartPolicy, start_server
    ):
        policy = start_policy(server=f"unix:{run_folder}/later", autostart=True)
        robot.wait("a reason", lambda: "cannot be reached" in robot.values.get("reason", ""), policy)
        start_server(f"unix:{run_folder}/later", "--model", str(model))
        robot.wait_state("driving", policy)

    def test_parameters_out_of_bounds_end_it_with_code_2(self, model: Path, start_policy: StartPolicy):
        policy = start_policy(model, blend_s=7.0)
        assert policy.process.wait(WAIT_S) == 2
