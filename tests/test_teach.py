"""`evergreen teach` on the simulated arm, through the real driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from commands import ROOT, Commands, Running, pause
from watch import Arm

from evergreen.demo.resources import free_domain
from vla_core import taught
from vla_core.joints import SO101_JOINTS
from vla_core.taught import Taught
from vla_sim.process import SimulatorProcess

pytestmark = [pytest.mark.ros, pytest.mark.sim]

CONFIG = ROOT / "launch/config"
WAIT_S = 120.0
GRIPPER = SO101_JOINTS.index("gripper")
NEAR_RAD = 0.1


class Bench:
    """A simulated arm, its driver, and `evergreen teach` beside it."""

    def __init__(self, commands: Commands, hardware: SimulatorProcess, arm: Arm, domain: int) -> None:
        self.commands, self.hardware, self.arm = commands, hardware, arm
        self.environment = {"ROS_DOMAIN_ID": domain, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}

    def teach(self, *words: object) -> Running:
        return self.commands(["teach", *words], **self.environment)

    @property
    def home(self) -> np.ndarray:
        return np.array(self.arm.client.status()["home"])

    def near(self, pose: np.ndarray) -> bool:
        return bool(np.abs(self.arm.joints - pose)[:GRIPPER].max() < NEAR_RAD)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("teach")
    with contextlib.ExitStack() as stack:
        domain = stack.enter_context(free_domain())
        hardware = stack.enter_context(SimulatorProcess(folder))
        arm = Arm(stack.enter_context(hardware.client()))
        commands = Commands(folder)
        stack.callback(commands.close)
        bench = Bench(commands, hardware, arm, domain)
        words = ["--params-file", CONFIG / "so101.yaml", "-p", f"port:={hardware.port}"]
        words += ["-p", f"calibration:={CONFIG / 'so101_sim_calibration.json'}"]
        driver = subprocess.Popen(
            [sys.executable, "-m", "arm_driver.node", "--ros-args", *map(str, words)],
            env={**os.environ, **{name: str(value) for name, value in bench.environment.items()}},
        )
        stack.callback(driver.wait, 20.0)
        stack.callback(driver.terminate)
        yield bench


def lesson(home: np.ndarray, seconds: float) -> Taught:
    """Two joints go somewhere else and half-way back."""
    share = np.interp(np.arange(0, 1.0001, 1 / (seconds * 50)), [0, 0.6, 1], [0, 1, 0.5])
    way = np.tile(home, (len(share), 1))
    way[:, 0] += 0.8 * share
    way[:, 4] -= 0.6 * share
    return Taught(SO101_JOINTS, 50.0, way)


def test_a_taught_trajectory_is_followed_to_its_end(bench: Bench, tmp_path: Path) -> None:
    made = lesson(bench.home, 4.0)
    taught.save(made, tmp_path / "wave.json")
    replay = bench.teach("replay", tmp_path / "wave.json", "--json")
    furthest = 0.0
    while replay.process.poll() is None:
        furthest = max(furthest, bench.arm.joints[0] - bench.home[0])
        pause()
    assert replay.finish(WAIT_S) == 0, replay.text()
    assert furthest == pytest.approx(0.8, abs=NEAR_RAD), "it was where it was led"
    assert bench.near(made.positions[-1])
    outcome = json.loads(replay.text().splitlines()[-1])
    assert outcome["finished"]
    assert outcome["mean_error_rad"] < 0.2
    assert bench.arm.holds()


def test_ctrl_c_stops_the_arm_where_it_is(bench: Bench, tmp_path: Path) -> None:
    made = lesson(bench.home, 40.0)
    taught.save(made, tmp_path / "slow.json")
    replay = bench.teach("replay", tmp_path / "slow.json")
    replay.wait_text("playing 40.0 s", WAIT_S)
    replay.wait_for(lambda: bench.arm.joints[0] > bench.home[0] + 0.15, WAIT_S)
    replay.process.send_signal(signal.SIGINT)
    assert replay.finish(WAIT_S) == 130, replay.text()
    assert "stopped: the arm holds" in replay.text()
    assert bench.arm.holds()
    assert bench.arm.joints[0] < bench.home[0] + 0.7, "not where the lesson would have led it"


def test_a_killed_replay_leaves_an_arm_that_holds(bench: Bench, tmp_path: Path) -> None:
    taught.save(lesson(bench.home, 40.0), tmp_path / "slow.json")
    replay = bench.teach("replay", tmp_path / "slow.json")
    replay.wait_text("playing 40.0 s", WAIT_S)
    replay.wait_for(lambda: bench.arm.joints[0] > bench.home[0] + 0.15, WAIT_S)
    replay.process.send_signal(signal.SIGKILL)
    replay.process.wait()
    assert bench.arm.holds()


def test_a_limp_arm_is_led_by_hand_and_holds_where_it_is_left(bench: Bench, tmp_path: Path) -> None:
    client = bench.arm.client
    recording = bench.teach("record", "--limp", "--out", tmp_path / "led.json", "--json")
    recording.wait_text("HOLD THE ARM: it goes limp in 3 s", WAIT_S)
    recording.wait_text("the arm is limp: lead it", WAIT_S)
    assert not any(client.status()["torque"].values())
    client.hand_guide({"shoulder_pan": -0.5, "shoulder_lift": -0.8, "elbow_flex": 0.8}, duration_s=1.0)
    client.hand_guide({"wrist_roll": 1.0}, duration_s=1.0)
    led = bench.arm.joints
    recording.process.send_signal(signal.SIGINT)
    assert recording.finish(WAIT_S) == 0, recording.text()
    assert all(client.status()["torque"].values())
    client.release()
    assert bench.arm.holds()
    assert bench.near(led)
    made = taught.load(tmp_path / "led.json")
    last = dict(zip(made.joint_names, made.positions[-1], strict=True))
    np.testing.assert_allclose([last[name] for name in SO101_JOINTS], led, atol=NEAR_RAD)


def test_what_a_simulated_hand_shows_places_the_cube_again(bench: Bench, tmp_path: Path) -> None:
    client = bench.arm.client
    taught.save(lesson(bench.home, 1.0), tmp_path / "home.json")
    assert bench.teach("replay", tmp_path / "home.json").finish(WAIT_S) == 0
    client.reset(7, keep_arm=True)
    path = tmp_path / "place.json"
    shown = bench.teach("record", "--sim-hand", "black", "--control", bench.hardware.control, "--out", path)
    assert shown.finish(WAIT_S) == 0, shown.text()
    by_hand = client.outcome()
    client.reset(7, keep_arm=True)
    replay = bench.teach("replay", path)
    assert replay.finish(WAIT_S) == 0, replay.text()
    if not client.status()["realtime_ok"]:
        pytest.skip("this machine is too busy to simulate in real time")
    assert by_hand["success"]
    assert client.outcome()["success"]


def test_nothing_taught_is_said_in_one_line(bench: Bench, tmp_path: Path) -> None:
    still = bench.teach("record", "--duration", 1, "--out", tmp_path / "still.json")
    assert still.finish(WAIT_S) == 2
    assert "error: the arm did not move: nothing was taught" in still.text()
    assert not (tmp_path / "still.json").exists()
