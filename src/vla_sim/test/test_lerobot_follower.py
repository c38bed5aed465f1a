"""LeRobot's own SO-101 class, unmodified, on the simulated serial port: calibrate, observe, act."""

from __future__ import annotations

import importlib.util
import threading
import time
from pathlib import Path

import pytest

from vla_sim.control import SimClient
from vla_sim.process import SimulatorProcess
from vla_sim.scene import JOINTS

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("lerobot") is None, reason="lerobot is for Python 3.12 only"),
    pytest.mark.skipif(importlib.util.find_spec("scservo_sdk") is None, reason="feetech-servo-sdk is not installed"),
    pytest.mark.timeout(180),
]

MOVE_TIMEOUT_S = 10.0


class Person:
    """Who answers LeRobot's prompts and moves the limp arm: everything in the test that is no robot."""

    def __init__(self, sim: SimulatorProcess) -> None:
        self._sim = sim
        self._swept = threading.Event()
        self.prompts: list[str] = []

    def input(self, prompt: str = "") -> str:
        self.prompts.append(prompt)
        if "middle" in prompt:
            with self._sim.client() as client:
                client.hand_guide(dict.fromkeys(JOINTS, 0.0) | {"gripper": 0.8}, duration_s=2.5)
            threading.Thread(target=self._sweep, daemon=True).start()
        return ""

    def enter_pressed(self) -> bool:
        return self._swept.is_set()

    def _sweep(self) -> None:
        with self._sim.client() as client:
            client.hand_guide(sweep=[name for name in JOINTS if name != "wrist_roll"], duration_s=3.0)
            client.release()
        self._swept.set()


def wait_for_joint(client: SimClient, index: int, wanted: float, within: float) -> float:
    deadline = time.monotonic() + MOVE_TIMEOUT_S
    while time.monotonic() < deadline:
        angle = client.truth()["joints"][index]
        if abs(angle - wanted) < within:
            return float(angle)
        time.sleep(0.02)
    raise AssertionError(f"joint {JOINTS[index]} is at {angle:.3f} rad, not at {wanted:.3f}")


def test_lerobots_follower_calibrates_observes_and_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from lerobot.motors import motors_bus  # noqa: PLC0415 (seconds, and not on every Python)
    from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig  # noqa: PLC0415

    with SimulatorProcess(tmp_path) as sim, sim.client() as client:
        person = Person(sim)
        monkeypatch.setattr("builtins.input", person.input)
        monkeypatch.setattr(motors_bus, "enter_pressed", person.enter_pressed)
        folder = tmp_path / "calibration"
        config = SO101FollowerConfig(port=str(sim.port), id="sim", calibration_dir=folder, cameras={})

        robot = SO101Follower(config)
        robot.connect()
        assert any("middle" in prompt for prompt in person.prompts)
        assert (folder / "sim.json").is_file()
        assert robot.is_calibrated
        ranges = robot.calibration
        for name in JOINTS:
            assert ranges[name].range_max - ranges[name].range_min > 500, name
        # Held in the middle while LeRobot set its half turns, so the offsets are near those of the factory.
        assert all(abs(ranges[name].homing_offset) < 150 for name in JOINTS)
        assert all(client.status()["torque"].values())

        observation = robot.get_observation()
        assert set(observation) == {f"{name}.pos" for name in JOINTS}

        start = client.truth()["joints"]
        action = dict(observation)
        action["shoulder_pan.pos"] += 20.0  # degrees
        sent = robot.send_action(action)
        assert sent["shoulder_pan.pos"] == pytest.approx(action["shoulder_pan.pos"])
        moved = wait_for_joint(client, 0, start[0] + 0.349, within=0.03)
        assert robot.get_observation()["shoulder_pan.pos"] == pytest.approx(action["shoulder_pan.pos"], abs=2.0)
        assert moved > start[0]

        robot.disconnect()
        assert not any(client.status()["torque"].values())

        # The offsets and limits are in EEPROM now: another connection finds the arm calibrated and asks nothing.
        person.prompts.clear()
        again = SO101Follower(config)
        again.connect()
        assert person.prompts == []
        again.disconnect()
        assert client.status()["bus"]["checksum_errors"] == 0
        assert sim.stop() == 0
