"""Swaps in the whole running graph: the arm goes on, and whatever is killed, a good model drives afterwards.

As in the tests of faults, the simulated robot outlives the graph. Both models move two joints round the same circle for
ever, so that a gap shows as an arm that rests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from commands import Running
from test_faults import Robot, the_robot  # noqa: F401  a fixture
from tiny_models import write_model
from watch import WAIT_S

from vla_core.store import Store
from vla_core.swap import Outcome, Stage, SwapRequest, SwapStatus
from vla_ros.swap_client import SwapClient

pytestmark = [pytest.mark.ros, pytest.mark.sim, pytest.mark.timeout(900)]

OPEN_LOOP_S = 1.0
"""Longer than any hiccup of a loaded machine."""
LONG_PROBATION = """/**/policy:
  ros__parameters: {probation_s: 600.0, max_image_age_s: 1.0, observation_timeout_s: 60.0}
"""
SHORT_PROBATION = LONG_PROBATION.replace("600.0", "1.0")


class Swapper:
    """A robot that runs from a store, and somebody who asks it for models."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        folder = robot.commands.folder
        self.store = Store(folder / "store")
        folders = [write_model(folder / name, open_loop_s=OPEN_LOOP_S) for name in ("seed", "next")]
        self.seed, self.next = (self.store.adopt(folder) for folder in folders)
        self._model = folders[0]

    def start(self, config: str) -> Running:
        """Start the graph with the seed as the launch file's model."""
        file = self.robot.commands.folder / "policy.yaml"
        file.write_text(config)
        graph = self.robot.start(model=self._model, store=self.store.root, policy_config=file)
        self.heard: list[SwapStatus] = []
        self.client = SwapClient(self.robot.watcher._node, on_status=self.heard.append)
        self.robot.until_driving()
        return graph

    def ask(self, model: str, request_id: str) -> None:
        self.until(lambda: self.client.is_ready, "the policy listens")
        taken = self.client.request(SwapRequest(model, request_id))
        self.until(taken.done, "the request is taken")
        assert taken.result().successful, taken.result().reason

    def answer(self, request_id: str) -> SwapStatus:
        self.until(lambda: self.client.answer(request_id), f"the answer to {request_id}")
        return self.client.answer(request_id)

    def until_stage(self, request_id: str, stage: Stage) -> None:
        there = lambda: any((said.request_id, said.stage) == (request_id, stage) for said in self.heard)  # noqa: E731
        self.until(there, f"stage {stage} of {request_id}")

    def until(self, condition: object, what: str) -> None:
        self.robot.watcher.until(condition, what)

    def until_active(self, model: str) -> None:
        self.until(
            lambda: (
                (self.robot.watcher.policy.get("state"), self.robot.watcher.policy.get("active_model"))
                == ("driving", model)
            ),
            f"{model} drives",
        )
        assert self.robot.arm.moves(), self.robot.graph.text()

    def one_server(self) -> psutil.Process:
        self.until(lambda: len(self.robot.servers()) == 1, "one server")
        return self.robot.servers()[0]


@pytest.fixture(scope="module")
def swapper(the_robot: Robot) -> Iterator[Swapper]:  # noqa: F811
    return Swapper(the_robot)


def holds(text: str) -> list[str]:
    return [line for line in text.splitlines() if "holding:" in line]


def test_another_model_takes_over_while_the_arm_moves(swapper: Swapper) -> None:
    graph = swapper.start(SHORT_PROBATION)
    old, said = swapper.one_server(), len(graph.text())
    swapper.ask(swapper.next, "first")
    answer = swapper.answer("first")
    assert answer.outcome is Outcome.SUCCEEDED, answer
    swapper.until_active(swapper.next)
    assert swapper.one_server().pid != old.pid
    assert holds(graph.text()[said:]) == []
    state = swapper.store.state()
    assert (state.current, state.last_good) == (swapper.next, swapper.next)

    os.kill(graph.pid_of("policy"), signal.SIGKILL)
    swapper.robot.watcher.forget()
    assert swapper.robot.arm.holds()
    swapper.until_active(swapper.next)  # the launch file still says the seed


@pytest.mark.parametrize("stage", [Stage.START, Stage.PROBATION])
def test_a_policy_killed_in_the_middle_drives_a_good_model_again(swapper: Swapper, stage: Stage) -> None:
    swapper.store.set_current(swapper.seed)
    swapper.store.mark_good(swapper.seed)
    graph = swapper.start(LONG_PROBATION)
    swapper.ask(swapper.next, f"killed-{stage}")
    swapper.until_stage(f"killed-{stage}", stage)
    servers = swapper.robot.servers()
    os.kill(graph.pid_of("policy"), signal.SIGKILL)
    swapper.robot.watcher.forget()
    assert swapper.robot.arm.holds()
    swapper.until(lambda: swapper.robot.watcher.policy.get("state") == "driving", "the policy is back")
    assert swapper.robot.watcher.policy["active_model"] == swapper.store.state().current
    assert swapper.robot.arm.moves()
    assert swapper.store.state().last_good == swapper.seed
    swapper.one_server()
    assert not [server.pid for server in servers if server.is_running()], "servers end with their node"


def test_a_new_server_killed_on_probation_gives_way(swapper: Swapper) -> None:
    swapper.store.set_current(swapper.seed)
    graph = swapper.start(LONG_PROBATION)
    old, said = swapper.one_server(), len(graph.text())
    swapper.ask(swapper.next, "dies")
    swapper.until_stage("dies", Stage.PROBATION)
    (new,) = [server for server in swapper.robot.servers() if server.pid != old.pid]
    new.kill()
    answer = swapper.answer("dies")
    assert answer.outcome is Outcome.ROLLED_BACK, answer
    swapper.until_active(swapper.seed)
    assert swapper.one_server().pid == old.pid
    assert holds(graph.text()[said:]) == []
    swapper.until(lambda: swapper.store.state().current == swapper.seed, "the store says so")
    graph.process.send_signal(signal.SIGINT)
    assert graph.finish(WAIT_S) == 0, graph.text()
    assert graph.survivors() == []
