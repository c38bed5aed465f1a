import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_driver.protection import (
    AlarmWatch,
    FollowRule,
    FollowWatch,
    HealthRule,
    Severity,
    SourceWatch,
    StallRule,
    StallWatch,
    health,
)
from vla_core.errors import ConfigError

S = 1_000_000_000
HEALTH = HealthRule(warn_c=55, error_c=65, min_v=6, max_v=13)


def test_a_stall_needs_load_and_distance_for_long_enough():
    watch = StallWatch([StallRule(0.8, 0.1, 1.0), StallRule(0.0, 0.1, 1.0)])
    pushing = ([0.9, 1.0], [0.2, 0.9])
    assert watch.update(0, *pushing) == ()
    assert watch.update(S - 1, *pushing) == ()
    assert watch.update(S, *pushing) == (0,), "the second joint is a gripper: never judged"


@pytest.mark.parametrize(("load", "error"), [(0.5, 0.2), (0.9, 0.05), (-0.5, -0.2)])
def test_a_pause_begins_the_count_again(load, error):
    watch = StallWatch([StallRule(0.8, 0.1, 1.0)])
    watch.update(0, [-0.9], [-0.2])
    watch.update(S // 2, [load], [error])
    assert watch.update(S, [-0.9], [-0.2]) == ()
    assert watch.update(2 * S, [-0.9], [-0.2]) == (0,)
    watch.reset()
    assert watch.update(3 * S, [-0.9], [-0.2]) == ()


def test_a_joint_without_load_is_found_by_its_distance_alone():
    """The stall watch wants load and distance, and a limp joint has no load: it was never noticed."""
    watch = FollowWatch(FollowRule(0.35, 0.5), [False, True])
    limp = ([0.0, 0.01], [0.4, -0.4])
    assert watch.update(0, *limp) == ()
    assert watch.update(S // 2 - 1, *limp) == ()
    assert watch.update(S // 2, *limp) == (0, 1)
    watch.reset()
    assert watch.update(S, *limp) == ()


def test_a_lag_a_droop_and_a_grip_are_no_loss():
    watch = FollowWatch(FollowRule(0.35, 0.5), [False, True])
    for now_ns in range(0, 5 * S, S // 10):
        assert watch.update(now_ns, [0.4, -0.2], [0.15, -0.9]) == ()
    watch.update(5 * S, [0.4, 0.0], [0.5, 0.0])
    watch.update(5 * S + S // 4, [0.4, 0.0], [0.2, 0.0])
    assert watch.update(5 * S + S // 2, [0.4, 0.0], [0.5, 0.0]) == (), "a pause begins the count again"


def test_an_alarm_must_last():
    watch = AlarmWatch(("a", "b"))
    assert watch.update(0, {"b": ("too hot",)}) == ()
    assert watch.update(S // 10, {}) == ()
    assert watch.update(S, {"b": ("too hot",)}) == ()
    assert watch.update(S + S // 5, {"b": ("too hot",)}) == (1,)


def test_heat_and_supply_are_reported_in_words():
    assert health(("a", "b"), (30, 40), (12, 12), HEALTH) == (Severity.OK, "")
    severity, text = health(("a", "b"), (56, 40), (12, 5.1), HEALTH)
    assert severity is Severity.WARN
    assert "a has 56 C" in text
    assert "b has 5.1 V, outside 6..13 V" in text
    assert health(("a",), (66,), (12,), HEALTH)[0] is Severity.ERROR


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StallRule(1.2, 0.1, 1.0), "stall load"),
        (lambda: StallRule(0.8, 0.0, 1.0), "stall error"),
        (lambda: FollowRule(0.0, 1.0), "following error"),
        (lambda: HealthRule(60, 50, 6, 13), "warn_temperature_c"),
        (lambda: HealthRule(50, 60, 13, 6), "min_voltage_v"),
        (lambda: SourceWatch(0.0), "window"),
    ],
)
def test_rules_are_checked(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def play(*heard, publishers=2, step_ns=S // 10):
    watch = SourceWatch(1.0)
    for k, number in enumerate(heard):
        watch.heard(k * step_ns, number, publishers)
    return watch.contested((len(heard) - 1) * step_ns)


def test_two_that_take_turns_compete():
    assert play(100, 1, 101, 2)
    assert play(100, 1, 101)
    assert play(5, 5, 6, 6), "started together"
    assert play(5, 6, 6, 7, 7), "one message apart"


def test_one_that_counts_on_does_not():
    assert not play(1, 2, 3, 4)
    assert not play(1, 2, 5, 6), "lost messages"


def test_mere_existence_is_no_competition():
    assert not play(7, 8, 9, publishers=3)


def test_a_successor_is_no_competitor():
    assert not play(100, 101, 102, 1, 2, 3)


def test_a_publisher_that_comes_back_after_a_while_is_no_competitor():
    """The demo brings the arm home, then the policy goes on: nobody commands at once."""
    watch = SourceWatch(1.0)
    watch.heard(0, 100, 2)
    watch.heard(S // 2, 1, 2)
    watch.heard(2 * S, 101, 2)
    assert not watch.contested(2 * S)


def test_the_quarrel_ends_when_one_falls_silent_or_goes():
    watch = SourceWatch(1.0)
    for k, number in enumerate((10, 1, 11, 2)):
        watch.heard(k * S // 10, number, 2)
    assert watch.contested(S)
    watch.heard(S, 12, 1)
    assert not watch.contested(S), "the other one is gone"
    for k, number in enumerate((10, 1, 11)):
        watch.heard(2 * S + k, number, 2)
    assert watch.contested(2 * S + 3)
    assert not watch.contested(4 * S)


def test_without_sequence_numbers_presence_has_to_do():
    watch = SourceWatch(1.0)
    watch.heard(0, None, 1)
    assert not watch.contested(0)
    watch.heard(1, None, 2)
    assert watch.contested(1)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=50))
def test_a_single_source_with_gaps_never_competes_with_itself(gaps):
    total, numbers = 0, []
    for gap in gaps:
        total += gap
        numbers.append(total)
    assert not play(*numbers)
