"""Swaps of the node `/policy` as a process, where something goes wrong at the wrong moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import test_policy_node as base
from sensor_msgs.msg import CompressedImage
from test_policy_node import Robot, StartPolicy, robot, start_policy  # noqa: F401  fixtures
from test_policy_swap_node import Swapping

from vla_core.swap import Mode, Outcome, Stage
from vla_ros import qos
from vla_ros.stamps import to_msg

pytestmark = [pytest.mark.ros, pytest.mark.timeout(900)]

LOADING = 30
"""Products of matrices when a model is loaded: seconds, in which its server can be killed."""


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """Nothing meets the nodes of a test run beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DOMAIN", "57")
        yield


@pytest.fixture
def swapping(tmp_path: Path, robot: Robot, start_policy: StartPolicy) -> Iterator[Swapping]:  # noqa: F811
    swapping = Swapping(tmp_path, robot, start_policy)
    yield swapping
    swapping.close()


def film(robot: Robot, camera: str) -> None:  # noqa: F811
    """Another camera beside the robot's own."""
    publisher = robot.node.create_publisher(CompressedImage, f"camera/{camera}/image_raw/compressed", qos.CAMERA_PUB)

    def shoot() -> None:
        message = CompressedImage(format="jpeg", data=robot.jpeg)
        message.header.stamp = to_msg(time.time_ns())
        publisher.publish(message)

    robot.node.create_timer(base.FRAME_PERIOD_S, shoot)


def test_going_back_to_a_model_that_sees_through_other_cameras(swapping: Swapping):
    """The old model's cameras were let go of when the new one began to drive, and never listened to again: after a
    rollback the arm held for ever."""
    film(swapping.robot, "overhead")
    good, other = swapping.add("1"), swapping.add("2", camera="overhead")
    swapping.run(str(swapping.folder / "1"), probation_s=600.0, max_image_age_s=1.0)
    old = swapping.wait_one_server()
    request_id = swapping.ask(other)
    swapping.wait_stage(request_id, Stage.PROBATION)
    until = time.monotonic() + 1.5  # the old model's last picture must be too old to act on

    swapping.robot.wait("old pictures to be stale", lambda: time.monotonic() > until, swapping.policy)
    next(server for server in swapping.policy.servers() if server.pid != old.pid).kill()
    answer = swapping.wait_answer(request_id)
    assert answer.outcome is Outcome.ROLLED_BACK, answer
    swapping.robot.wait("the old model", lambda: swapping.robot.values["active_model"] == good, swapping.policy)
    for _ in range(3):
        swapping.wait_chunk()
    assert swapping.robot.values["state"] == "driving"


def test_what_was_refused_is_not_taken_up_by_the_next_start(swapping: Swapping):
    """With nothing loaded the parameter went on to name the refused model, and a start loaded just that, unverified."""
    good, other = swapping.add("1"), swapping.add("2")
    (swapping.store.folder(other) / "notes.txt").write_text("not in the manifest")
    seed = str(swapping.folder / "1")
    swapping.run(seed, until="unconfigured", autostart=False)
    answer = swapping.swap(other)
    assert answer.outcome is Outcome.REFUSED, answer
    swapping.robot.wait("the parameter", lambda: swapping.robot.get("model") == seed, swapping.policy)
    assert swapping.robot.trigger("policy/start").success
    swapping.robot.wait_state("driving", swapping.policy)
    assert swapping.robot.values["active_model"] == good


def test_a_start_that_failed_once_is_tried_again_with_the_store_s_model(swapping: Swapping):
    """The second attempt took the launch file's folder for a model of the store, or its label for the one to run: the
    arm stayed still, or went back behind an update."""
    seed, update = swapping.add("1"), swapping.add("2", loading=LOADING)
    swapping.store.set_current(update)
    swapping.run(seed, until="")  # it is told that it loads, but perhaps before this process listens
    swapping.robot.wait("a server", swapping.policy.servers, swapping.policy)
    (first,) = swapping.policy.servers()
    first.kill()
    swapping.robot.wait_state("driving", swapping.policy)
    assert "the policy server was ended by SIGKILL" in swapping.policy.text.partition("driving")[0]
    assert swapping.wait_one_server().pid != first.pid
    assert swapping.robot.values["active_model"] == update
    assert swapping.robot.get("model") == update


def test_a_restart_says_that_the_arm_holds_and_a_refused_one_leaves_the_seed_watched(swapping: Swapping):
    """The status said «driving» while nothing did; and a model that had not proved good yet was no longer watched."""
    good, other = swapping.add("1"), swapping.add("2", horizon=30)  # its server refuses it
    swapping.run(str(swapping.folder / "1"), probation_s=6.0)
    said = len(swapping.statuses)
    answer = swapping.swap(other, mode=Mode.RESTART)
    assert answer.outcome is Outcome.REFUSED, answer
    loading = [status for status in swapping.statuses[said:] if status.stage is Stage.START]
    assert loading[-1].state == "holding", loading
    assert loading[-1].hold_reason == f"{good} gives way to {other}"
    swapping.robot.wait_state("driving", swapping.policy)
    swapping.robot.wait("the seed to prove good", lambda: swapping.store.state().last_good == good, swapping.policy)
