"""A policy that looks back is shown what happens between its chunks; one that does not, is not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.errors import ConfigError
from vla_policy.feeding import Feeder

MS = 1_000_000
PERIOD_MS = 100


def feeder(n_obs_steps: int = 2) -> Feeder:
    return Feeder(n_obs_steps, PERIOD_MS / 1e3)


def test_one_that_sees_the_present_only_is_never_fed() -> None:
    made = feeder(1)
    made.shown(1000 * MS)
    assert made.wake_ns(5000 * MS) == 5000 * MS


def test_the_next_observation_is_due_a_period_after_the_last() -> None:
    made = feeder()
    made.shown(1000 * MS)
    assert made.wake_ns(5000 * MS) == 1100 * MS


@pytest.mark.parametrize(("due_ms", "wake_ms"), [(1100, 1100), (1149, 1149), (1151, 1100), (900, 900)])
def test_a_request_that_is_close_is_itself_the_next_observation(due_ms: int, wake_ms: int) -> None:
    made = feeder()
    made.shown(1000 * MS)
    assert made.wake_ns(due_ms * MS) == wake_ms * MS


def test_a_picture_is_shown_once_and_looked_for_again_soon() -> None:
    made = feeder()
    made.shown(1000 * MS)
    assert not made.is_news(1000 * MS)
    assert made.is_news(1001 * MS)
    made.put_off(1100 * MS)
    assert made.wake_ns(5000 * MS) == 1125 * MS


@given(st.lists(st.integers(5, 70), min_size=30, max_size=60))
def test_pictures_at_any_pace_make_a_history_without_gaps(gaps_ms: list[int]) -> None:
    """Shown stamps lie at most a period and a half apart, as the server's history needs, if the camera is that fast."""
    made, now, stamp, shown = feeder(), 1000, 1000, [1000]
    made.shown(1000 * MS)
    arrivals = [1000 + sum(gaps_ms[: k + 1]) for k in range(len(gaps_ms))]
    while (wake := made.wake_ns(10**6 * MS) // MS) <= arrivals[-1]:
        now = max(now + 1, wake)
        stamp = max((arrival for arrival in arrivals if arrival <= now), default=stamp)
        if made.is_news(stamp * MS):
            made.shown(stamp * MS)
            shown.append(stamp)
        else:
            made.put_off(now * MS)
    assert all(0 < after - before <= 1.7 * PERIOD_MS for before, after in pairwise(shown))


def test_no_period_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        Feeder(2, 0.0)
