from __future__ import annotations

import numpy as np
import pytest
from policy_logic import MONO0, S

from vla_core.chunk import Plan
from vla_core.joints import SO101_JOINTS
from vla_policy.following import AWAY_RAD, Following, Path

MS = 1_000_000


def asked(count: int, timeout_s: float = 1.0) -> Following:
    """`count` trajectories, 0.4 s apart."""
    following = Following(timeout_s)
    for index in range(count):
        following.published(index, MONO0 + index * 400 * MS)
    return following


class TestReports:
    def test_three_trajectories_without_a_report_are_not_followed(self):
        following = asked(3)
        assert not following.is_lost((), MONO0 + 900 * MS)
        assert following.is_lost((), MONO0 + 1100 * MS)

    def test_two_may_have_been_overtaken(self):
        assert not asked(2).is_lost((), MONO0 + 100 * S)

    def test_one_report_answers_for_all_before_it(self):
        following = asked(4)
        assert not following.is_lost((2,), MONO0 + 10 * S)
        following.published(4, MONO0 + 10 * S)
        assert not following.is_lost((), MONO0 + 11 * S)
        following.published(5, MONO0 + 11 * S)
        assert following.is_lost((2,), MONO0 + 12 * S)
        assert not following.is_lost((2, 5), MONO0 + 12 * S)

    def test_other_nodes_trajectories_do_not_count(self):
        assert asked(3).is_lost((77, 78), MONO0 + 2 * S)

    def test_a_driver_that_never_reports_is_believed(self):
        assert not asked(9, timeout_s=0).is_lost((), MONO0 + 100 * S)


def plan(rad_s: float = 0.0, start_s: float = 0.0) -> Plan:
    """A second of motion from wherever `rad_s` has brought the joints by then."""
    times_ns = round(start_s * S) + 100 * MS * np.arange(11)
    return Plan(MONO0, MONO0 + times_ns, rad_s * times_ns[:, None] / S * np.ones(6))


def path(*plans: Plan) -> Path:
    path = Path()
    for last, each in zip((None, *plans), plans, strict=False):
        path.follow(last, each)
    return path


class TestPosition:
    @pytest.mark.parametrize(("offset", "left"), [(0.0, False), (0.2, False), (0.3, True), (-0.3, True)])
    def test_of_an_arm_at_rest(self, offset: float, left: bool):
        state = np.zeros(6)
        state[1] = offset
        assert path(plan()).is_left(SO101_JOINTS, state, MONO0 + S) is left

    @pytest.mark.parametrize(
        "plans", [(plan(3.0),), (plan(3.0), plan(3.0, 0.6)), tuple(plan(3.0, k / 10) for k in range(9))]
    )
    def test_a_fast_arm_may_lag_but_not_lead(self, plans: tuple[Plan, ...]):
        state = np.full(6, 1.5)
        now_ns = MONO0 + 800 * MS  # commanded: 2.4 rad, 0.3 s ago 1.5 rad
        commanded = path(*plans)
        assert not commanded.is_left(SO101_JOINTS, state, now_ns)
        assert not commanded.is_left(SO101_JOINTS, state + 0.9, now_ns)
        assert commanded.is_left(SO101_JOINTS, state - AWAY_RAD - 0.05, now_ns)
        assert commanded.is_left(SO101_JOINTS, state + 0.9 + AWAY_RAD + 0.05, now_ns)

    def test_a_gripper_is_stopped_by_what_it_holds(self):
        state = np.zeros(6)
        state[5] = 0.8
        assert not path(plan()).is_left(SO101_JOINTS, state, MONO0 + S)

    def test_an_answer_that_was_under_way_when_a_plan_began_is_judged_by_the_plan_before(self):
        both = path(plan(0.0), plan(0.0, 0.5))
        assert both.is_left(SO101_JOINTS, np.ones(6), MONO0 + S // 2 - 1)

    def test_until_the_first_setpoint_the_driver_decides(self):
        assert not Path().is_left(SO101_JOINTS, np.ones(6), MONO0)
        assert not path(plan()).is_left(SO101_JOINTS, np.ones(6), MONO0 - 1)
        anew = path(plan())
        anew.follow(None, plan(0.0, 2.0))
        assert not anew.is_left(SO101_JOINTS, np.ones(6), MONO0 + S)
