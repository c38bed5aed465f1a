"""A swap's record, its queue, probation, memory: logic without processes."""

from __future__ import annotations

import json
import threading

import pytest
from policy_logic import S

from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import FileEntry, Manifest
from vla_core.swap import Mode, Outcome, Stage, SwapRequest, parse_mode, parse_status
from vla_policy import memory
from vla_policy.probation import LEAST_CHUNKS, PATIENCE_S, Failed, Passed, Pending, Probation, ProbationRules
from vla_policy.schedule import Crashes, Rhythm
from vla_policy.swap import Swap
from vla_policy.swap_queue import KEPT_ANSWERS, Attempt, Queue

MIB = 1 << 20


def request(model: str = "pick@3", request_id: str = "r") -> SwapRequest:
    return SwapRequest(model, request_id)


class TestRequest:
    @pytest.mark.parametrize(
        ("model", "request_id", "reason"),
        [
            ("", "r", "give name@version"),
            ("pick", "r", "neither name@version"),
            ("pick@3\n", "r", "give name@version"),
            ("pick@3@4", "r", "neither name@version"),
            ("pick@3", "", "request_id ''"),
            ("pick@3", "a b", "request_id 'a b'"),
        ],
    )
    def test_syntax(self, model: str, request_id: str, reason: str):
        with pytest.raises(ConfigError, match=reason):
            SwapRequest(model, request_id)

    def test_folders_are_told_from_labels(self):
        assert request("pick@3").is_label
        assert not request("/models/pick@3").is_label
        assert parse_mode("") is Mode.BLUE_GREEN
        with pytest.raises(ConfigError, match="blue_green, restart"):
            parse_mode("green")
        with pytest.raises(ConfigError, match="at most 4096"):
            SwapRequest("pick@3", "r", "x" * 5000)


class TestRecord:
    def test_to_the_end(self):
        swap = Swap(request(), 10 * S)
        for seconds, stage in enumerate((Stage.VERIFY, Stage.START, Stage.SWITCH, Stage.PROBATION), start=11):
            swap.enter(stage, seconds * S)
        swap.end(Outcome.SUCCEEDED, "", 20 * S)
        assert swap.timeline == {"verify": 1.0, "start": 2.0, "switch": 3.0, "probation": 4.0, "end": 10.0}
        status = parse_status({"state": "driving", "reason": "hold", **swap.values()})
        assert (status.request_id, status.stage, status.outcome) == ("r", Stage.NONE, Outcome.SUCCEEDED)
        assert (status.reason, status.hold_reason, status.is_over) == ("", "hold", True)
        assert status.timeline == swap.timeline

    def test_a_refusal_says_whether_it_may_pass(self):
        """Nobody could tell a model that is at fault from a camera that was away, and both were refused for ever."""
        for passing in (True, False):
            swap = Swap(request(), 0)
            swap.end(Outcome.REFUSED, "no picture yet", 0, passing=passing)
            assert parse_status(swap.values()).passing is passing
        drove = Swap(request(), 0)
        drove.enter(Stage.PROBATION, 0)
        drove.end(Outcome.REFUSED, "it died", 0, passing=True)
        assert not parse_status(drove.values()).passing
        assert not parse_status({"outcome": "refused"}).passing, "of an older release"

    def test_no_way_back(self):
        swap = Swap(request(), 0)
        swap.enter(Stage.JUDGE, 0)
        with pytest.raises(ValueError, match="cannot follow"):
            swap.enter(Stage.START, 0)
        swap.end(Outcome.REFUSED, "too slow", 0)
        with pytest.raises(ValueError, match="cannot follow"):
            swap.end(Outcome.SUCCEEDED, "", 0)
        with pytest.raises(ValueError, match="cannot follow"):
            swap.enter(Stage.SWITCH, 0)

    @pytest.mark.parametrize(
        ("stage", "outcome"), [(Stage.SWITCH, Outcome.REFUSED), (Stage.PROBATION, Outcome.ROLLED_BACK)]
    )
    def test_only_what_drove_is_rolled_back(self, stage: Stage, outcome: Outcome):
        for asked in (Outcome.REFUSED, Outcome.ROLLED_BACK):
            swap = Swap(request(), 0)
            swap.enter(stage, 0)
            swap.end(asked, "", 0)
            assert swap.outcome is outcome
            assert json.loads(swap.values()["timeline"]) == {str(stage): 0.0, "end": 0.0}


