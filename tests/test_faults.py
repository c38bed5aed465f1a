"""What breaks on a robot, broken in the whole running graph: the arm holds, one message says why, and it recovers.

The simulator is a process of its own, as hardware is: it outlives the graph, so that where the arm is and whether its
torque is on can be seen after any end. The tests of the first part share one graph; each leaves it driving.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from commands import ROOT, Commands, Running, words_of
from tiny_models import write_model
from watch import WAIT_S, Arm, Watcher

from evergreen.demo.resources import free_domain
from vla_sim.control import SimClient
from vla_sim.process import SimulatorProcess

pytestmark = [pytest.mark.ros, pytest.mark.sim]

CONFIG = ROOT / "launch/config"
STOP_S = 30.0
CAMERAS, FPS = ("front", "rear"), 10
"""The model needs the first; each more would only keep a processor busy."""
ERROR, WARN, OK = b"\x02", b"\x01", b"\x00"


class Robot:
    """A simulated robot, and the graph that drives it."""

    def __init__(self, folder: Path, hardware: SimulatorProcess, client: SimClient, domain: int) -> None:
        self.hardware = hardware
        self.arm = Arm(client)
        self.http_port = client.status()["http_port"]
        self.cameras_file = folder / "cameras.yaml"
        urls = {name: f"http://127.0.0.1:{self.http_port}/{name}/stream.mjpg" for name in CAMERAS}
        lines = [f"  {name}: {{url: '{url}', fps: {FPS}}}" for name, url in urls.items()]
        self.cameras_file.write_text("\n".join(["cameras:", *lines]))
        self.model = write_model(folder / "circles")
        self.commands = Commands(folder)
        self.graph: Running | None = None
        self.environment = {
            "ROS_DOMAIN_ID": domain,
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "OMP_NUM_THREADS": 1,
        }
        self.domain = domain
        self.watcher = Watcher(domain)

    def close(self) -> None:
        self.stop()
        self.watcher.close()

    @property
    def is_running(self) -> bool:
        return self.graph is not None and self.graph.process.poll() is None

    def start(self, **more: object) -> Running:
        """End the graph that runs, start one as on a real robot, and listen to it; `more` of its arguments."""
        self.stop()
        arguments = {
            "port": self.hardware.port,
            "calibration": CONFIG / "so101_sim_calibration.json",
            "cameras_file": self.cameras_file,
            "model": self.model,
            "autostart": "true",
            "description": "none",
        } | more
        words = [f"{name}:={value}" for name, value in arguments.items()]
        self.watcher.close()
        self.watcher = Watcher(self.domain)
        self.graph = self.commands(["launch", "evergreen_bringup", "robot.launch.xml", *words], **self.environment)
        return self.graph

    def stop(self) -> None:
        if self.graph is not None:
            self.graph.close()

    def until_driving(self) -> None:
        self.watcher.until_driving()
        assert self.arm.moves(), self.graph.text()

    def servers(self) -> list[psutil.Process]:
        """The policy servers of the graph."""
        return [child for child in self.graph.children() if "vla_policy.serving.server" in words_of(child)]


@pytest.fixture(scope="module")
def the_robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder = tmp_path_factory.mktemp("faults")
    with contextlib.ExitStack() as stack:
        domain = stack.enter_context(free_domain())
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        pictures = ["--http-port", "0", "--cameras", ",".join(CAMERAS), "--fps", str(FPS)]
        hardware = stack.enter_context(SimulatorProcess(folder, pictures))
        robot = Robot(folder, hardware, stack.enter_context(hardware.client()), domain)
        stack.callback(robot.close)
        yield robot


@pytest.fixture
def robot(the_robot: Robot) -> Iterator[Robot]:
    """The robot, driving."""
    if not the_robot.is_running:
        the_robot.start()
    the_robot.until_driving()
    yield the_robot
    the_robot.arm.client.fault("clear")


def test_an_absent_camera_that_nobody_needs_stops_nothing(robot: Robot) -> None:
    said = len(robot.graph.text())
    robot.arm.client.fault("drop_camera", camera="rear")
    robot.watcher.until(lambda: robot.watcher.diagnosis("cameras: rear")[0] == ERROR, "/diagnostics names the camera")
    assert robot.arm.moves()
    assert robot.watcher.policy["state"] == "driving"
    robot.arm.client.fault("restore_camera", camera="rear")
    robot.watcher.until(lambda: robot.watcher.diagnosis("cameras: rear")[0] != ERROR, "the camera is back")
    robot.graph.wait_text("camera 'rear'", WAIT_S, said)
    text = robot.graph.text()[said:]
    assert text.count("camera 'rear' is gone") == 1, text
    assert "holding" not in text


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [("drop_camera", {}), ("freeze_camera", {}), ("freeze_camera", {"repeat": True})],
    ids=["absent", "silent", "repeating"],
)
def test_the_arm_holds_without_a_camera_that_the_model_needs(robot: Robot, fault: str, arguments: dict) -> None:
    said = len(robot.graph.text())
    robot.arm.client.fault(fault, camera="front", **arguments)
    robot.watcher.until_holding("camera front: no picture newer than 0.5 s")
    assert robot.arm.holds()
    robot.watcher.until(
        lambda: robot.watcher.diagnosis("cameras: front")[0] in (WARN, ERROR), "/diagnostics says so as well"
    )
    robot.arm.client.fault("restore_camera", camera="front")
    robot.until_driving()
    text = robot.graph.text()[said:]
    assert text.count("holding: camera front") == 1, text
    assert text.count("camera 'front' is gone") <= 1, text


@pytest.mark.parametrize("power_cycle", [False, True], ids=["the adapter", "adapter and power"])
def test_an_unplugged_arm_holds_and_is_driven_again_when_plugged_in(robot: Robot, power_cycle: bool) -> None:
    said = len(robot.graph.text())
    robot.arm.client.fault("unplug")
    robot.watcher.until_holding("no joint state for more than 0.25 s")
    assert robot.arm.holds()
    robot.watcher.until(lambda: robot.watcher.diagnosis("arm_controller: state")[0] == ERROR, "/diagnostics says so")
    robot.arm.client.fault("replug", power_cycle=power_cycle)
    robot.graph.wait_text("connected to 6 servos; holding where the arm stands", WAIT_S, said)
    robot.until_driving()
    (error,) = [line for line in robot.graph.text()[said:].splitlines() if "[ERROR]" in line]
    assert f"serial port {robot.hardware.port} went away (" in error
    assert "); plug it in again. The servos hold their last goal; connecting again" in error
    assert all(robot.arm.client.status()["torque"].values())


def test_a_second_driver_on_the_port_is_told_who_has_it(robot: Robot) -> None:
    driver = robot.graph.pid_of("arm_controller")
    file = robot.commands.folder / "second.launch.xml"
    file.write_text(
        f"""<launch><node pkg="arm_driver" exec="arm_controller" namespace="second" output="screen">
        <param name="port" value="{robot.hardware.port}"/>
        <param name="calibration" value="{CONFIG}/so101_sim_calibration.json"/></node></launch>"""
    )
    second = robot.commands(["launch", file], **robot.environment)
    holder = rf"is in use by process .*{driver} \(arm_controller\); stop it or choose another `port`"
    second.wait_for(lambda: re.search(holder, second.text()), WAIT_S)
    second.process.send_signal(signal.SIGINT)
    assert second.finish(STOP_S) == 0, second.text()
    assert second.survivors() == []
    assert robot.arm.moves()


def test_a_killed_policy_server_is_started_again(robot: Robot) -> None:
    said = len(robot.graph.text())
    (server,) = robot.servers()
    server.kill()
    robot.watcher.until_holding("server unix:")
    robot.graph.wait_text("the policy server was ended by SIGKILL", WAIT_S, said)
    robot.until_driving()
    (successor,) = robot.servers()
    assert successor.pid != server.pid


def test_a_policy_server_that_keeps_dying_leaves_the_arm_holding(robot: Robot) -> None:
    """Its folder is damaged while it runs: each restart fails, less and less often."""
    graph = robot.model / "policy.onnx"
    whole, said = graph.read_bytes(), len(robot.graph.text())
    graph.write_bytes(whole[: len(whole) // 2])
    (server,) = robot.servers()
    server.kill()
    robot.watcher.until_holding("fetch it again")
    assert robot.arm.holds()
    graph.write_bytes(whole)
    robot.until_driving()
    assert robot.graph.text()[said:].count("fetch it again") == 1, "said once, not at every attempt"


def test_a_killed_policy_node_comes_back(robot: Robot) -> None:
    said = len(robot.graph.text())
    (server,) = robot.servers()
    robot.watcher.forget()
    os.kill(robot.graph.pid_of("policy"), signal.SIGKILL)
    assert robot.arm.holds()
    robot.until_driving()
    assert server.pid not in psutil.pids(), "a server does not outlive its node"
    assert robot.graph.text()[said:].count("exit code -9") == 1


def test_the_graph_ends_with_its_arm_controller(robot: Robot) -> None:
    os.kill(robot.graph.pid_of("arm_controller"), signal.SIGKILL)
    assert robot.arm.holds()
    assert robot.graph.finish(STOP_S) == 1, robot.graph.text()
    assert "required process arm_controller-2 has ended with exit code -9" in robot.graph.text()
    assert robot.graph.survivors() == []


def test_an_arm_that_is_plugged_in_late_is_found(the_robot: Robot) -> None:
    the_robot.arm.client.fault("unplug")
    graph = the_robot.start()
    graph.wait_text(f"parameter port: '{the_robot.hardware.port}' does not exist; plug the adapter in", WAIT_S)
    the_robot.watcher.until_holding("no joint states yet on topic joint_states: does the arm driver run?")
    the_robot.arm.client.fault("replug")
    graph.wait_text("connected to 6 servos; holding where the arm stands", WAIT_S)
    the_robot.until_driving()
    assert graph.text().count("does not exist") == 1, "said once, not at every attempt"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_arm_holds_when_the_launcher_ends(robot: Robot, number: signal.Signals, code: int) -> None:
    robot.graph.look()
    robot.graph.process.send_signal(number)
    assert robot.graph.finish(STOP_S) == code, robot.graph.text()
    assert robot.graph.survivors() == []
    assert robot.arm.holds()
    assert "Traceback" not in robot.graph.text()


def test_ctrl_c_ends_a_graph_whose_model_is_still_loading(the_robot: Robot) -> None:
    """The server is stopped, so that it loads for ever: nobody may wait for it."""
    graph = the_robot.start()
    graph.wait_for(the_robot.servers, WAIT_S)
    (server,) = the_robot.servers()
    server.suspend()
    graph.wait_text("connected to 6 servos", WAIT_S)
    graph.process.send_signal(signal.SIGINT)
    assert graph.finish(STOP_S) == 0, graph.text()
    assert graph.survivors() == []
    assert "driving" not in graph.text()
    assert "escalating" not in graph.text(), "the policy ends its server in time"
    assert the_robot.arm.holds()


def test_ctrl_c_ends_a_graph_whose_nodes_are_still_starting(the_robot: Robot) -> None:
    graph = the_robot.start()
    graph.wait_text("[policy-3]: process started", WAIT_S)
    graph.process.send_signal(signal.SIGINT)
    assert graph.finish(STOP_S) == 0, graph.text()
    assert graph.survivors() == []
    assert the_robot.arm.comes_to_rest()


def test_a_second_simulator_on_the_http_port_says_what_to_change(the_robot: Robot) -> None:
    folder = the_robot.commands.folder
    file = folder / "simulator.launch.xml"
    file.write_text(
        f"""<launch><node pkg="vla_sim" exec="simulator" output="screen" on_exit="shutdown"
        args="--port-link {folder}/other --control {folder}/other.sock --http-port {the_robot.http_port}"/></launch>"""
    )
    second = the_robot.commands(["launch", file])
    assert second.finish(WAIT_S) == 1
    text = second.text()
    assert text.count(f"cannot serve cameras on 127.0.0.1:{the_robot.http_port} (Address already in use)") == 1, text
    assert "choose another --http-port" in text
    assert second.survivors() == []
    assert the_robot.arm.client.status()["cameras"], "the first goes on"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_ended_demo_leaves_no_process(
    evergreen: Commands, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    demo = evergreen(["demo", "--policy", "expert", "--out", tmp_path / "out"])
    demo.wait_for(lambda: len(demo.children()) > len(("simulator", "cameras", "arm_controller", "policy")), WAIT_S)
    demo.process.send_signal(number)
    assert demo.finish(STOP_S) == code, demo.text()
    assert demo.survivors() == []
    if number is not signal.SIGKILL:
        assert list(evergreen.run_dir.iterdir()) == [], "sockets are gone too"


def test_two_demos_run_side_by_side_and_one_survives_an_unplugged_arm(evergreen: Commands, tmp_path: Path) -> None:
    words = ["demo", "--policy", "expert", "--episodes", 1, "--seed", 7, "--time-limit", 60, "--fps", 5, "--no-video"]
    outs = [tmp_path / "first", tmp_path / "second"]
    first, second = (evergreen([*words, "--size", "160x120", "--out", out], OMP_NUM_THREADS=1) for out in outs)
    first.wait_text("the policy moves the black cube", WAIT_S)
    (control,) = [socket for socket in evergreen.run_dir.glob("demo-*/simulator.sock") if _is_of(first, socket)]
    with SimClient(control) as client:
        arm = Arm(client)
        assert arm.moves()
        client.fault("unplug")
        assert arm.holds()
        assert not client.outcome()["success"]
        client.fault("replug")
        for demo, out in zip((first, second), outs, strict=True):
            assert demo.finish(WAIT_S) == 0, demo.text()
            assert demo.survivors() == []
            assert json.loads((out / "demo.json").read_text())["successes"] == 1, demo.text()
    connections = [(out / "demo.log").read_text().count("connected to 6 servos") for out in outs]
    assert connections == [2, 1]


def _is_of(demo: Running, control: Path) -> bool:
    """Whether this control socket belongs to the demo's own simulator."""
    return any(str(control) in words_of(child) for child in demo.children())
