"""The whole story through real images in a real registry: the model line is edited, and the robot picks the other cube.

A factory builds and pushes; a device, with storage of its own, pulls and runs the recipes' scripts under the stand-in
nucleus. The simulated arm is outside: its serial port and cameras reach the container as real ones would.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("awsiot")

import containers
import numpy as np
from commands import ROOT, pause
from containers import Component, Podman, Registry
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory
from watch import Watcher

from evergreen.demo.resources import free_domain
from evergreen.demo.stage import policy_config
from evergreen.update.node import commanded
from gg_bridge.recipes import Facts, check, configuration_update, render
from gg_bridge.testing import StandInNucleus, Timing
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import load
from vla_core.setpoints import Commanded, Span, gaps, longest_ns
from vla_ros import qos
from vla_ros.trajectories import trajectory
from vla_sim.control import SimClient
from vla_sim.process import SimulatorProcess

REASON = containers.reason_to_skip()
pytestmark = [
    pytest.mark.ros,
    pytest.mark.sim,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(REASON), reason=REASON or "ready"),
]

BLACK, WHITE = "models/evergreen-black", "models/evergreen-white"
WAIT_S = 240.0
PICK_S, SCENES = 25.0, 8
"""A learnt policy takes about 7 s for a pick where nothing else runs, and does not manage every scene."""
PATIENT = {"probation_s": 3.0, "max_image_age_s": 3.0, "max_state_age_s": 2.0, "max_chunk_age_s": 3.0}
"""A machine that is busy with other things must not make the policy refuse a sound model."""
HOME_S, NEAR_RAD = 1.5, 0.1
STOPPED_MS = 500.0
"""Of the arm, at the handover; 200 ms where nothing else runs (`evergreen demo --update`)."""
ENTRYPOINT = "/opt/evergreen/workspace/entrypoint"
TIMING = Timing(running_s=WAIT_S, retry_s=0.5, retries=100)


class Factory:
    """Where images are made and pushed."""

    def __init__(self, podman: Podman, registry: Registry, folder: Path) -> None:
        self._podman, self._registry = podman, registry
        self.file = folder / "Dockerfile.model"
        self.file.write_text((ROOT / "docker/Dockerfile.model").read_text())

    def make_base(self) -> str:
        if "localhost/debian" not in self._podman("images", "--format", "{{.Repository}}"):
            self._podman("import", containers.CACHE / "base.tar", "localhost/debian")
        tag = f"{self._registry.address}/evergreen:1"
        self._podman.build(ROOT / "docker/Dockerfile", tag, BASE="localhost/debian")
        return self._push(tag)

    def edit_the_model_line(self, model: str) -> None:
        text, edits = re.subn(r"^ARG MODEL=.*$", f"ARG MODEL={model}", self.file.read_text(), flags=re.MULTILINE)
        assert edits == 1
        self.file.write_text(text)

    def make_model(self, version: str) -> str:
        tag = f"{self._registry.address}/evergreen-model:{version}"
        self._podman.build(self.file, tag, BASE=f"{self._registry.address}/evergreen:1")
        return self._push(tag)

    def _push(self, tag: str) -> str:
        """Push it; the reference with its digest."""
        digest_file = self.file.with_name("digest")
        self._podman("push", "--tls-verify=false", "--digestfile", digest_file, tag, timeout_s=containers.BUILD_S)
        return f"{tag.rpartition(':')[0]}@{digest_file.read_text().strip()}"


class Device:
    """The robot's computer: a nucleus that pulls images and runs the two components."""

    def __init__(self, podman: Podman, registry: Registry, folder: Path, settings: Mapping[str, Any]) -> None:
        self._podman, self._registry = podman, registry
        self._settings = settings
        docker = podman.shim(folder / "bin")
        self.robot = Component("robot", folder, docker)
        self.model = Component("model", folder, docker)
        self._recipe: dict[str, Any] = {}
        self.moved_bytes: dict[str, int] = {}
        socket = folder / "nucleus.sock"
        self.nucleus = StandInNucleus("lite", socket, timing=TIMING, on_restart_component=self._replace)
        self.nucleus.start()
        socket.chmod(0o666)  # as Greengrass's is

    def start_robot(self, image: str) -> None:
        self._pull(image, "robot")
        recipe = recipe_of("robot", Facts("1.0.0", image))
        self.robot.start(recipe, {**defaults_of(recipe), **self._settings["robot"]}, {})

    def deploy_model(self, version: str, image: str, label: str) -> Any:
        """A new version of the component, as the cloud deploys it; the nucleus fetches, stops and starts."""
        self._recipe = recipe_of("image", Facts(version, image, model=label))
        self._pull(image, label)  # before anything is stopped, as both nuclei do
        reset = configuration_update("image")["reset"]
        return self.nucleus.deploy(reset=reset, version=version, defaults=defaults_of(self._recipe))

    def _pull(self, image: str, what: str) -> None:
        before = self._registry.served_bytes()
        self._podman("pull", "--tls-verify=false", image, timeout_s=containers.BUILD_S)
        self.moved_bytes[what] = self._registry.served_bytes() - before

    def _replace(self) -> None:
        self.model.stop()
        configuration = {**defaults_of(self._recipe), **self._settings["model"]}
        self.model.start(self._recipe, configuration, self.nucleus.environment())

    def inside(self, component: str, *words: object) -> str:
        return self._podman("exec", f"evergreen-{component}", *words)

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.nucleus.published if "update" in message.topic]

    def close(self) -> None:
        for component in (self.model, self.robot):
            with contextlib.suppress(Exception):
                component.stop()
        self.nucleus.close()


