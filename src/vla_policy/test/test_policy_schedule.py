from __future__ import annotations

import pytest
from policy_logic import S, at

from vla_core.errors import ConfigError
from vla_policy.clock import Moment
from vla_policy.schedule import MARGIN_S, Backoff, Rhythm, Turnaround


def test_asks_so_late_that_the_chunk_arrives_before_the_plan_ends():
    due_ns = Rhythm(open_loop_s=1.0).due_ns(asked_ns=0, plan_end_ns=10 * S, turnaround_s=0.2)
    assert due_ns == round((10 - 0.2 - MARGIN_S) * S)


def test_asks_at_once_where_a_turnaround_is_longer_than_a_plan():
    assert Rhythm(open_loop_s=0.5).due_ns(asked_ns=9 * S, plan_end_ns=10 * S, turnaround_s=3.0) < 9 * S


def test_a_faster_rhythm():
    assert Rhythm(open_loop_s=1.0, request_period_s=0.25).due_ns(S, 10 * S, 0.2) == round(1.25 * S)


@pytest.mark.parametrize("period_s", [-0.1, 1.1])
def test_a_rhythm_that_leaves_gaps_is_refused(period_s: float):
    with pytest.raises(ConfigError, match="request_period_s"):
        Rhythm(open_loop_s=1.0, request_period_s=period_s)


def test_turnaround_rises_at_once_and_falls_slowly():
    turnaround = Turnaround()
    turnaround.add(1.0)
    assert turnaround.seconds == 1.0
    turnaround.add(0.1)
    assert 0.5 < turnaround.seconds < 1.0
    for _ in range(100):
        turnaround.add(0.1)
    assert turnaround.seconds == pytest.approx(0.1, abs=0.01)


def test_backoff_doubles_up_to_its_longest():
    backoff = Backoff()
    pauses = [backoff.next_s() for _ in range(10)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == 5.0
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_moments_convert_between_the_clocks_and_see_steps():
    now = at(0)
    assert now.to_mono(now.system_ns - S) == now.mono_ns - S
    assert now.to_system(now.mono_ns - S) == now.system_ns - S
    assert at(100).step_since(now) == 0
    slewed = Moment(at(1).mono_ns, at(1).system_ns + 500_000)
    assert slewed.step_since(now) == 0
    stepped = Moment(at(1).mono_ns, at(1).system_ns - 3 * S)
    assert stepped.step_since(now) == -3 * S