class TestQueue:
    def test_the_newest_wins(self):
        queue = Queue()
        assert queue.ask(request(request_id="a"), 0) == (None, None)
        first = queue.take()
        assert isinstance(first, Attempt)
        aborted = threading.Event()
        first.abort = aborted.set
        queue.ask(request(request_id="b"), 0)
        assert first.cancelled.is_set()
        assert aborted.is_set()
        known, passed_over = queue.ask(request(request_id="c"), 0)
        assert known is None
        assert passed_over.request.request_id == "b"
        assert queue.take().swap.request.request_id == "c"

    def test_a_request_is_known_by_its_id(self):
        queue = Queue()
        queue.ask(request(), 0)
        swap = queue.take().swap
        assert queue.ask(request("other@1"), 0) == (swap, None)
        for number in range(KEPT_ANSWERS):
            queue.ask(request(request_id=f"n{number}"), 0)
        assert queue.ask(request(), 0)[0] is None, "forgotten by now"

    def test_work_waits_behind_requests_and_nothing_comes_after_the_end(self):
        queue = Queue()
        done: list[str] = []
        queue.put(lambda: done.append("job"))
        queue.ask(request(), 0)
        attempt = queue.take()
        assert isinstance(attempt, Attempt)
        queue.take()()
        assert done == ["job"]
        queue.ask(request(request_id="next"), 0)
        attempt = queue.take()
        queue.close()
        assert attempt.cancelled.is_set()
        assert queue.take() is None
        assert queue.is_closed


class TestProbation:
    def test_passes_after_its_time_and_chunks(self):
        probation = Probation(ProbationRules(10.0))
        assert probation.began_ns is None
        for second in range(10):
            assert probation.chunk(second * S, 0.0) == Pending()
        assert probation.chunk(10 * S, 0.0) == Passed()
        short = Probation(ProbationRules(0.0))
        verdicts = [short.chunk(0, 0.0) for _ in range(LEAST_CHUNKS)]
        assert verdicts == [Pending()] * (LEAST_CHUNKS - 1) + [Passed()]

    def test_one_gap_is_an_accident(self):
        probation = Probation(ProbationRules(10.0))
        assert probation.chunk(0, 0.1) == Pending()
        assert probation.chunk(S, 0.0) == Pending()
        assert probation.chunk(2 * S, 0.1) == Failed("the arm had to wait for it 2 times within 3 chunks")

    def test_does_not_wait_for_ever(self):
        probation = Probation(ProbationRules(10.0))
        assert probation.idle(10**15) == Pending(), "not begun"
        probation.chunk(0, 0.0)
        assert probation.idle(round((10 + PATIENCE_S) * S)) == Pending()
        assert "too few to judge it by" in probation.idle(round((10 + PATIENCE_S) * S) + 1).reason

    def test_bounds(self):
        with pytest.raises(ConfigError, match="probation_s is -1"):
            ProbationRules(-1)


def test_crashes_count_within_their_time():
    crashes = Crashes()
    assert [crashes.add(second * S) for second in (0, 1, 2)] == [False, False, True]
    late = Crashes()
    assert [late.add(second * S) for second in (0, 1, 121, 122, 123)] == [False, False, False, False, True]


def test_a_reserve_makes_requests_earlier():
    rhythm = Rhythm(1.0)
    assert rhythm.due_ns(0, S, 0.15, 0.3) == rhythm.due_ns(0, S, 0.15) - round(0.3 * S)
    periodic = Rhythm(1.0, 0.9)
    assert periodic.due_ns(0, S, 0.15) == round(0.9 * S)
    assert periodic.due_ns(0, S, 0.15, 0.3) == round(0.5 * S)


class TestMemory:
    MODEL = Manifest(
        "pick",
        "3",
        "act",
        "onnx",
        SO101_JOINTS,
        files={"policy.onnx": FileEntry(400 * MIB, "0" * 64), "model.safetensors": FileEntry(600 * MIB, "0" * 64)},
    )

    def test_what_a_model_needs_is_its_larger_export(self):
        assert memory.needed_bytes(self.MODEL) == memory.BASE_BYTES + 900 * MIB

    def test_what_there_is(self):
        meminfo = "MemTotal: 8000000 kB\nMemAvailable: 1048576 kB\n"
        assert memory.available_bytes(meminfo, {}) == 1024 * MIB
        assert memory.available_bytes(meminfo, {"memory.max": "max\n", "memory.current": "5\n"}) == 1024 * MIB
        limited = {"memory.max": str(600 * MIB), "memory.current": str(200 * MIB)}
        assert memory.available_bytes(meminfo, limited) == 400 * MIB
        cached = limited | {"memory.stat": f"anon 5\ninactive_file {50 * MIB}\n"}
        assert memory.available_bytes(meminfo, cached) == 450 * MIB
        assert memory.available_bytes("", {}) is None

    def test_what_is_said(self):
        assert memory.objection(self.MODEL, None) == ""
        assert memory.objection(self.MODEL, 1100 * MIB) == ""
        assert "needs about 1100 MiB of memory and 1000 MiB are free" in memory.objection(self.MODEL, 1000 * MIB)
        assert "ask with swap restart" in memory.objection(self.MODEL, 1000 * MIB)
        assert memory.objection(self.MODEL, 1000 * MIB, freed=200 * MIB) == ""
        assert "ask with swap restart" not in memory.objection(self.MODEL, 100 * MIB, freed=200 * MIB)
        assert (memory.read_available_bytes() or MIB) > 0
        assert memory.resident_bytes(None) == 0
