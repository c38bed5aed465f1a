"""`evergreen record` on a running graph, and what `evergreen dataset convert` makes of it."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

import rclpy
from commands import ROOT, Commands, Running, pause
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.context import Context
from std_srvs.srv import Trigger
from tiny_models import write_model

from evergreen.demo.resources import free_domain
from vla_core.image import decode_resize
from vla_sim.control import SimClient
from vla_sim.process import SimulatorProcess

pytestmark = [pytest.mark.ros, pytest.mark.sim]

CONFIG = ROOT / "launch/config"
CAMERAS, FPS = ("front", "rear"), 15
WAIT_S = 90.0
SETTLE_S = 1.0
"""rmw_fastrtps drops an answer to a client that the server has not discovered in full a tenth of a second later."""
PROMPT = "draw circles"
BUSY = ("--max-skew", 1)
"""The simulator sheds frames where the machine has no time."""


class Robot:
    """A driven simulated robot with two cameras, and `evergreen record` beside it."""

    def __init__(self, commands: Commands, environment: dict[str, object], client: SimClient) -> None:
        self.commands, self.environment, self.client = commands, environment, client

    def record(self, out: Path, *words: object) -> Running:
        return self.commands(["record", "--out", out, *words], **self.environment)

    def call(self, name: str, recording: Running) -> Trigger.Response:
        context = Context()
        rclpy.init(context=context, domain_id=int(str(self.environment["ROS_DOMAIN_ID"])))
        node = rclpy.create_node("caller", context=context)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            client = node.create_client(Trigger, f"recorder/{name}")
            assert client.wait_for_service(WAIT_S)
            pause(SETTLE_S)
            future = client.call_async(Trigger.Request())
            executor.spin_until_future_complete(future, WAIT_S)
            assert future.done(), f"no answer to {name} within {WAIT_S:g} s; the recorder says:\n{recording.text()}"
            return future.result()
        finally:
            executor.shutdown()
            node.destroy_node()
            rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder = tmp_path_factory.mktemp("recording")
    with contextlib.ExitStack() as stack:
        domain = stack.enter_context(free_domain())
        pictures = ["--http-port", "0", "--cameras", ",".join(CAMERAS), "--fps", str(FPS)]
        hardware = stack.enter_context(SimulatorProcess(folder, pictures))
        client = stack.enter_context(hardware.client())
        cameras = folder / "cameras.yaml"
        port = client.status()["http_port"]
        lines = [f"  {name}: {{url: 'http://127.0.0.1:{port}/{name}/stream.mjpg', fps: {FPS}}}" for name in CAMERAS]
        cameras.write_text("\n".join(["cameras:", *lines]))
        commands = Commands(folder)
        stack.callback(commands.close)
        environment = {"ROS_DOMAIN_ID": domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "OMP_NUM_THREADS": 1}
        arguments = {
            "port": hardware.port,
            "calibration": CONFIG / "so101_sim_calibration.json",
            "cameras_file": cameras,
            "model": write_model(folder / "circles"),
            "prompt": PROMPT,
            "autostart": "true",
            "description": "none",
        }
        words = [f"{name}:={value}" for name, value in arguments.items()]
        graph = commands(["launch", "evergreen_bringup", "robot.launch.xml", *words], **environment)
        graph.wait_text("driving circles", WAIT_S)
        yield Robot(commands, environment, client)
        graph.close()


def messages(path: Path, topic: str) -> list:
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        return [content for *_, content in reader.iter_decoded_messages(topics=[topic])]


@pytest.mark.train
def test_a_recording_becomes_a_dataset(robot: Robot, tmp_path: Path) -> None:
    recording = robot.record(tmp_path / "recordings", "--duration", 8, "--json")
    assert recording.finish(WAIT_S) == 0, recording.text()
    (path,) = [Path(name) for name in json.loads(recording.text().splitlines()[-1])["kept"]]
    converting = robot.commands(["dataset", "convert", tmp_path / "recordings", "--out", tmp_path / "data", *BUSY])
    assert converting.finish(4 * WAIT_S) == 0, converting.text()

    told = robot.commands(["dataset", "info", tmp_path / "data", "--json"])
    assert told.finish(WAIT_S) == 0
    facts = json.loads(told.text())
    assert facts["episodes"] == 1
    assert facts["cameras"] == {"front": [320, 240], "rear": [320, 240]}
    assert facts["prompts"] == {PROMPT: 1}
    assert facts["frames"] >= 40

    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: PLC0415 (seconds)

    dataset = LeRobotDataset("local/recorded", root=tmp_path / "data")
    assert len(dataset) == facts["frames"]
    for camera in CAMERAS:
        jpegs = messages(path, f"/camera/{camera}/image_raw/compressed")
        seen = [decode_resize(bytes(jpeg.data), 320, 240).tobytes() for jpeg in jpegs]
        found = []
        for item in (dataset[index] for index in range(len(dataset))):
            picture = np.rint(item[f"observation.images.{camera}"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
            found.append(seen.index(picture.tobytes()))  # fails where no picture is the same to the last byte
        assert found == sorted(found)
        assert len(set(found)) > 5

    actions = np.array([item["action"].numpy() for item in (dataset[index] for index in range(len(dataset)))])
    states = np.array([item["observation.state"].numpy() for item in (dataset[index] for index in range(len(dataset)))])
    assert np.ptp(actions[:, 0]) > 0.2, "the circles"
    behind = [np.abs(actions[: len(actions) - lag] - states[lag:]).mean() for lag in range(5)]
    assert min(behind) < 0.05, "the arm follows what was commanded"


def test_a_killed_recorder_leaves_what_it_heard(robot: Robot, tmp_path: Path) -> None:
    recording = robot.record(tmp_path / "out")
    path = tmp_path / "out" / "episode-0000.mcap"
    recording.wait_for(lambda: path.exists() and path.stat().st_size > 500_000, WAIT_S)
    recording.process.send_signal(signal.SIGKILL)
    recording.process.wait()

    from vla_training import mcap_recording  # noqa: PLC0415

    found = mcap_recording.read(path)
    assert not found.whole
    assert set(found.pictures) == set(CAMERAS)
    assert len(found.state_ns) > 20
    assert found.commands
    assert found.prompt_at(found.state_ns[-1]) == PROMPT


def test_missing_and_silent_cameras_are_told_of(robot: Robot, tmp_path: Path) -> None:
    recording = robot.record(tmp_path / "out", "--cameras", "rear,nose")
    recording.wait_text("warning: camera nose is missing", WAIT_S)
    recording.wait_text("episode 0: recording", WAIT_S)
    robot.client.fault("drop_camera", camera="rear")
    recording.wait_text("warning: camera/rear/image_raw/compressed is silent", WAIT_S)
    robot.client.fault("restore_camera", camera="rear")
    recording.wait_text("warning: camera/rear/image_raw/compressed is back", WAIT_S)
    recording.process.send_signal(signal.SIGINT)
    assert recording.finish(WAIT_S) == 0, recording.text()
    assert "kept episode-0000.mcap" in recording.text()
    assert not messages(tmp_path / "out" / "episode-0000.mcap", "/camera/front/image_raw/compressed")


def test_services_begin_keep_and_discard(robot: Robot, tmp_path: Path) -> None:
    recording = robot.record(tmp_path / "out", "--wait", "--episodes", 1)
    assert not robot.call("keep", recording).success
    for name in ("start", "discard", "start"):
        assert robot.call(name, recording).success
    path = tmp_path / "out" / "episode-0000.mcap"
    recording.wait_for(lambda: path.stat().st_size > 50_000, WAIT_S)
    answer = robot.call("keep", recording)
    assert answer.success
    assert "kept episode-0000.mcap" in answer.message
    assert recording.finish(WAIT_S) == 0, "that was the one episode"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["episode-0000.mcap"]


def test_without_a_robot_it_says_so(robot: Robot, tmp_path: Path) -> None:
    with free_domain() as elsewhere:
        alone = robot.commands(["record", "--out", tmp_path / "out", "--duration", 1], ROS_DOMAIN_ID=elsewhere)
        assert alone.finish(WAIT_S) == 1
    assert "error: nothing was heard: is the robot running in this ROS domain" in alone.text()
    assert list((tmp_path / "out").iterdir()) == []
