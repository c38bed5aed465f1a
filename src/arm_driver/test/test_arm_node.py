"""The node `/arm_controller` as a process, on the simulator's arm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vla_core.joints import SO101_JOINTS

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from builtin_interfaces.msg import Duration  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.publisher import Publisher  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402

from vla_ros import diagnostics, qos  # noqa: E402
from vla_ros.stamps import to_msg, to_ns  # noqa: E402
from vla_sim.control import SimClient  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.sim]

DOMAIN = "43"
WAIT_S = 60.0
EXIT_S = 20.0
REPOSITORY = Path(__file__).parents[3]
CONFIG = REPOSITORY / "launch/config/so101.yaml"
CALIBRATION = REPOSITORY / "launch/config/so101_sim_calibration.json"
ENVIRONMENT = os.environ | {
    "ROS_DOMAIN_ID": DOMAIN,
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "MUJOCO_GL": os.environ.get("MUJOCO_GL", "osmesa"),
}


def start(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            # pytest in the background of a script inherits an ignored SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )


class Controller:
    """The node under test."""

    def __init__(self, folder: Path, port: Path, *parameters: str, namespace: str = "/") -> None:
        self.log = folder / "node.log"
        arguments = ["--ros-args", "-r", f"__ns:={namespace}", "--params-file", str(CONFIG), "-p", f"port:={port}"]
        for parameter in (f"calibration:={CALIBRATION}", *parameters):
            arguments += ["-p", parameter]
        self.process = start("arm_driver.node", *arguments, log=self.log)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(EXIT_S)

    def text(self) -> str:
        return self.log.read_text()


class Listener:
    """Subscribes and publishes in the test's process; `until` spins."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=int(DOMAIN))
        self.node = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.states: list[JointState] = []
        self.latencies: list[DiagnosticStatus] = []
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(JointState, "joint_states", self.states.append, qos.JOINT_STATES)
        self.node.create_subscription(DiagnosticStatus, "arm_controller/latency", self.latencies.append, qos.LATENCY)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, qos.DIAGNOSTICS)
        self.trajectories = self.publisher()

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.statuses.update({status.name: status for status in message.status})

    def publisher(self) -> Publisher:
        return self.node.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)

    def values(self, part: str) -> dict[str, str]:
        status = self.statuses.get(f"arm_controller: {part}")
        return diagnostics.values(status) if status else {}

    def positions(self) -> dict[str, float]:
        return dict(zip(self.states[-1].name, self.states[-1].position, strict=True))

    def spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.02)

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}; {self.values('state')}"
            self.spin()

    def call(self, name: str) -> Trigger.Response:
        client = self.node.create_client(Trigger, f"arm_controller/{name}")
        self.until(client.service_is_ready, name)
        future = client.call_async(Trigger.Request())
        self.until(future.done, name)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def trajectory(target: dict[str, float], seconds: float, *names: str) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(names or target))
    message.header.stamp = to_msg(time.time_ns())
    point = JointTrajectoryPoint(positions=[target[name] for name in message.joint_names])
    point.time_from_start = Duration(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
    message.points = [point]
    return message


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sim")
    arguments = ["--no-cameras", "--report-s", "0"]
    arguments += ["--port-link", str(folder / "servos"), "--control", str(folder / "control")]
    process = start("vla_sim.simulator", *arguments, log=folder / "log")
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not ((folder / "control").exists() and (folder / "servos").exists()):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "the simulator did not start"
        pause.wait(0.05)
    yield folder
    process.terminate()
    assert process.wait(EXIT_S) == 0


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def controller(simulator: Path, tmp_path: Path, listener: Listener) -> Iterator[Controller]:
    made = Controller(tmp_path, simulator / "servos")
    try:
        listener.until(lambda: listener.states, "joint states")
        yield made
    finally:
        made.process.kill()
        made.process.wait(EXIT_S)


def test_it_plays_reports_and_ends_well(controller: Controller, listener: Listener) -> None:
    state = listener.states[0]
    assert tuple(state.name) == SO101_JOINTS
    assert len(state.position) == len(state.velocity) == len(state.effort) == 6
    assert abs(time.time_ns() - to_ns(state.header.stamp)) < 60e9

    target = dict(listener.positions()) | {"shoulder_pan": 0.5, "gripper": 1.2}
    listener.until(listener.trajectories.get_subscription_count, "the subscription")
    sent = trajectory(target, 1.0, *reversed(SO101_JOINTS))
    listener.trajectories.publish(sent)
    listener.until(lambda: abs(listener.positions()["shoulder_pan"] - 0.5) < 0.03, "the pan")
    listener.until(lambda: abs(listener.positions()["gripper"] - 1.2) < 0.05, "the gripper")

    listener.until(lambda: listener.latencies, "a latency")
    latency = diagnostics.values(listener.latencies[0])
    assert int(latency["stamp_ns"]) == to_ns(sent.header.stamp)
    assert float(latency["total_ms"]) >= float(latency["write_ms"]) > 0.0

    listener.until(lambda: listener.values("latency").get("n") == "1", "latency diagnostics")
    assert listener.values("latency")["total_p50_ms"] == latency["total_ms"]
    listener.until(lambda: float(listener.values("loop").get("rate_hz") or 0) > 0, "the loop's rate")
    assert float(listener.values("servos")["shoulder_pan_voltage_v"]) > 5
    assert listener.values("bus")["alarms"] == ""

    listener.trajectories.publish(trajectory({"shoulder_pan": 0.0}, 1.0))
    listener.until(lambda: listener.values("state").get("rejected") == "1", "a refusal")
    assert "missing joint(s) shoulder_lift" in listener.values("state")["last_rejection"]
    assert controller.stop() == 0
    assert "Traceback" not in controller.text()


def test_stop_is_latched_until_resume(controller: Controller, listener: Listener) -> None:
    listener.until(listener.trajectories.get_subscription_count, "the subscription")
    here = dict(listener.positions())
    assert listener.call("stop").success
    listener.until(lambda: listener.values("state").get("state") == "stopped", "the stop")
    listener.trajectories.publish(trajectory(here | {"shoulder_pan": 0.0}, 0.5))
    listener.until(lambda: "stopped" in listener.values("state").get("last_rejection", ""), "the refusal")
    assert listener.call("resume").success
    goal = 0.2 if here["shoulder_pan"] < 0 else -0.2
    listener.trajectories.publish(trajectory(here | {"shoulder_pan": goal}, 0.5))
    listener.until(lambda: abs(listener.positions()["shoulder_pan"] - goal) < 0.03, "motion")
    assert controller.stop(signal.SIGTERM) == 0


def test_two_publishers_at_once_make_it_hold(controller: Controller, listener: Listener) -> None:
    rival = listener.publisher()
    listener.until(rival.get_subscription_count, "the rival's subscription")
    listener.until(listener.trajectories.get_subscription_count, "the subscription")
    here = dict(listener.positions())
    publishers = [listener.trajectories, rival]

    def quarrel() -> bool:
        publishers.reverse()
        publishers[0].publish(trajectory(here, 0.5))
        listener.spin()
        return "publishers" in listener.values("state").get("last_rejection", "")

    listener.until(quarrel, "the complaint")
    assert "2 publishers command at once" in controller.text()
    assert controller.stop() == 0


def test_unplugged_it_says_so_reconnects_and_moves_again(
    simulator: Path, controller: Controller, listener: Listener
) -> None:
    listener.until(listener.trajectories.get_subscription_count, "the subscription")
    here = dict(listener.positions())
    with SimClient(simulator / "control") as client:
        listener.trajectories.publish(trajectory(here | {"shoulder_pan": 1.5}, 10.0))
        listener.until(lambda: listener.values("state").get("state") == "active", "motion")
        client.request("fault", kind="unplug")
        listener.until(lambda: listener.values("state").get("state") == "connecting", "the report")
        assert listener.statuses["arm_controller: state"].level == diagnostics.ERROR
        client.request("fault", kind="replug")
    listener.until(lambda: listener.values("state").get("state") == "hold", "the reconnection")
    listener.states.clear()
    listener.until(lambda: listener.states, "joint states")
    listener.trajectories.publish(trajectory(here | {"shoulder_pan": -0.3}, 0.5))
    listener.until(lambda: abs(listener.positions()["shoulder_pan"] + 0.3) < 0.03, "motion")
    assert controller.stop() == 0
    assert "Traceback" not in controller.text()


def test_without_a_port_it_waits_and_says_so_once(tmp_path: Path, listener: Listener) -> None:
    controller = Controller(tmp_path, tmp_path / "nothing")
    try:
        listener.until(lambda: "parameter port" in controller.text(), "a complaint")
        listener.until(lambda: listener.values("state").get("state") == "connecting", "diagnostics")
        assert controller.stop() == 0
        assert controller.text().count("does not exist") == 1
    finally:
        controller.process.kill()


def test_in_a_namespace_the_statuses_carry_it(tmp_path: Path, listener: Listener) -> None:
    """Two arms' statuses met on /diagnostics under the same names, and overwrote each other."""
    controller = Controller(tmp_path, tmp_path / "nothing", namespace="/second_arm")
    try:
        listener.until(lambda: "second_arm/arm_controller: state" in listener.statuses, "diagnostics")
        assert "arm_controller: state" not in listener.statuses
        assert controller.stop() == 0
    finally:
        controller.process.kill()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["calibration:=/nowhere.json"], "error: parameter calibration: there is no file '/nowhere.json'"),
        (["upper_rad:=[0.5]"], "upper_rad has 1 values for the 6 joints"),
    ],
)
def test_a_wrong_parameter_ends_it_with_one_line(tmp_path: Path, parameters: list[str], message: str) -> None:
    controller = Controller(tmp_path, tmp_path / "port", *parameters)
    assert controller.process.wait(WAIT_S) == 2
    assert message in controller.text()
    assert "Traceback" not in controller.text()
