"""Pacing, scheduling and a hand's paths, with time passed in."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path as FilePath

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim.drawing import CameraState, Schedule
from vla_sim.hand import OVERTRAVEL_RAD, Path, pose_with, reach, sweep
from vla_sim.realtime import Pacer, RateMeter, RealTimeMeter
from vla_sim.scene import JOINTS, joint_limits
from vla_sim.servo_map import calibration, position_limits, to_rad, to_ticks

MS = 1_000_000
STEP_NS = 2 * MS
WATCH_ALL = {"a": 1, "b": 1, "c": 1}


def test_the_pacer_asks_for_the_steps_that_are_due() -> None:
    pacer = Pacer(STEP_NS, 0)
    assert pacer.due(3 * MS) == 1
    assert pacer.wait_ns(3 * MS, 2) == 1 * MS
    assert pacer.due(9 * MS) == 4
    pacer.took(4)
    assert pacer.due(9 * MS) == 0
    assert pacer.behind_ns(9 * MS) == 1 * MS


def test_the_pacer_gives_up_what_is_too_late_and_says_so() -> None:
    pacer = Pacer(STEP_NS, 0)
    assert pacer.due(2000 * MS) == 0
    assert pacer.lost_ns == 2000 * MS
    assert pacer.due(2004 * MS) == 2


def test_the_real_time_factor_forgets_only_in_its_window() -> None:
    meter = RealTimeMeter(0)
    assert meter.recent == 1.0
    for tick in range(1, 101):  # 10 s at half speed
        meter.add(tick * 100 * MS, tick * 50 * MS)
    assert meter.recent == pytest.approx(0.5)
    for tick in range(1, 101):  # 10 s at full speed
        meter.add(10_000 * MS + tick * 100 * MS, 5_000 * MS + tick * 100 * MS)
    assert meter.recent == pytest.approx(1.0)
    assert meter.total == pytest.approx(0.75)


def test_the_rate_meter_counts_the_last_seconds() -> None:
    rate = RateMeter()
    for tick in range(100):
        rate.add(tick * 100 * MS)
    assert rate.per_s(9_900 * MS) == pytest.approx(10.0, rel=0.05)
    assert rate.per_s(60_000 * MS) == 0.0
    assert rate.count == 100


def run(schedule: Schedule, watched: dict[str, int], draw_ms: int, until_ms: int, start_ms: int = 0) -> Counter[str]:
    """Draw as fast as the schedule allows; what was drawn."""
    drawn: Counter[str] = Counter()
    now_ns = start_ms * MS
    while now_ns < until_ms * MS:
        camera = schedule.pick(now_ns, watched)
        if camera is None:
            now_ns += max(MS // 4, schedule.wait_ns(now_ns, watched))
            continue
        schedule.drew(camera, now_ns)
        drawn[camera] += 1
        now_ns += draw_ms * MS
    return drawn


def test_cameras_get_their_rate_and_nothing_is_shed() -> None:
    schedule = Schedule(WATCH_ALL, 10.0, 0)
    assert set(run(schedule, WATCH_ALL, 5, 2000).values()) == {20}
    assert all(report["shed"] == 0 for report in schedule.report(2000 * MS).values())


def test_overload_slows_all_cameras_alike() -> None:
    """Three cameras at 10 fps want 30 pictures a second; 50 ms each leave 20."""
    schedule = Schedule(WATCH_ALL, 10.0, 0)
    drawn = run(schedule, WATCH_ALL, 50, 10_000)
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert sum(drawn.values()) == 200
    for name, report in schedule.report(10_000 * MS).items():
        assert drawn[name] + int(report["shed"]) == pytest.approx(100, abs=2)


def test_only_watched_cameras_are_drawn_and_a_late_viewer_owes_nothing() -> None:
    schedule = Schedule(WATCH_ALL, 10.0, 0)
    assert set(run(schedule, {"b": 1}, 1, 1000)) == {"b"}
    run(schedule, WATCH_ALL, 1, 2000, start_ms=1000)
    assert all(report["shed"] == 0 for report in schedule.report(2000 * MS).values())


@pytest.mark.parametrize(("state", "drawn"), [(CameraState.STALLED, False), (CameraState.DROPPED, False)])
def test_broken_cameras_are_not_drawn(state: CameraState, drawn: bool) -> None:
    schedule = Schedule(WATCH_ALL, 10.0, 0)
    schedule.set_state("a", state)
    assert ("a" in run(schedule, WATCH_ALL, 1, 1000)) is drawn
    schedule.set_state("a", CameraState.OK)
    assert "a" in run(schedule, WATCH_ALL, 1, 2000, start_ms=1000)


def test_a_reach_is_straight_and_stays() -> None:
    path = reach(np.zeros(6), np.ones(6), 2.0)
    assert path.at(1.0) == pytest.approx(np.full(6, 0.5))
    assert path.at(9.0) == pytest.approx(np.ones(6))


def test_a_sweep_visits_both_stops_of_each_joint_and_returns() -> None:
    start = np.full(6, 0.1)
    path = sweep(start, ["elbow_flex", "gripper"], 2.0)
    assert path.duration_s == pytest.approx(4.0)
    poses = np.array([path.at(t) for t in np.linspace(0, 4.0, 401)])
    for index, name in enumerate(JOINTS):
        limit = joint_limits()[index]
        if name in {"elbow_flex", "gripper"}:
            assert poses[:, index].min() == pytest.approx(limit.lower_rad - OVERTRAVEL_RAD, abs=0.05)
            assert poses[:, index].max() == pytest.approx(limit.upper_rad + OVERTRAVEL_RAD, abs=0.05)
        else:
            assert np.ptp(poses[:, index]) == 0.0
    assert poses[-1] == pytest.approx(start)


def test_impossible_paths_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most"):
        reach(np.zeros(6), np.ones(6), 500.0)
    with pytest.raises(ConfigError, match="rising"):
        Path(np.array([0.0, 0.0]), np.zeros((2, 6)))
    with pytest.raises(ConfigError, match="no joint 'elbow'"):
        pose_with({"elbow": 1.0}, np.zeros(6))


def test_ticks_and_angles() -> None:
    assert to_ticks([0, 0, 0, 0, 0, 0.785398]) == pytest.approx(np.full(6, 2048.0))
    assert to_rad(to_ticks(np.linspace(-1, 1, 6))) == pytest.approx(np.linspace(-1, 1, 6))


def test_every_joint_can_reach_its_limits_within_its_ticks() -> None:
    low, high = np.array(position_limits(), float).T
    assert low + high == pytest.approx(np.full(6, 4096.0))
    lower, upper = to_rad(low), to_rad(high)
    for index, limit in enumerate(joint_limits()):
        assert lower[index] <= limit.lower_rad
        assert upper[index] >= limit.upper_rad


def test_the_shipped_calibration_is_that_of_the_simulated_arm() -> None:
    shipped = FilePath(__file__).parents[3] / "launch" / "config" / "so101_sim_calibration.json"
    assert json.loads(shipped.read_text()) == calibration()
