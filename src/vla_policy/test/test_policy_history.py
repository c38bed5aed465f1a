"""The observation history: by stamp, repeated where an episode begins, forgotten over gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.errors import ConfigError
from vla_policy.serving.history import NS_PER_S, TOLERANCE, History, Remembered

PERIOD_S = 0.1
MS = 1_000_000


def recall(stamps_ms: list[int], length: int = 3) -> Remembered[int]:
    history: History[int] = History(length, PERIOD_S)
    for stamp in stamps_ms:
        history.add(stamp * MS, stamp)
    return history.recall()


@pytest.mark.parametrize(
    ("stamps_ms", "steps", "seen"),
    [
        ([1000], (1000, 1000, 1000), 1),  # an episode begins: as LeRobot repeats its first observation
        ([1000, 1100], (1000, 1000, 1100), 2),
        ([1000, 1100, 1200], (1000, 1100, 1200), 3),
        ([1000, 1100, 1200, 1300], (1100, 1200, 1300), 3),
        ([1000, 1120, 1190], (1000, 1120, 1190), 3),  # a camera's jitter
        ([1000, 1050, 1100, 1150, 1200], (1000, 1100, 1200), 3),  # a client that sends twice a period
        ([1000, 1400], (1400, 1400, 1400), 1),  # nothing was seen a period ago: a new beginning
        ([1000, 1400, 1500], (1400, 1400, 1500), 2),
        ([1000, 1100, 1100], (1000, 1000, 1100), 2),  # the same picture asked about twice
        ([1000, 1100, 500], (500, 500, 500), 1),  # the clock was set back
    ],
)
def test_the_past_is_found_by_its_stamps(stamps_ms: list[int], steps: tuple[int, ...], seen: int) -> None:
    assert recall(stamps_ms) == Remembered(steps, seen)


def test_the_newest_of_two_with_one_stamp_counts() -> None:
    history: History[str] = History(2, PERIOD_S)
    history.add(5, "first")
    history.add(5, "second")
    assert history.recall().steps == ("second", "second")


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60), st.integers(1, 5))
def test_it_always_gives_as_many_as_the_policy_wants_and_no_two_seen_alike(stamps_ms: list[int], length: int) -> None:
    found = recall(stamps_ms, length)
    assert len(found.steps) == length
    assert found.steps[-1] == stamps_ms[-1]
    assert list(found.steps) == sorted(found.steps)
    seen = found.steps[length - found.seen :]
    assert len(set(seen)) == found.seen
    for back, stamp in enumerate(reversed(seen)):
        assert abs(stamps_ms[-1] - back * 100 - stamp) <= TOLERANCE * PERIOD_S * NS_PER_S / MS


def test_memory_stays_as_small_as_the_history() -> None:
    history: History[int] = History(2, PERIOD_S)
    for step in range(10_000):
        history.add(step * 10 * MS, step)
    assert len(history._kept) <= 16


@pytest.mark.parametrize(("steps", "period_s"), [(0, 0.1), (2, 0.0)])
def test_an_impossible_history_is_refused(steps: int, period_s: float) -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        History(steps, period_s)


def test_nothing_cannot_be_recalled() -> None:
    with pytest.raises(ConfigError, match="empty history"):
        History(1, 0.1).recall()
