"""The node `/policy` as a process, with a model that listens: a real server, a real encoder, real messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

import test_policy_node as base
from std_msgs.msg import String
from test_policy_node import Robot, healthy_robot, robot, start_policy  # noqa: F401  fixtures
from tiny_prompts import TURN_RAD, write_prompted

from vla_ros import diagnostics

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """Nothing meets the nodes of a test run beside this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "DOMAIN", "57")
        yield


def pan_is_sent_to(robot: Robot, value: float) -> bool:  # noqa: F811
    last = robot.trajectories[-1]
    return abs(last.points[-1].positions[last.joint_names.index("shoulder_pan")] - value) < 0.03


def test_prompts_in_the_graph(robot: Robot, tmp_path: Path, run_folder: Path, start_policy) -> None:  # noqa: F811
    """Another prompt takes effect, an unclear one holds with a reason, a clear one resumes."""
    home = np.full(6, 0.25)
    policy = start_policy(write_prompted(tmp_path / "tiny", home=home), autostart=True)
    robot.wait_state("driving", policy)
    robot.wait("the model's own prompt", lambda: robot.values["prompt_target"] == "black", policy)
    assert robot.values["prompt_phrase"] == "pick the black cube"
    assert float(robot.values["prompt_similarity"]) == pytest.approx(1.0, abs=0.01)
    robot.wait("a listener", lambda: robot.prompts.get_subscription_count() == 1, policy)

    robot.prompts.publish(String(data="the pale cube"))
    robot.wait("white", lambda: robot.values["prompt_target"] == "white", policy)
    robot.wait("the other way", lambda: pan_is_sent_to(robot, 0.25 + TURN_RAD["white"]), policy)
    assert robot.values["prompt"] == "the pale cube"
    robot.wait("its latency", lambda: any("prompt_ms" in diagnostics.values(s) for s in robot.latencies), policy)

    robot.status = None
    robot.prompts.publish(String(data="the pale cube"))  # said again, and still told what it is taken for
    robot.wait("white again", lambda: robot.values.get("prompt_target") == "white", policy)

    robot.prompts.publish(String(data="sing a song"))
    robot.wait_state("holding", policy)
    assert "'sing a song' asks for nothing known" in robot.values["reason"]
    assert (robot.values["prompt_target"], robot.values["prompt_phrase"]) == ("", "sing a song")

    robot.prompts.publish(String(data="the dark cube"))
    robot.wait_state("driving", policy)
    robot.wait("back", lambda: pan_is_sent_to(robot, 0.25), policy)
    assert policy.stop() == 0, policy.text


def test_a_model_that_does_not_listen_says_so(robot: Robot, model: Path, run_folder: Path, start_policy) -> None:  # noqa: F811
    policy = start_policy(model, autostart=True)
    robot.wait_state("driving", policy)
    assert robot.values["prompt_note"] == ""
    robot.wait("a listener", lambda: robot.prompts.get_subscription_count() == 1, policy)
    robot.prompts.publish(String(data="put the white cube on the spot"))
    robot.wait("a note", lambda: "does not listen to prompts" in robot.values["prompt_note"], policy)
    assert robot.values["state"] == "driving", "it goes on with what it was trained for"
