"""Whoever is killed in the middle of a swap, a good model drives, and all who tell of the update say the same.

How a stage is hit, with nothing in the product made for it: in `warm_up` the new model waits for a picture of a camera
that the simulation holds back; in `judge` and `switch` each of its answers takes a tenth of a second or more, since
its graph multiplies large matrices, and the victim is killed in the callback that hears of the stage. A kill in
`switch` that came too late shows in what the policy had said by then, and is tried again with another model.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("awsiot")

from update_robot import Greengrass, Robot, running_robot

from vla_core.swap import Stage

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(900)]

CAMERAS = ("front", "wrist")
WORK, OPEN_LOOP_S = 5, 1.8
"""Products of matrices an answer: 0.1 to 0.3 s, more on a busy machine; the plan covers several times that."""
PATIENT = {
    "probation_s": 0.0,
    "request_period_s": 0.5,
    "max_image_age_s": 2.0,
    "max_state_age_s": 2.0,
    "max_chunk_age_s": 5.0,
    "observation_timeout_s": 60.0,
}
"""A busy machine must not make the policy refuse a sound model; the same kills end the same way with shorter limits."""
TRIES = 3
VICTIMS = ["the new server", "the old server", "the policy", "the bridge"]


class Kill:
    """SIGKILL to one process as soon as the next swap is in a stage."""

    def __init__(self, robot: Robot, greengrass: Greengrass, victim: str, stage: Stage) -> None:
        """Who is who is known beforehand, so that the blow comes at once."""
        self._robot, self._victim, self._stage = robot, victim, stage
        (old,) = robot.servers()
        self._pids = {
            "the old server": old.pid,
            "the policy": robot.graph.pid_of("policy"),
            "the bridge": greengrass.pid(),
        }
        self._before = robot.watcher.policy["request_id"]
        self.pid = 0
        self.said: list[dict[str, str]] = []
        """By the policy: of this swap until the blow, and then everything."""
        robot.watcher.at_once = self._heard

    def _heard(self, said: dict[str, str]) -> None:
        if not self.is_done and said["request_id"] in {self._before, ""}:
            return
        self.said.append(said)
        if self.is_done:
            return
        if said["stage"] in {Stage.WARM_UP, Stage.JUDGE} and "the new server" not in self._pids:
            (new,) = [server.pid for server in self._robot.servers() if server.pid != self._pids["the old server"]]
            self._pids["the new server"] = new
        if said["stage"] == self._stage:
            self.pid = self._pids[self._victim]
            os.kill(self.pid, signal.SIGKILL)

    @property
    def is_done(self) -> bool:
        """Whether it was killed."""
        return self.pid != 0

    @property
    def came_late(self) -> bool:
        """Whether the new model drove before the policy was killed; of the other victims the outcome tells."""
        last_words = itertools.takewhile(lambda said: said["request_id"], self.said)
        return self._victim == "the policy" and any("probation" in json.loads(said["timeline"]) for said in last_words)

    def came_back_with(self) -> str:
        """The model that drove first after the blow."""
        fresh = itertools.dropwhile(lambda said: said["request_id"], self.said)
        return next(said["active_model"] for said in fresh if said["state"] == "driving")


@pytest.fixture(scope="module")
def the_robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    folder = tmp_path_factory.mktemp("kills")
    with running_robot(folder, folder / "store", cameras=CAMERAS, policy=PATIENT, open_loop_s=OPEN_LOOP_S) as robot:
        yield robot


@pytest.fixture(scope="module")
def greengrass(the_robot: Robot) -> Iterator[Greengrass]:
    with the_robot.nucleus("lite") as greengrass:
        yield greengrass


@pytest.fixture
def robot(the_robot: Robot) -> Iterator[Robot]:
    the_robot.until_current()
    yield the_robot
    the_robot.watcher.at_once = lambda _: None
    the_robot.arm.client.fault("clear")
    the_robot.until_current()


def seen_by(robot: Robot, label: str) -> str:
    """Through which camera that model sees."""
    (camera,) = robot.store.manifest(label).cameras
    return camera


def kill_in(robot: Robot, greengrass: Greengrass, stage: Stage, victim: str) -> Kill:
    """Deploy a model and kill `victim` in `stage`; the swap goes on from there."""
    old = robot.store.state().current
    (camera,) = set(CAMERAS) - {seen_by(robot, old)}
    kill = Kill(robot, greengrass, victim, stage)
    if stage is Stage.WARM_UP:
        robot.arm.client.fault("freeze_camera", camera=camera)
        how = {}
    else:
        how = {"work": WORK}
    greengrass.deploy(f"file:{robot.model(camera=camera, **how)}")
    robot.until(lambda: kill.is_done, f"{victim} is killed in {stage}")
    robot.arm.client.fault("clear")
    return kill


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("stage", [Stage.WARM_UP, Stage.JUDGE, Stage.SWITCH])
def test_whoever_is_killed_in_a_swap_a_good_model_drives(
    robot: Robot, greengrass: Greengrass, stage: Stage, victim: str
) -> None:
    for _ in range(TRIES):
        old = robot.store.state().current
        kill = kill_in(robot, greengrass, stage, victim)
        new, outcome = robot.newest, "refused" if victim == "the new server" else "succeeded"
        report = greengrass.until_reported(new, "refused", "rolled_back", "succeeded")
        if report["outcome"] == outcome and not kill.came_late:
            break
    assert (report["outcome"], report["running"]) == (outcome, old if outcome == "refused" else new)
    assert [said["model"] for said in greengrass.reports].count(new) == 1
    robot.until_drives(report["running"])
    state = robot.store.state()
    assert (state.current, new in state.refused) == (report["running"], outcome == "refused")
    robot.until(lambda: robot.store.state().last_good == report["running"], "it proved good")
    robot.until(lambda: robot.watcher.bridge.get("outcome") == outcome, "the bridge's status says so")
    robot.until(lambda: robot.watcher.policy.get("outcome") == outcome, "the policy's status says so")
    robot.until(lambda: swaps_of(robot, new) == [outcome], "the store's history says so")
    if outcome == "refused":
        assert "SIGKILL" in report["reason"], report
        assert report["reason"] == robot.watcher.policy["outcome_reason"] == robot.watcher.bridge["reason"]
    if victim == "the policy":
        assert kill.came_back_with() == old
    assert not psutil.pid_exists(kill.pid)


def swaps_of(robot: Robot, label: str) -> list[str]:
    """How swaps to that model ended."""
    return [line["outcome"] for line in robot.store.history() if line["event"] == "swap" and line["label"] == label]
