"""The loop shows a model that looks back what happens between its chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from policy_logic import SPEC
from test_policy_loop import RAMP, SETTINGS, Rig

from vla_core.chunk import JoinRules
from vla_policy.schedule import Rhythm
from vla_policy.serving.client import Answer

SLOW = replace(SETTINGS, rules=JoinRules(open_loop_s=1.5, blend_s=0.05), rhythm=Rhythm(1.5))
LOOKING_BACK = replace(SPEC, n_obs_steps=3, observation_period_s=0.05)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(SLOW)
    rig.loaded = replace(rig.loaded, spec=LOOKING_BACK)
    rig.spec = LOOKING_BACK
    rig.policy.answer = answer
    yield rig
    rig.close()


def answer(message: dict) -> Answer:
    """As a server with a memory answers."""
    return Answer(np.zeros((0, 6)) if message.get("observe_only") else RAMP.copy(), 1.0)


def kinds(rig: Rig) -> list[bool]:
    return [bool(message.get("observe_only")) for message in rig.policy.messages]


def test_observations_between_chunks_are_shown_and_command_nothing(rig: Rig) -> None:
    loop = type(rig.loop)(rig.loaded, rig.inbox, rig.outlet, rig.clock)
    rig.loop = loop
    loop.start()
    rig.wait("shown between the second and the third chunk", lambda: kinds(rig).count(False) >= 3)
    asked = [number for number, shown in enumerate(kinds(rig)) if not shown]
    assert asked[0] == 0, "the first message of a session asks"
    assert asked[2] - asked[1] > 1, "nothing was shown between two chunks"
    stamps = [message["stamp_ns"] for message in rig.policy.messages]
    assert stamps == sorted(set(stamps)), "no picture is sent twice"
    commanded = {stamp for _, stamp in list(rig.outlet.plans)}
    assert commanded <= {rig.policy.messages[number]["stamp_ns"] for number in asked}
    assert rig.outlet.defect is None


def test_a_model_that_sees_the_present_only_is_asked_and_no_more() -> None:
    rig = Rig(SLOW)
    rig.loop.start()
    rig.wait("three chunks", lambda: len(rig.outlet.plans) >= 3)
    rig.close()
    assert not any(kinds(rig))


def test_nothing_fresh_to_show_is_no_reason_to_spin(rig: Rig) -> None:
    """A wait of nothing would take a core while a camera is away."""
    loop = type(rig.loop)(rig.loaded, rig.inbox, rig.outlet, rig.clock)
    rig.loop = loop
    looks = 0
    newest = rig.inbox.newest

    def counted():
        nonlocal looks
        looks += 1
        return newest()

    rig.inbox.newest = counted
    loop.start()
    rig.wait("a chunk", lambda: len(rig.outlet.plans) >= 1)
    rig.seeing, before = False, len(rig.outlet.plans)
    looks = 0
    rig.wait("the next chunk", lambda: len(rig.outlet.plans) > before)
    assert looks < 1000
