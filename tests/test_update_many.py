"""Fifty updates in a row through the whole graph: each is accounted for, the arm never stands, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")
pytest.importorskip("awsiot")

from rclpy.qos import QoSProfile
from trajectory_msgs.msg import JointTrajectory
from update_robot import Greengrass, Robot, running_robot

from vla_ros import diagnostics, qos
from vla_ros.stamps import to_ns

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(900)]

UPDATES, WARMED_UP = 50, 10
"""After the first ten, memory that grows is a leak."""
GROWTH_BYTES = 8 << 20
"""Over forty updates: 200 KiB each, which one forgotten picture, model or session would exceed."""
SPARE_DESCRIPTORS = SPARE_THREADS = 4
POLICY = {
    "probation_s": 0.0,
    "request_period_s": 0.1,
    "max_image_age_s": 2.0,
    "max_state_age_s": 2.0,
    "max_chunk_age_s": 5.0,
}
"""Five chunks prove a model good within half a second. A busy machine must not look like a fault."""
OPEN_LOOP_S = 1.8


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    with running_robot(tmp_path, tmp_path / "store", policy=POLICY, open_loop_s=OPEN_LOOP_S) as robot:
        yield robot


class Use:
    """What the bridge and the policy have of memory, descriptors and threads."""

    def __init__(self, robot: Robot, greengrass: Greengrass) -> None:
        pids = {"bridge": greengrass.pid(), "policy": robot.graph.pid_of("policy")}
        self.processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.bytes = {name: process.memory_info().rss for name, process in self.processes.items()}
        self.descriptors = {name: process.num_fds() for name, process in self.processes.items()}
        self.threads = {name: process.num_threads() for name, process in self.processes.items()}

    def check(self, since: Use) -> None:
        for name in self.processes:
            assert self.processes[name] == since.processes[name], f"the {name} is another process"
            assert self.bytes[name] - since.bytes[name] < GROWTH_BYTES, (name, since.bytes, self.bytes)
            assert self.descriptors[name] - since.descriptors[name] <= SPARE_DESCRIPTORS, name
            assert self.threads[name] - since.threads[name] <= SPARE_THREADS, name


def test_fifty_in_a_row_without_a_gap_and_with_nothing_left_behind(robot: Robot) -> None:
    models = [robot.model(), robot.model(prompt="the other way round")]
    labels = ["pick@1", "pick@2"]
    commanded = Commanded(robot)
    with robot.nucleus("lite") as greengrass:
        for number in range(UPDATES):
            greengrass.deploy(f"file:{models[number % 2]}")
            robot.until(lambda count=number + 1: len(greengrass.reports) >= count, f"the report on update {number}")
            if number + 1 == WARMED_UP:
                before = Use(robot, greengrass)
        Use(robot, greengrass).check(before)
        reports = greengrass.reports
        assert [report["outcome"] for report in reports] == ["succeeded"] * UPDATES, reports[-1]
        assert [report["model"] for report in reports] == labels * (UPDATES // 2)
        assert len({report["request_id"] for report in reports}) == UPDATES
        assert [report["running"] for report in reports] == labels * (UPDATES // 2)
        robot.until(lambda: robot.watcher.bridge.get("reports_waiting") == "0", "all reports are delivered")
        check_history(robot, [report["request_id"] for report in reports])
        robot.until_current()
        state = robot.store.state()
        assert (state.current, state.last_good, state.refused) == (labels[1], labels[1], {})
        commanded.check(robot)
        check_nothing_is_left(robot)


def check_history(robot: Robot, request_ids: list[str]) -> None:
    """The store's audit trail has each update once, as the policy swapped it and as the bridge told it."""

    def of(event: str) -> list[dict[str, object]]:
        return [line for line in robot.store.history() if line["event"] == event]

    robot.until(lambda: len(of("swap")) >= UPDATES, "the last swap is written down")
    for event in ("swap", "update"):
        lines = of(event)
        assert [line["outcome"] for line in lines] == ["succeeded"] * UPDATES, event
        assert [line["request_id"] for line in lines] == request_ids, event


class Commanded:
    """The trajectories that the driver gets, end to end."""

    def __init__(self, robot: Robot) -> None:
        self.gaps_s: list[float] = []
        self.count = 0
        self._end_ns: int | None = None
        depth = QoSProfile(depth=1000, reliability=qos.TRAJECTORY.reliability)
        robot.watcher.listen(JointTrajectory, "arm_controller/joint_trajectory", self._heard, depth)
        robot.until(lambda: {"arm_controller: state", "policy: chunks"} <= robot.watcher.statuses.keys(), "diagnoses")
        self._before = self._counts(robot)

    @staticmethod
    def _counts(robot: Robot) -> tuple[str, str]:
        """Times that the arm waited for the policy, and trajectories that its driver rejected."""
        policy, driver = (
            diagnostics.values(robot.watcher.statuses[name]) for name in ("policy: chunks", "arm_controller: state")
        )
        return policy["gaps"], driver["rejected"]

    def _heard(self, message: JointTrajectory) -> None:
        start_ns, end_ns = (
            to_ns(message.header.stamp) + to_ns(message.points[index].time_from_start) for index in (0, -1)
        )
        if self._end_ns is not None and start_ns > self._end_ns:
            self.gaps_s.append((start_ns - self._end_ns) / 1e9)
        self._end_ns = end_ns
        self.count += 1

    def check(self, robot: Robot) -> None:
        """Each began before the one before had ended, none was rejected, and nobody spoke of a hold."""
        assert self.count > UPDATES
        assert self.gaps_s == []
        assert self._counts(robot) == self._before
        text = robot.graph.text().partition("driving pick@1")[2]
        assert text
        assert "holding" not in text, text


def check_nothing_is_left(robot: Robot) -> None:
    """One server with its socket, two models and the seed, no staging folder, nothing to deliver."""
    (server,) = robot.servers()
    sockets = [path.name for path in (robot.folder / "run").glob("policy-*.sock")]
    assert len(sockets) == 1, sockets
    assert any(sockets[0] in word for word in server.cmdline())
    assert list((robot.store.root / "staging").iterdir()) == []
    assert set(robot.store.labels()) == {"pick@seed", "pick@1", "pick@2"}
    zombies = [child for child in robot.graph.children() if child.status() == psutil.STATUS_ZOMBIE]
    assert zombies == []