class Observer(Watcher):
    """Also notes what the arm is sent."""

    def __init__(self, domain: int) -> None:
        super().__init__(domain)
        self.commanded: list[Commanded] = []
        self.states: list[str] = []
        self._sent = self._node.create_publisher(JointTrajectory, "arm_controller/joint_trajectory", qos.TRAJECTORY)
        self._triggers = {name: self._node.create_client(Trigger, f"policy/{name}") for name in ("start", "stop")}
        self._node.create_subscription(
            JointTrajectory,
            "arm_controller/joint_trajectory",
            lambda message, info: self.commanded.append(commanded(message, info)),
            qos.TRAJECTORY,
        )

    def _on_policy(self, message: Any) -> None:
        super()._on_policy(message)
        self.states.append(self.policy["state"])

    def spin(self) -> None:
        """Take what has come."""
        for _ in range(20):
            self._executor.spin_once(timeout_sec=0.0)

    def trigger(self, name: str) -> None:
        client = self._triggers[name]
        self.until(client.service_is_ready, f"service policy/{name}", WAIT_S)
        future = client.call_async(Trigger.Request())
        self.until(future.done, f"an answer of policy/{name}", WAIT_S)
        assert future.result().success, future.result().message

    def bring_home(self, client: SimClient) -> None:
        """To where models have learnt to begin, as between two scenes of a demo."""
        self.trigger("stop")
        home = client.status()["home"]
        far = True
        while far:
            stamp_ns = self._node.get_clock().now().nanoseconds
            self._sent.publish(trajectory(stamp_ns, SO101_JOINTS, [int(HOME_S * 1e9)], np.array([home])))
            over_s = time.monotonic() + 2 * HOME_S
            while time.monotonic() < over_s:
                self.spin()
                pause(0.1)
            far = bool(np.abs(np.array(client.truth()["joints"]) - home).max() > NEAR_RAD)


def recipe_of(way: Any, facts: Facts) -> dict[str, Any]:
    recipe = render(way, "lite", facts)
    check(recipe)
    return recipe


def defaults_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    return found


def settings_folder(folder: Path, cameras: Mapping[str, str]) -> Path:
    """What a robot's owner puts into /etc/evergreen."""
    folder.mkdir()
    lines = [f"  {name}: {{url: '{url}', fps: 15}}" for name, url in cameras.items()]
    (folder / "cameras.yaml").write_text("\n".join(["cameras:", *lines]) + "\n")
    (folder / "arm.json").write_text((ROOT / "launch/config/so101_sim_calibration.json").read_text())
    policy_config(folder, **PATIENT)
    return folder


@pytest.fixture
def story(
    tmp_path: Path, workplace: containers.Workplace
) -> Iterator[tuple[Factory, Device, Observer, SimClient, dict[str, Any]]]:
    with contextlib.ExitStack() as stack:
        driver = workplace.driver
        registry = Registry(tmp_path / "registry")
        stack.callback(registry.close)
        on_robot = Podman(workplace.folder / "device", driver)
        stack.callback(on_robot.close)
        domain = stack.enter_context(free_domain())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # Shared memory, which LOCALHOST prefers, is for processes of one user; the containers' is not ours.
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
        patch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
        seen = sorted({*load(ROOT / BLACK).cameras, *load(ROOT / WHITE).cameras})
        hardware = stack.enter_context(SimulatorProcess(tmp_path, ["--http-port", "0", "--cameras", ",".join(seen)]))
        client = stack.enter_context(hardware.client())
        port = hardware.port.resolve()
        port.chmod(0o666)  # a real one belongs to the group dialout
        http = client.status()["http_port"]
        urls = {name: f"http://127.0.0.1:{http}/{name}/stream.mjpg" for name in seen}
        settings = settings_folder(tmp_path / "etc", urls)
        ros = {"ros": {"domain_id": str(domain), "discovery": "LOCALHOST"}}
        robot = {
            # A pty lives in devpts alone: another node for it, as --device makes, opens nothing.
            "devices": f"--volume {port}:/dev/so101",
            "settings": str(settings),
            "arguments": "port:=/dev/so101 model:= autostart:=true calibration:=/etc/evergreen/arm.json "
            "cameras_file:=/etc/evergreen/cameras.yaml policy_config:=/etc/evergreen/policy.yaml",
        }
        device = Device(
            on_robot, registry, tmp_path, {"robot": robot | ros, "model": ros | {"settings": str(settings)}}
        )
        stack.callback(device.close)
        observer = Observer(domain)
        stack.callback(observer.close)
        facts: dict[str, Any] = {"storage_driver": driver}
        yield Factory(workplace.factory, registry, tmp_path), device, observer, client, facts
        facts["moved_bytes"] = device.moved_bytes
        (containers.CACHE / "story.json").write_text(json.dumps(facts, indent=2) + "\n")
        print(json.dumps(facts, indent=2), file=sys.stderr)


