"""The control loop with a model that has not proved good and none to go back to: it is judged, whatever happens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from policy_logic import SPEC, S
from policy_support import WAIT_S
from test_policy_loop import RAMP, Policy, Rig
from test_policy_loop_trial import DRIVING_OLD, ROOMY, Successor

from vla_policy.following import NOT_FOLLOWING
from vla_policy.probation import PATIENCE_S, Failed, Passed, Pending, Probation, ProbationRules
from vla_policy.serving.client import Answer
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.settings import Settings
from vla_policy.trial import Begun, Event, Trial

FAR = RAMP + 1.34


class Guard:
    """Watches the rig's model from its first answer on."""

    def __init__(self, rig: Rig) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.probation = Probation(ProbationRules(0.0), patient=True)
        self.objection = ""
        self.trial = Trial(rig.loaded, self.probation, lambda actions, pose: self.objection, self.events.put)

    def next(self) -> Event:
        return self.events.get(timeout=WAIT_S)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(ROOMY)
    yield rig
    rig.close()


def test_what_is_objected_to_is_not_commanded_and_each_answer_is_judged(rig: Rig):
    """The first objection ended the trial: a tenth of a second later the same answer was commanded, judged by nobody,
    and the model could not prove good any more."""
    guard = Guard(rig)
    guard.objection = "it answered nonsense"
    rig.policy.answer = lambda message: Answer(FAR.copy(), 1.0)
    rig.loop.offer(guard.trial)
    rig.loop.start()
    for _ in range(3):
        assert guard.next() == Failed("it answered nonsense")
    assert rig.outlet.plans == []
    assert rig.outlet.events == ["it answered nonsense"]
    guard.objection = ""
    assert isinstance(guard.next(), Begun)
    assert guard.next() == Passed()


def test_an_arm_that_is_stopped_says_nothing_against_the_model():
    """It counted as the model's fault, though the arm followed nobody: a model whose probation a power cut had broken
    off was thrown away because the robot started with its arm stopped."""
    rig = Rig(replace(ROOMY, follow_timeout_s=0.2))
    guard = Guard(rig)
    rig.loop.offer(guard.trial)
    rig.loop.start()
    assert isinstance(guard.next(), Begun)
    rig.wait("a hold", lambda: NOT_FOLLOWING in rig.outlet.events)
    before = len(rig.outlet.plans)
    rig.wait("more plans", lambda: len(rig.outlet.plans) > before + 2)
    rig.close()
    events = [guard.next() for _ in range(guard.events.qsize())]
    assert not any(isinstance(event, Failed) for event in events), events


def test_a_start_may_be_far_from_where_the_arm_rests():
    """A seed whose first action was 1.34 rad away was objected to at every start, and never became the last good."""
    settings = Settings()
    actions, pose = np.full((20, 6), 1.34), np.zeros(6)
    assert "first action" in settings.objector(SPEC)(actions, pose)
    assert settings.objector(SPEC, from_rest=True)(actions, pose) == ""
    assert "beyond its limit" in settings.objector(SPEC, from_rest=True)(actions + 3.0, pose)


def test_a_stale_hurry_does_not_cancel_every_load_to_come(rig: Rig):
    """An offer that the loop took between its being put and being announced left the announcement standing: when the
    server died, however much later, starting it again was cancelled each time."""
    cancelled: list[bool] = []

    class Watching(Policy):
        def connect(self, hurry: threading.Event) -> Policy:
            cancelled.append(hurry.is_set())
            return super().connect(hurry)

    new = Successor(rig)
    new.policy = Watching()
    new.loaded = replace(new.loaded, link=new.policy)
    rig.loop.start()
    rig.wait("driving", lambda: rig.outlet.events == [DRIVING_OLD])
    rig.loop.offer(new.trial())
    assert isinstance(new.next(), Begun)
    assert new.next() == Passed()
    rig.loop._hurry.set()  # as the offering thread does, late

    def fail_once(message: dict) -> Answer:
        new.policy.answer = lambda message: Answer(RAMP.copy(), 1.0)
        raise ServerUnavailableError("server closed the connection")

    new.policy.answer = fail_once
    rig.wait("a new session", lambda: new.policy.sessions)
    assert cancelled == [False]


class TestProbation:
    RULES = ProbationRules(10.0)
    LIMIT_NS = round((RULES.duration_s + PATIENCE_S) * S)

    def test_a_model_that_gives_no_chunk_at_all_is_decided_about(self):
        """Only a first chunk started the clock: with a camera gone at the switch, the request was never answered."""
        probation = Probation(self.RULES)
        assert probation.idle(5 * S) == Pending()
        assert probation.idle(5 * S + self.LIMIT_NS) == Pending()
        assert isinstance(probation.idle(5 * S + self.LIMIT_NS + 1), Failed)

    def test_its_first_chunk_gives_it_its_whole_time(self):
        probation = Probation(self.RULES)
        probation.idle(0)
        assert probation.chunk(self.LIMIT_NS, 0.0) == Pending()
        assert probation.idle(self.LIMIT_NS + 1) == Pending()

    def test_who_is_patient_waits(self):
        probation = Probation(self.RULES, patient=True)
        probation.chunk(0, 0.0)
        assert probation.idle(1000 * S) == Pending()

    def test_anew(self):
        probation = Probation(ProbationRules(0.0))
        assert probation.chunk(0, 1.0) == Pending()
        probation.restart()
        assert [probation.chunk(S * n, 1.0 if n == 1 else 0.0) for n in range(5)] == [Pending()] * 4 + [Passed()]
