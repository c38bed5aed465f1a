"""The control loop goes over to a model on trial, and back: with policies and a clock that the test holds."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from policy_logic import SPEC
from policy_support import WAIT_S
from test_policy_loop import RAMP, SETTINGS, Policy, Rig, S

from vla_core.chunk import JoinRules
from vla_core.joints import SO101_JOINTS
from vla_policy.loaded import Loaded
from vla_policy.model import ModelSpec
from vla_policy.probation import Failed, Passed, Probation, ProbationRules
from vla_policy.schedule import Rhythm
from vla_policy.serving.client import Answer
from vla_policy.serving.errors import ServerTimeoutError, ServerUnavailableError
from vla_policy.trial import Begun, Broken, Event, Trial

LONG_S = 1.0
NEW = replace(SPEC, version="2", prompt="put the white cube on the spot")
ROOMY = replace(SETTINGS, rules=JoinRules(open_loop_s=LONG_S), rhythm=Rhythm(LONG_S), request_timeout_s=5.0)
DRIVING_NEW, DRIVING_OLD = "driving tiny@2", "driving tiny@1"


class Successor:
    """A new model beside the rig's, and what its trial reports."""

    def __init__(self, rig: Rig, spec: ModelSpec = NEW) -> None:
        self.rig = rig
        self.policy, self.spare = Policy(), Policy()
        self.loaded = Loaded("tiny@2", spec, self.policy, ROOMY, lambda _: spec, lambda: None)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.objection = ""

    def trial(self, *, duration_s: float = 0.0, spare: bool = True, **how: object) -> Trial:
        fields = {"client": self.policy, "old": self.rig.loaded, "spare": self.spare if spare else None} | how
        probation = Probation(ProbationRules(duration_s))
        return Trial(self.loaded, probation, lambda actions, pose: self.objection, self.events.put, **fields)

    def next(self) -> Event:
        return self.events.get(timeout=WAIT_S)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(ROOMY)
    rig.loop.start()
    rig.wait("driving", lambda: rig.outlet.events == [DRIVING_OLD])
    yield rig
    rig.close()


def commanded_without_a_break(rig: Rig) -> bool:
    return all(after.start_ns <= before.end_ns for (before, _), (after, _) in pairwise(rig.outlet.plans))


def test_goes_over_without_a_break_and_stays(rig: Rig):
    new = Successor(rig)
    rig.inbox.put_prompt("the old model's override")
    before = len(rig.outlet.plans)
    rig.loop.offer(new.trial())
    assert isinstance(new.next(), Begun)
    assert new.next() == Passed()
    rig.wait("its being told", lambda: rig.outlet.events[-1] == DRIVING_NEW)
    assert rig.loop.loaded is new.loaded
    assert new.policy.messages[0]["prompt"] == NEW.prompt, "an override ends at a swap"
    assert rig.policy.closed == 1
    assert new.spare.closed == 1
    assert new.spare.messages == []
    rig.close()
    assert commanded_without_a_break(rig)
    first = rig.outlet.plans[before][0]
    np.testing.assert_allclose(first.positions[0], rig.outlet.plans[before - 1][0].at(first.start_ns), atol=1e-9)


@pytest.mark.parametrize("error", [ServerUnavailableError("server broke"), ServerTimeoutError("server is late")])
@pytest.mark.parametrize("good_answers", [0, 2])
def test_a_failure_costs_no_break(rig: Rig, error: Exception, good_answers: int):
    new = Successor(rig)

    def answer(message: dict) -> Answer:
        if len(new.policy.messages) > good_answers:
            raise error
        return Answer(RAMP.copy(), 1.0)

    new.policy.answer = answer
    rig.inbox.put_prompt("an override")
    rig.loop.offer(new.trial(duration_s=600.0))
    if good_answers:
        assert isinstance(new.next(), Begun)
    assert new.next() == Failed(str(error))
    rig.wait("the old model", lambda: new.spare.messages)
    before = len(rig.outlet.plans)
    rig.wait("its plans", lambda: len(rig.outlet.plans) > before + 1)
    assert new.spare.messages[0]["prompt"] == "an override"
    assert rig.loop.loaded is rig.loaded
    assert rig.outlet.events[-1] == DRIVING_OLD
    assert not any(str(error) in event for event in rig.outlet.events), "it never held"
    assert new.policy.resets == 0, "who ends its server is not the loop's business"
    rig.close()
    assert commanded_without_a_break(rig)


def test_its_answer_must_come_while_the_old_model_can_still_be_asked(rig: Rig):
    new = Successor(rig)
    rig.loop.offer(new.trial(duration_s=600.0))
    assert isinstance(new.next(), Begun)
    rig.wait("four answers", lambda: len(new.policy.timeouts) >= 4)
    assert all(0.25 <= timeout_s < LONG_S - 0.05 for timeout_s in new.policy.timeouts), new.policy.timeouts


def test_an_answer_that_is_objected_to_is_never_commanded(rig: Rig):
    new = Successor(rig)
    new.objection = "it answered nonsense"
    new.policy.answer = lambda message: Answer(RAMP + 1.0, 1.0)
    rig.loop.offer(new.trial())
    assert new.next() == Failed("it answered nonsense")
    before = len(rig.outlet.plans)
    rig.wait("the old model's plans", lambda: len(rig.outlet.plans) > before + 1)
    assert max(plan.positions.max() for plan, _ in rig.outlet.plans) < 1.0