def lifts(observer: Observer, client: SimClient, cube: str) -> bool:
    """Whether the arm lifts the cube in one of a few scenes."""
    for seed in range(1, SCENES + 1):
        observer.bring_home(client)
        client.reset(seed, keep_arm=True, target=cube)
        observer.trigger("start")
        deadline_s = time.monotonic() + PICK_S
        while time.monotonic() < deadline_s:
            observer.spin()
            outcome = client.outcome(cube)
            assert not outcome["wrong_lifted"], f"the other cube than {cube} was lifted in scene {seed}"
            if outcome["lifted"]:
                return True
            pause(0.1)
    return False


def test_the_model_line_is_edited_and_the_robot_picks_the_other_cube(
    story: tuple[Factory, Device, Observer, SimClient, dict[str, Any]],
) -> None:
    factory, device, observer, client, facts = story
    black, white = load(ROOT / BLACK).label, load(ROOT / WHITE).label

    def until(condition: Any, what: str) -> None:
        def explained() -> bool:
            assert device.robot.code is None, device.robot.text
            return bool(condition())

        try:
            observer.until(explained, what, WAIT_S)
        except AssertionError as error:
            said = f"--- robot\n{device.robot.text[-6000:]}\n--- model\n{device.model.text[-4000:]}"
            raise AssertionError(f"{error}\nbridge: {observer.bridge}\n{said}") from error

    def drives(label: str) -> bool:
        return observer.policy.get("state") == "driving" and observer.policy.get("active_model") == label

    # The factory ships the robot's software, and the black model.
    began_s = time.monotonic()
    base = factory.make_base()
    facts["base_s"] = round(time.monotonic() - began_s, 1)
    factory.edit_the_model_line(BLACK)
    began_s = time.monotonic()
    first = factory.make_model("1.0.0")
    facts["model_image_s"] = round(time.monotonic() - began_s, 1)

    # A new robot: its store is empty, so that it holds until its first model comes.
    device.start_robot(base)
    until(lambda: observer.policy.get("state") == "unconfigured", "the policy waits")
    deployment = device.deploy_model("1.0.0", first, black)
    until(lambda: drives(black), "the black model drives")
    assert deployment.wait(WAIT_S).status == "SUCCEEDED"
    until(lambda: device.reports() and device.reports()[-1]["outcome"] == "succeeded", "it is reported")
    assert lifts(observer, client, "black")
    assert "healthy" in device.inside("robot", ENTRYPOINT, "health", "--timeout", "60")
    assert "healthy" in device.inside("model", ENTRYPOINT, "health", "model", "--timeout", "60")
    assert device.inside("robot", "id", "-u") == "10001"

    # One line is edited.
    factory.edit_the_model_line(WHITE)
    second = factory.make_model("1.1.0")
    began_ns = time.monotonic_ns()
    observer.states.clear()
    deployment = device.deploy_model("1.1.0", second, white)
    until(lambda: drives(white), "the white model drives")
    switched_ns = time.monotonic_ns()
    facts["deployment_to_driving_s"] = round((switched_ns - began_ns) / 1e9, 1)
    until(lambda: device.reports()[-1]["model"] == white, "the second outcome is reported")
    assert device.reports()[-1]["outcome"] == "succeeded"
    assert deployment.wait(WAIT_S).status == "SUCCEEDED"

    # The arm was never without a policy, and the robot's container never restarted.
    assert set(observer.states) <= {"driving", "holding"}, observer.states
    handover = Span(switched_ns - 1_000_000_000, switched_ns + 1_000_000_000)
    facts["handover_gap_ms"] = round(longest_ns(gaps(observer.commanded, handover)) / 1e6)
    assert facts["handover_gap_ms"] <= STOPPED_MS
    assert len(re.findall(r"\[(?:policy|arm_controller)-\d+\]: process started", device.robot.text)) == 2

    assert lifts(observer, client, "white")

    # What went over the network: the first time everything, then one model.
    layer_bytes = sum(entry.size for entry in load(ROOT / WHITE).files.values())
    assert device.moved_bytes[white] < 1.1 * layer_bytes + 100_000
    assert device.moved_bytes["robot"] > 3 * device.moved_bytes[white]

    # A dead graph is a dead container, and the nucleus sees it.
    running = re.search(r"\[arm_controller-\d+\]: process started with pid \[(\d+)\]", device.robot.text)
    assert running
    device.inside("robot", "python3", "-c", f"import os; os.kill({running[1]}, 9)")
    assert device.robot.wait(WAIT_S) == 1
