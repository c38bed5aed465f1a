from __future__ import annotations

import numpy as np
import pytest
from policy_logic import MONO0, SPEC, T0, at, frame, joints

from vla_core.latency import STAGES
from vla_policy.observe import AgeLimits, observe
from vla_policy.serving.client import Answer
from vla_policy.stages import TOTAL, ChunkTiming, Marks, Meter, account, flatten, verdict
from vla_policy.status import ChunkCounts, PolicyStatus

MS = 1_000_000
ACTIONS = np.zeros((2, 6))
MARKS = Marks(
    decode_ns=MONO0 + 20 * MS,
    asked_ns=MONO0 + 23 * MS,
    answered_ns=MONO0 + 40 * MS,
    commanded_ns=MONO0 + 42 * MS,
)


def snapshot(spec=SPEC):
    return observe(spec, {"front": frame(0)}, joints(0), at(0.02), AgeLimits(1, 1))


def test_stages_add_up_to_the_whole():
    answer = Answer(ACTIONS, round_trip_ms=17.0, timing={"infer_ms": 9.0})
    timing = account(snapshot(), answer, MARKS, T0, MONO0)
    assert timing.stages_ms == pytest.approx(
        {"capture": 4, "transport": 2, "decode": 3, "wait": 14, "infer": 9, "return": 8, "join": 2}
    )
    assert timing.total_ms == pytest.approx(42)
    assert timing.values()["age_ms"] == pytest.approx(42)
    assert timing.values()["stamp_ns"] == T0


@pytest.mark.parametrize(
    ("stamp_ms", "stages"),
    [
        (13, {"wait": 10, "infer": 9, "return": 8, "join": 2}),  # older than the request
        (25, {"wait": 0, "infer": 7, "return": 8, "join": 2}),  # looked at while the request was under way
        (38, {"wait": 0, "infer": 0, "return": 2, "join": 2}),
    ],
)
def test_a_policy_that_looked_for_itself_is_timed_from_what_it_saw(stamp_ms, stages):
    answer = Answer(ACTIONS, round_trip_ms=17.0, stamp_ns=T0 + stamp_ms * MS, timing={"infer_ms": 9.0})
    timing = account(snapshot(), answer, MARKS, answer.stamp_ns, MONO0 + stamp_ms * MS)
    assert timing.stages_ms == pytest.approx(stages)
    assert timing.total_ms == pytest.approx(42 - stamp_ms)


def test_a_policy_without_cameras_is_timed_from_the_joint_state():
    answer = Answer(ACTIONS, round_trip_ms=17.0, timing={"infer_ms": 9.0})
    timing = account(snapshot(SPEC.with_cameras()), answer, MARKS, T0, MONO0)
    assert timing.total_ms == pytest.approx(42)


def test_the_driver_s_total_closes_the_account():
    meter = Meter()
    meter.add(ChunkTiming(T0, {"infer": 30.0, "join": 2.0}))
    assert meter.add_report({"stamp_ns": str(T0), "total_ms": "37"}) == T0
    meter.add_report({"stamp_ns": str(T0), "total_ms": "99"})  # reported already
    meter.add_report({"stamp_ns": str(T0 + 1), "total_ms": "99"})  # somebody else's trajectory
    summaries = meter.summaries()
    assert set(summaries) == {*STAGES, TOTAL}
    assert (summaries[TOTAL].p50, summaries[TOTAL].n) == (37.0, 1)
    assert summaries["write"].p50 == pytest.approx(5.0)
    values = flatten(summaries)
    assert values["total_p99_ms"] == 37.0
    assert "capture_p50_ms" not in values
    assert values["chunks"] == 1


def test_chunks_that_the_driver_never_reports_are_forgotten():
    meter = Meter()
    for stamp in range(1000):
        meter.add(ChunkTiming(stamp, {"join": 1.0}))
    meter.add_report({"stamp_ns": "0", "total_ms": "5"})
    assert meter.summaries()[TOTAL].n == 0


@pytest.mark.parametrize("values", [{}, {"stamp_ns": "1"}, {"stamp_ns": "1", "total_ms": ""}, {"stamp_ns": "x"}])
def test_reports_that_are_none_are_ignored(values):
    meter = Meter()
    meter.add(ChunkTiming(1, {"join": 1.0}))
    assert meter.add_report(values) is None
    assert meter.summaries()[TOTAL].n == 0


def test_the_verdict():
    meter = Meter()
    assert verdict(meter.summaries()) == (True, "no chunk has reached the arm yet")
    meter.add(ChunkTiming(1, {"join": 1.0}))
    meter.add_report({"stamp_ns": "1", "total_ms": "60"})
    assert verdict(meter.summaries()) == (True, "60 ms at p50, 60 ms at p95, line 100 ms")
    meter.add(ChunkTiming(2, {"join": 1.0}))
    meter.add_report({"stamp_ns": "2", "total_ms": "160"})
    assert verdict(meter.summaries())[0] is False


def test_status_in_words():
    assert PolicyStatus().is_well
    assert PolicyStatus(state="driving", active_model="m@1", reason="old").sentence == "driving m@1"
    assert PolicyStatus(state="driving", reason="old").is_well
    holding = PolicyStatus(state="holding", reason="no picture")
    assert (holding.sentence, holding.is_well) == ("holding: no picture", False)
    assert not PolicyStatus(reason="no such model").is_well


def test_counts():
    counts = ChunkCounts().with_chunk(0.0).with_chunk(0.2).with_chunk(0.1).with_hold()
    assert counts == ChunkCounts(chunks=3, gaps=2, longest_gap_s=0.2, holds=1)
