"""Gaps in what an arm was sent, and periods of its servos."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.errors import ConfigError
from vla_core.setpoints import Commanded, Span, gaps, longest_ns, periods_ns, total_ns


def test_no_trajectory_is_a_gap_from_end_to_end() -> None:
    assert gaps([], Span(10, 30)) == [Span(10, 30)]
    assert gaps([], Span(10, 10)) == []


def test_trajectories_that_overlap_leave_no_gap() -> None:
    commands = [Commanded(0, 50), Commanded(40, 90), Commanded(80, 130)]
    assert gaps(commands, Span(0, 130)) == []


def test_a_trajectory_that_comes_late_leaves_the_time_between() -> None:
    assert gaps([Commanded(0, 50), Commanded(70, 120)], Span(0, 120)) == [Span(50, 70)]


def test_before_the_first_and_after_the_last_there_is_no_setpoint() -> None:
    assert gaps([Commanded(20, 50)], Span(0, 60)) == [Span(0, 20), Span(50, 60)]


def test_gaps_are_clipped_to_the_window() -> None:
    commands = [Commanded(0, 10), Commanded(40, 100)]
    assert gaps(commands, Span(20, 30)) == [Span(20, 30)]
    assert gaps(commands, Span(30, 60)) == [Span(30, 40)]


def test_the_newest_replaces_one_that_would_have_lasted_longer() -> None:
    assert gaps([Commanded(0, 100), Commanded(10, 20)], Span(0, 50)) == [Span(20, 50)]


def test_a_trajectory_that_was_over_when_it_came_is_none() -> None:
    assert gaps([Commanded(0, 10), Commanded(30, 20), Commanded(40, 60)], Span(0, 60)) == [Span(10, 30), Span(30, 40)]


def test_order_does_not_matter() -> None:
    assert gaps([Commanded(70, 120), Commanded(0, 50)], Span(0, 120)) == [Span(50, 70)]


def test_sums() -> None:
    spans = [Span(0, 5), Span(10, 30)]
    assert (total_ns(spans), longest_ns(spans)) == (25, 20)
    assert (total_ns([]), longest_ns([])) == (0, 0)


def test_a_span_does_not_run_backwards() -> None:
    with pytest.raises(ConfigError, match="before it begins"):
        Span(2, 1)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=12),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_gaps_are_the_moments_at_which_the_newest_trajectory_is_over(
    raw: list[tuple[int, int]], begin_ns: int, length_ns: int
) -> None:
    commands = sorted(
        {at_ns: Commanded(at_ns, at_ns + length) for at_ns, length in raw}.values(), key=lambda c: c.at_ns
    )
    window = Span(begin_ns, begin_ns + length_ns)
    found = gaps(commands, window)
    for moment_ns in range(window.begin_ns, window.end_ns):
        came = [command for command in commands if command.at_ns <= moment_ns]
        has_setpoint = bool(came) and moment_ns < came[-1].end_ns
        assert any(gap.begin_ns <= moment_ns < gap.end_ns for gap in found) is not has_setpoint


def test_periods_between_writes() -> None:
    assert periods_ns([5, 10, 20, 25], Span(10, 25)) == [0, 10, 5, 0]


def test_a_write_that_never_came_makes_a_long_period() -> None:
    assert max(periods_ns([0, 10, 20], Span(0, 100))) == 80
    assert max(periods_ns([90, 100], Span(0, 100))) == 90
    assert periods_ns([], Span(0, 100)) == [100]
