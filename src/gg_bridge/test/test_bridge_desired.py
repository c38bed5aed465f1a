"""The quiet time before the configuration is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gg_bridge.desired import MAX_DELAY_FACTOR, QuietTime


def test_many_events_make_one_reading() -> None:
    quiet = QuietTime(1.0)
    assert not quiet.take(0.0)
    for now_s in (0.0, 0.3, 0.9):
        quiet.event(now_s)
    assert not quiet.take(1.8)
    assert quiet.due_s == 1.9
    assert quiet.take(1.9)
    assert not quiet.take(100.0)


def test_after_connecting_it_is_read_at_once() -> None:
    quiet = QuietTime(1.0)
    quiet.event(0.0)
    quiet.at_once(0.1)
    assert quiet.take(0.1)
    assert quiet.due_s is None


def test_a_reading_that_failed_is_made_again() -> None:
    quiet = QuietTime(1.0)
    quiet.again(10.0, 5.0)
    assert not quiet.take(14.9)
    assert quiet.take(15.0)


@given(st.lists(st.floats(0.0, 0.99), min_size=1, max_size=200))
def test_events_that_never_cease_cannot_put_it_off_for_ever(gaps_s: list[float]) -> None:
    quiet, now_s, waiting_since_s = QuietTime(1.0), 0.0, 0.0
    quiet.event(now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        if quiet.take(now_s):
            waiting_since_s = now_s
        assert now_s - waiting_since_s < MAX_DELAY_FACTOR + 1.0
        quiet.event(now_s)
    assert quiet.take(now_s + 1.0)
