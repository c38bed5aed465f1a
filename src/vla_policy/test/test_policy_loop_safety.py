"""The control loop when answers come late, when the arm was moved by somebody else, and when the driver refuses."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from policy_support import WAIT_S
from test_policy_loop import RAMP, SETTINGS, Rig, S

from vla_core.chunk import JoinRules, Plan
from vla_policy.following import NOT_FOLLOWING
from vla_policy.loaded import LoopSettings
from vla_policy.loop import NO_ANSWER_YET
from vla_policy.schedule import Rhythm
from vla_policy.serving.client import Answer

DRIVING = "driving tiny@1"
LONG = replace(SETTINGS, rules=JoinRules(open_loop_s=1.5), rhythm=Rhythm(1.5, 0.1))


class Arm(Rig):
    """A robot whose driver reports what it takes up, unless it refuses; its model moves on from where the arm is."""

    def __init__(self, settings: LoopSettings) -> None:
        super().__init__(settings)
        self.refusing = False
        publish = self.outlet.command

        def command(plan: Plan, stamp_ns: int, joint_names: object) -> None:
            publish(plan, stamp_ns, joint_names)
            if not self.refusing:
                self.inbox.put_report(stamp_ns)

        self.outlet.command = command
        self.policy.answer = lambda message: Answer(message["observation.state"][0] + RAMP, 1.0)

    def run_until_driving(self) -> None:
        self.loop.start()
        self.wait("driving", lambda: DRIVING in self.outlet.events)


@pytest.fixture
def held_back():
    """Two events: an answer is awaited; let it come."""
    asked, release = threading.Event(), threading.Event()
    yield asked, release
    release.set()


def test_an_answer_about_old_pictures_is_not_acted_on():
    """The pictures' age was only checked before asking: an answer that took seconds moved the arm all the same."""
    rig = Rig(replace(SETTINGS, max_chunk_age_s=0.2))
    slow = threading.Event()

    def answer(message: dict) -> Answer:
        slow.wait(0.3)
        return Answer(RAMP, 1.0)

    rig.policy.answer = answer
    rig.loop.start()
    rig.wait("a hold", lambda: any("the answer came too late" in event for event in rig.outlet.events))
    assert rig.outlet.plans == []
    slow.set()
    rig.wait("driving", lambda: rig.outlet.events[-1] == DRIVING)
    rig.close()
    assert rig.outlet.events[0].endswith("older than 0.2 s (parameter max_chunk_age_s)")


def test_an_answer_s_own_stamp_counts():
    rig = Rig(replace(SETTINGS, max_chunk_age_s=0.2))
    rig.policy.answer = lambda message: Answer(RAMP, 1.0, stamp_ns=rig.clock.now().system_ns - S // 2)
    rig.loop.start()
    rig.wait("a hold", lambda: any("the answer came too late" in event for event in rig.outlet.events))
    rig.close()
    assert rig.outlet.plans == []


def test_says_that_it_holds_while_it_waits_for_an_answer(held_back):
    """The status said `driving` for up to request_timeout_s after the last trajectory had ended."""
    asked, release = held_back
    rig = Rig()
    rig.loop.start()
    rig.wait("driving", lambda: rig.outlet.events == [DRIVING])

    def answer(message: dict) -> Answer:
        asked.set()
        if (late := rig.policy.late) is not None and not release.wait(max(0.0, late.at_s - time.monotonic())):
            late.tell()
        release.wait(WAIT_S)
        return Answer(RAMP, 1.0)

    rig.policy.answer = answer
    assert asked.wait(WAIT_S)
    rig.wait("a hold", lambda: rig.outlet.events[-1] == NO_ANSWER_YET)
    last, _ = rig.outlet.plans[-1]
    assert rig.clock.now().mono_ns >= last.end_ns
    release.set()
    rig.wait("driving", lambda: rig.outlet.events[-1] == DRIVING)
    rig.close()
    assert rig.outlet.events.count(NO_ANSWER_YET) == 1


def test_an_arm_that_was_moved_meanwhile_starts_gently_from_where_it_is():
    """Only a gap of 2 s or missing joint states made the loop forget its plan: an arm that had been moved by hand, or
    whose driver had refused the plan, was sent back to the old plan's setpoint at once."""
    rig = Arm(LONG)
    rig.run_until_driving()
    rig.wait("plans that follow the first", lambda: len(rig.outlet.plans) >= 4)
    rig.position = 0.9
    rig._send()
    before = len(rig.policy.messages)
    rig.wait("a plan from there", lambda: any(m["observation.state"][0] > 0.8 for m in rig.policy.messages[before:]))
    before = len(rig.outlet.plans)
    rig.wait("it", lambda: len(rig.outlet.plans) > before + 1)
    rig.close()
    first = next(plan for plan, _ in rig.outlet.plans if plan.positions.max() > 0.5)
    gentle_rad = LONG.rules.velocity_rad_s * LONG.rules.blend_s
    np.testing.assert_allclose(first.positions[0], 0.9, atol=gentle_rad / 2)
    assert first.start_ns - first.stamp_ns >= LONG.rules.blend_s * S
    speeds = np.diff(first.positions[:, 0]) / (np.diff(first.times_ns) / S)
    assert np.abs(speeds).max() <= LONG.rules.velocity_rad_s


def test_a_driver_that_refuses_makes_it_hold_and_what_follows_starts_from_the_arm():
    """Nobody noticed that the driver took up nothing: the status said `driving` while the arm stood, and the plan ran
    on, so that the arm leapt to it when it was resumed."""
    rig = Arm(replace(LONG, follow_timeout_s=0.5))
    rig.run_until_driving()
    rig.refusing = True
    rig.wait("a hold", lambda: rig.outlet.events[-1] == NOT_FOLLOWING)
    before = len(rig.outlet.plans)
    rig.wait("it to keep asking", lambda: len(rig.outlet.plans) >= before + 3)
    assert rig.outlet.events == [DRIVING, NOT_FOLLOWING]
    for plan, _ in rig.outlet.plans[before:]:
        assert np.abs(plan.positions[0] - rig.position).max() < 0.05
        assert plan.start_ns - plan.stamp_ns >= LONG.rules.blend_s * S  # the driver joins from what it holds
    rig.refusing = False
    rig.wait("driving", lambda: rig.outlet.events[-1] == DRIVING)
    rig.close()


def test_a_driver_that_reports_nothing_can_be_believed():
    rig = Arm(replace(LONG, follow_timeout_s=0.0))
    rig.refusing = True
    rig.run_until_driving()
    rig.wait("ten plans", lambda: len(rig.outlet.plans) >= 10)
    rig.close()
    assert rig.outlet.events == [DRIVING]
