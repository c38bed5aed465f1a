"""When a deployment has to wait."""

from __future__ import annotations

import math

from gg_bridge.deferral import ASK_AGAIN_S, STALE_S, STILL_S, Deferral, Motion


def test_an_arm_that_moved_lately_moves() -> None:
    motion = Motion()
    motion.joints([0.0, 0.4], 10.0)
    assert motion.reason(10.0) == "the arm moves"
    motion.joints([0.0, 0.001], 10.5)
    assert motion.reason(10.5) == "the arm moves"
    motion.joints([0.0, 0.0], 10.0 + STILL_S)
    assert motion.reason(10.0 + STILL_S) == ""


def test_nonsense_counts_as_motion_and_no_velocities_as_nothing() -> None:
    motion = Motion()
    motion.joints([math.nan], 1.0)
    assert motion.reason(1.0)
    assert not Motion().reason(0.0)
    silent = Motion()
    silent.joints([], 1.0)
    silent.policy(driving=True)
    assert "no joint state" in silent.reason(1.0)


def test_without_fresh_joint_states_the_policy_tells() -> None:
    motion = Motion()
    motion.joints([0.0], 1.0)
    motion.policy(driving=True)
    assert motion.reason(1.0) == ""
    assert "no joint state" in motion.reason(1.1 + STALE_S)
    motion.policy(driving=False)
    assert motion.reason(1.1 + STALE_S) == ""


def test_a_deployment_waits_for_rest_but_not_for_ever() -> None:
    deferral = Deferral(limit_s=40.0)
    assert deferral.decide("d", "the arm moves", 0.0).defer_s == ASK_AGAIN_S
    assert deferral.decide("d", "the arm moves", 30.0).defer_s == 10.0
    late = deferral.decide("d", "the arm moves", 40.0)
    assert late.defer_s == 0.0
    assert "has waited 40 s" in late.reason
    assert deferral.decide("e", "the arm moves", 41.0).defer_s == ASK_AGAIN_S
    assert deferral.decide("e", "", 42.0).defer_s == 0.0


def test_the_same_deployment_again_after_it_went_on_has_its_full_time() -> None:
    deferral = Deferral(limit_s=40.0)
    deferral.decide("d", "the arm moves", 0.0)
    deferral.decide("d", "", 10.0)
    assert deferral.decide("d", "the arm moves", 39.0).defer_s == ASK_AGAIN_S


def test_a_limit_of_0_never_waits() -> None:
    assert Deferral(limit_s=0.0).decide("d", "the arm moves", 0.0).defer_s == 0.0