def test_joints_in_another_order_are_mapped_by_name(rig: Rig):
    """The plan in force is the old model's; columns must not be confused when the new one takes over."""
    turned = replace(NEW, joint_names=SO101_JOINTS[::-1])
    new = Successor(rig, turned)
    rig.policy.answer = lambda message: Answer(np.tile(np.arange(6) / 100, (20, 1)), 1.0)
    before = len(rig.outlet.plans)
    rig.wait("plans with a different value for each joint", lambda: len(rig.outlet.plans) > before + 1)
    new.policy.answer = lambda message: Answer(np.tile(np.arange(6)[::-1] / 100, (20, 1)), 1.0)
    rig.loop.offer(new.trial())
    assert isinstance(new.next(), Begun)
    rig.wait("its being told", lambda: rig.outlet.events[-1] == DRIVING_NEW)
    rig.close()
    index = next(i for i, names in enumerate(rig.outlet.names) if names == turned.joint_names)
    plan = rig.outlet.plans[index][0]
    np.testing.assert_allclose(plan.positions, np.tile(np.arange(6)[::-1] / 100, (len(plan.positions), 1)), atol=1e-6)


def test_the_model_that_drives_may_be_watched(rig: Rig):
    guard = Successor(rig)
    guard.loaded = rig.loaded
    sessions = rig.policy.sessions
    rig.loop.offer(guard.trial(old=None, client=None, spare=False))
    assert isinstance(guard.next(), Begun)
    assert guard.next() == Passed()
    assert rig.policy.sessions == sessions

    rig.loop.offer(guard.trial(old=None, client=None, spare=False, duration_s=600.0))
    assert isinstance(guard.next(), Begun)
    rig.policy.answer = lambda message: Answer(np.full((20, 6), np.nan), 1.0)
    assert isinstance(guard.next(), Failed)
    rig.policy.answer = lambda message: Answer(RAMP, 1.0)
    rig.wait("driving again", lambda: rig.outlet.events[-1] == DRIVING_OLD)


def test_a_trial_that_has_not_begun_is_recalled(rig: Rig):
    rig.seeing = False
    rig.wait("a hold", lambda: True)
    new = Successor(rig)
    new.policy.answer = lambda message: pytest.fail("it was recalled")
    rig.loop.recall(Failed("nothing is on offer"))
    rig.loop._succession.offer.put(new.trial())  # the loop has not looked yet
    rig.loop.recall(Failed("newer"))
    assert new.next() == Failed("newer")
    assert (new.policy.closed, new.spare.closed) == (1, 1)
    assert rig.loop.loaded is rig.loaded


@pytest.mark.parametrize(("verdict", "label"), [(Passed(), "tiny@2"), (Failed("newer"), "tiny@1")])
def test_a_trial_can_be_ended_from_outside(rig: Rig, verdict: Passed | Failed, label: str):
    new = Successor(rig)
    rig.loop.offer(new.trial(duration_s=600.0))
    assert isinstance(new.next(), Begun)
    rig.loop.decide(verdict)
    assert new.next() == verdict
    rig.wait("the right model", lambda: rig.outlet.events[-1] == f"driving {label}")


def test_a_loop_that_ends_breaks_the_trial_off(rig: Rig):
    new = Successor(rig)
    rig.loop.offer(new.trial(duration_s=600.0))
    assert isinstance(new.next(), Begun)
    rig.loop.stop()
    assert new.next() == Broken()
    assert rig.loop.loaded is new.loaded
    assert new.spare.closed == 1


def test_without_a_spare_the_old_server_is_started_again(rig: Rig):
    new = Successor(rig)
    new.policy.answer = lambda message: Answer(np.full((20, 6), np.nan), 1.0)
    sessions = rig.policy.sessions
    rig.loop.offer(new.trial(spare=False))
    assert isinstance(new.next(), Failed)
    rig.wait("the old model", lambda: rig.outlet.events[-1] == DRIVING_OLD)
    assert rig.policy.sessions == sessions + 1


def test_a_server_that_keeps_failing_is_despaired_of(rig: Rig):
    def fail(message: dict) -> Answer:
        raise ServerUnavailableError("server closed the connection")

    rig.policy.answer = fail
    rig.wait("despair", lambda: rig.outlet.despaired)
    assert rig.outlet.despaired[0] == "tiny@1"
    rig.policy.answer = lambda message: Answer(RAMP, 1.0)
    rig.wait("driving", lambda: rig.outlet.events[-1] == DRIVING_OLD)


def test_an_offer_need_not_wait_for_a_server_that_is_gone(rig: Rig):
    rig.policy.unreachable = True

    def fail(message: dict) -> Answer:
        raise ServerUnavailableError("server closed the connection")

    rig.policy.answer = fail
    rig.wait("a hold", lambda: "server cannot be reached" in rig.outlet.events)
    new = Successor(rig)
    rig.loop.offer(new.trial(spare=False))
    assert isinstance(new.next(), Begun)
    assert new.next() == Passed()
    assert rig.clock.now().mono_ns > S
