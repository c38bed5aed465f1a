"""`evergreen health`: what it takes for well, and what not."""

from __future__ import annotations

import pytest

from evergreen.health.judge import MODEL, ROBOT, Heard, judge, missing

DRIVING = {"state": "driving", "active_model": "white@1", "reason": "a picture was late"}


def robot(policy: dict[str, str] | None, *, joints: bool = True, beats: bool = True) -> Heard:
    return Heard(joints=joints, policy=policy, beats={"policy", "arm_controller"} if beats else {"arm_controller"})


def test_a_robot_that_drives_is_well_whatever_it_held_for_before() -> None:
    verdict = judge(ROBOT, robot(DRIVING), 1.0)
    assert verdict.healthy
    assert verdict.sentence == "policy driving, white@1"


@pytest.mark.parametrize("state", ["holding", "inactive", "configuring"])
def test_a_robot_that_waits_or_was_stopped_is_well(state: str) -> None:
    assert judge(ROBOT, robot({"state": state, "reason": "front is silent"}), 1.0).healthy


@pytest.mark.parametrize("state", ["unconfigured", "finalized"])
def test_a_policy_without_a_model_is_not_well(state: str) -> None:
    verdict = judge(ROBOT, robot({"state": state, "reason": "its hash is wrong"}), 1.0)
    assert not verdict.healthy
    assert "its hash is wrong" in verdict.sentence


@pytest.mark.parametrize(
    ("heard", "named"),
    [
        (robot(DRIVING, joints=False), "the arm"),
        (robot(None), "the policy"),
        (robot(DRIVING, beats=False), "the policy"),  # its status is latched: it may hang since long
        (Heard(), "the arm) and the policy"),
    ],
)
def test_what_is_not_heard_is_not_well_and_named(heard: Heard, named: str) -> None:
    assert missing(ROBOT, heard)
    verdict = judge(ROBOT, heard, 10.0)
    assert not verdict.healthy
    assert named in verdict.sentence
    assert "10 s" in verdict.sentence


@pytest.mark.parametrize(
    ("nucleus", "healthy"), [("connected", True), ("none", True), ("lost", False), ("connecting", False)]
)
def test_a_bridge_is_as_well_as_its_connection(nucleus: str, healthy: bool) -> None:
    heard = Heard(bridge={"nucleus": nucleus, "model": "white@1", "outcome": "refused"}, beats={"gg_bridge"})
    verdict = judge(MODEL, heard, 1.0)
    assert verdict.healthy is healthy
    assert "white@1 refused" in verdict.sentence


def test_a_silent_bridge_is_not_well() -> None:
    assert not judge(MODEL, Heard(bridge={"nucleus": "connected"}), 5.0).healthy
