"""The control loop with a policy and clocks that the test holds in its hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from policy_logic import JPEG, SPEC
from policy_support import WAIT_S, wait_for

from vla_core.chunk import JoinRules, Plan
from vla_core.joints import SO101_JOINTS
from vla_core.prompt_phrases import Match
from vla_policy.clock import Moment
from vla_policy.inbox import Frame, Inbox, JointSample
from vla_policy.loaded import Loaded, LoopSettings
from vla_policy.loop import ControlLoop
from vla_policy.observe import AgeLimits
from vla_policy.schedule import Rhythm
from vla_policy.serving.channel import Late
from vla_policy.serving.client import Answer
from vla_policy.serving.errors import ServerFailedError, ServerTimeoutError, ServerUnavailableError

S = 1_000_000_000
OPEN_LOOP_S = 0.4
SETTINGS = LoopSettings(
    rules=JoinRules(open_loop_s=OPEN_LOOP_S, blend_s=0.05),
    rhythm=Rhythm(OPEN_LOOP_S),
    ages=AgeLimits(image_s=5.0, state_s=5.0),
    request_timeout_s=WAIT_S,
    prompt="",
    max_chunk_age_s=WAIT_S,
    follow_timeout_s=WAIT_S,
)
RAMP = 0.02 * np.arange(20)[:, None] * np.ones(6)


class Clock:
    """Real, until its system time is set."""

    def __init__(self) -> None:
        self.set_by_ns = 0

    def now(self) -> Moment:
        return Moment(time.monotonic_ns(), time.time_ns() + self.set_by_ns)


class Policy:
    """Stands for link, server and model: answers what `answer` gives for a message."""

    def __init__(self) -> None:
        self.answer: Callable[[dict], Answer] = lambda message: Answer(RAMP.copy(), 1.0)
        self.sessions = 0
        self.resets = 0
        self.closed = 0
        self.messages: list[dict] = []
        self.timeouts: list[float] = []
        self.late: Late | None = None
        self.unreachable = False

    def connect(self, cancelled: threading.Event) -> Policy:
        if self.unreachable:
            raise ServerUnavailableError("server cannot be reached")
        self.sessions += 1
        return self

    def reset(self) -> None:
        self.resets += 1

    def infer(self, message: dict, timeout_s: float, actions_key: str, late: Late | None) -> Answer:
        self.messages.append(message)
        self.timeouts.append(timeout_s)
        self.late = late
        return self.answer(message)

    def close(self) -> None:
        self.closed += 1

    def abort(self) -> None:
        """Nothing is pending here."""


class Outlet:
    def __init__(self) -> None:
        self.plans: list[tuple[Plan, int]] = []
        self.names: list[object] = []
        self.events: list[str] = []
        self.timings: list[tuple[object, float]] = []
        self.despaired: list[str] = []
        self.matches: list[Match | None] = []
        self.defect: Exception | None = None
        self.broken = False

    def command(self, plan: Plan, stamp_ns: int, joint_names: object) -> None:
        if self.broken:
            raise RuntimeError("the publisher broke")
        self.plans.append((plan, stamp_ns))
        self.names.append(joint_names)

    def chunk_done(self, timing: object, gap_s: float) -> None:
        self.timings.append((timing, gap_s))

    def driving(self, spec: object) -> None:
        self.events.append(f"driving {spec.label}")

    def holding(self, reason: str) -> None:
        self.events.append(reason)

    def heard(self, match: Match | None) -> None:
        self.matches.append(match)

    def despairs(self, model: str, reason: str) -> None:
        self.despaired.append(model)

    def crashed(self, error: Exception) -> None:
        self.defect = error


class Rig:
    """A loop, and a robot that sends a picture and a joint state every 10 ms."""

    def __init__(self, settings: LoopSettings = SETTINGS, *, seeing: bool = True) -> None:
        self.clock, self.policy, self.outlet, self.inbox = Clock(), Policy(), Outlet(), Inbox()
        self.spec = SPEC
        self.seeing = seeing
        self.measuring, self.position = True, 0.1
        self.jpeg = JPEG
        self.loaded = Loaded("tiny@1", SPEC, self.policy, settings, lambda client: self.spec, lambda: None)
        self.loop = ControlLoop(self.loaded, self.inbox, self.outlet, self.clock)
        self._end = threading.Event()
        self._send()
        self._robot = threading.Thread(target=self._feed, daemon=True)
        self._robot.start()

    def _feed(self) -> None:
        while not self._end.wait(0.01):
            self._send()

    def _send(self) -> None:
        now = self.clock.now()
        if self.measuring:
            self.inbox.put_joints(JointSample(SO101_JOINTS, (self.position,) * 6, now.system_ns, now))
        if self.seeing:
            self.inbox.put_frame("front", Frame(self.jpeg, now.system_ns, now.system_ns, now.system_ns, now))

    def close(self) -> None:
        self.loop.stop()
        self._end.set()
        self._robot.join()

    def wait(self, what: str, true: Callable[[], bool]) -> None:
        wait_for(f"{what}; events {self.outlet.events}", true, lambda: self.outlet.defect is None)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def test_drives_without_gaps_and_asks_only_about_new_pictures(rig: Rig):
    rig.loop.start()
    rig.wait("five plans", lambda: len(rig.outlet.plans) >= 5)
    stamps = [stamp for _, stamp in rig.outlet.plans]
    assert stamps == sorted(set(stamps))
    assert rig.outlet.events == ["driving tiny@1"]
    assert rig.policy.sessions == 1
    for (before, _), (after, _) in pairwise(rig.outlet.plans):
        np.testing.assert_allclose(after.positions[0], before.at(after.start_ns), atol=1e-9)
    message = rig.policy.messages[0]
    assert message["observation.images.front"].shape == (32, 64, 3)
    assert message["prompt"] == SPEC.prompt
    timing, _ = rig.outlet.timings[0]
    assert timing.stamp_ns == stamps[0]


def test_holds_once_for_each_reason_and_goes_on():
    rig = Rig(replace(SETTINGS, ages=AgeLimits(image_s=0.2, state_s=5.0)), seeing=False)
    rig.loop.start()
    rig.wait("a hold", lambda: len(rig.outlet.events) == 1)
    assert rig.policy.messages == []
    rig.seeing = True
    rig.wait("driving", lambda: len(rig.outlet.events) == 2)
    rig.seeing = False
    rig.wait("another hold", lambda: len(rig.outlet.events) == 3)
    rig.close()
    assert "no picture yet" in rig.outlet.events[0]
    assert rig.outlet.events[1] == "driving tiny@1"
    assert "no picture newer than 0.2 s" in rig.outlet.events[2]


def test_an_arm_that_was_away_is_not_sent_back_to_where_it_was():
    """The driver holds where the arm stands when it comes back; the plan from before must not be resumed."""
    rig = Rig(replace(SETTINGS, ages=AgeLimits(image_s=5.0, state_s=0.1)))
    rig.loop.start()
    rig.wait("driving", lambda: "driving tiny@1" in rig.outlet.events)
    rig.measuring = False
    rig.wait("a hold", lambda: "no joint state" in rig.outlet.events[-1])
    rig.position = 0.9
    before = len(rig.outlet.plans)
    rig.measuring = True
    rig.wait("driving", lambda: len(rig.outlet.plans) > before)
    rig.close()
    plan, _ = rig.outlet.plans[before]
    assert plan.positions[0, 0] > 0.8


@pytest.mark.parametrize(
    ("error", "resets"),
    [
        (ServerFailedError("server reported an error: ValueError"), 0),
        (ServerUnavailableError("server closed the connection"), 0),
        (ServerTimeoutError("server did not answer in time"), 1),
    ],
)
def test_a_server_that_fails_gets_a_new_session(rig: Rig, error: Exception, resets: int):
    def fail_once(message: dict) -> Answer:
        rig.policy.answer = lambda message: Answer(RAMP, 1.0)
        raise error

    rig.policy.answer = fail_once
    rig.loop.start()
    rig.wait("driving", lambda: "driving tiny@1" in rig.outlet.events)
    assert rig.outlet.events == [str(error), "driving tiny@1"]
    assert rig.policy.sessions == 2
    assert rig.policy.closed == 1
    assert rig.policy.resets == resets


def test_a_server_that_comes_late(rig: Rig):
    rig.policy.unreachable = True
    rig.loop.start()
    rig.wait("a hold", lambda: rig.outlet.events == ["server cannot be reached"])
    rig.policy.unreachable = False
    rig.wait("driving", lambda: rig.outlet.events[-1] == "driving tiny@1")


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.full((20, 6), np.nan), "not finite"),
        (np.zeros((20, 7)), "answered 7 joints for 6"),
        (np.zeros((1, 6)), "came too late"),
    ],
)
def test_answers_that_cannot_be_played_are_not(rig: Rig, actions: np.ndarray, words: str):
    rig.policy.answer = lambda message: Answer(actions, 1.0)
    rig.loop.start()
    rig.wait("a hold", lambda: any(words in event for event in rig.outlet.events))
    assert rig.outlet.plans == []


def test_a_clock_that_is_set_while_a_chunk_is_under_way(rig: Rig):
    def step(message: dict) -> Answer:
        rig.policy.answer = lambda message: Answer(RAMP, 1.0)
        rig.clock.set_by_ns = -3600 * S
        return Answer(RAMP, 1.0)

    rig.policy.answer = step
    rig.loop.start()
    rig.wait("driving", lambda: "driving tiny@1" in rig.outlet.events)
    assert rig.outlet.events[0] == "the system clock was set while a chunk was under way"


def test_a_new_prompt_is_asked_about_at_once():
    rig = Rig(replace(SETTINGS, rules=JoinRules(open_loop_s=1.9), rhythm=Rhythm(1.9), prompt="parameter's"))
    rig.loop.start()
    rig.wait("driving", lambda: "driving tiny@1" in rig.outlet.events)
    before = rig.outlet.plans[-1][0]
    rig.inbox.put_prompt("topic's")
    rig.loop.poke()
    rig.wait("the new prompt", lambda: rig.policy.messages[-1]["prompt"] == "topic's")
    rig.wait("another plan", lambda: rig.outlet.plans[-1][0] is not before)
    rig.close()
    assert rig.policy.messages[0]["prompt"] == "parameter's"
    after = rig.outlet.plans[-2][0] if rig.outlet.plans[-1][0].stamp_ns == rig.outlet.plans[-1][0].start_ns else None
    assert after is None or after.start_ns < before.end_ns


def test_stopping_brings_the_arm_to_rest_soon():
    rig = Rig(replace(SETTINGS, rules=JoinRules(open_loop_s=1.9), rhythm=Rhythm(1.9)))
    rig.loop.start()
    rig.wait("driving", lambda: "driving tiny@1" in rig.outlet.events)
    rig.close()
    driving, brake = (plan for plan, _ in (rig.outlet.plans[-2], rig.outlet.plans[-1]))
    assert brake.end_ns - brake.start_ns == round(0.15 * S)
    np.testing.assert_allclose(brake.positions[0], driving.at(brake.start_ns), atol=1e-9)


def test_a_policy_that_looked_for_itself_dates_its_chunk(rig: Rig):
    seen: list[int] = []

    def answer(message: dict) -> Answer:
        seen.append(rig.clock.now().system_ns - 30_000_000)
        return Answer(RAMP, 1.0, stamp_ns=seen[-1])

    rig.policy.answer = answer
    rig.loop.start()
    rig.wait("a plan", lambda: len(rig.outlet.plans) >= 1)
    assert rig.outlet.plans[0][1] == seen[0]


def test_a_server_that_comes_back_with_another_kind_of_model(rig: Rig):
    rig.spec = SPEC.with_cameras("front", "wrist")
    rig.loop.start()
    rig.wait("a hold", lambda: any("configure /policy again" in event for event in rig.outlet.events))
    assert rig.policy.messages == []
    rig.spec = replace(SPEC, version="2")
    rig.wait("driving", lambda: rig.outlet.events[-1] == "driving tiny@2")


def test_a_damaged_picture_is_not_acted_on_and_does_not_cost_the_session(rig: Rig):
    rig.jpeg = JPEG[:500]
    rig._send()
    rig.loop.start()
    rig.wait("a hold", lambda: any("camera front: not a JPEG" in event for event in rig.outlet.events))
    assert rig.policy.messages == []
    rig.jpeg = JPEG
    rig.wait("driving", lambda: rig.outlet.events[-1] == "driving tiny@1")
    assert rig.policy.sessions == 1


def test_a_defect_does_not_pass_unseen(rig: Rig):
    rig.outlet.broken = True
    rig.loop.start()
    wait_for("the defect", lambda: rig.outlet.defect is not None)
    assert str(rig.outlet.defect) == "the publisher broke"
