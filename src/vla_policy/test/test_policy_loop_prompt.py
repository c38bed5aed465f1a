"""What the control loop does with prompts: an unclear one holds the arm, the next clear one moves it again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from test_policy_loop import RAMP, Rig

from vla_core.prompt_phrases import Match
from vla_policy.serving.client import Answer

UNCLEAR = "prompt 'sing' asks for nothing known: it is nearest to 'dance for me' (0.91)"
DRIVING = "driving tiny@1"


def answer(message: dict) -> Answer:
    """As a listening server answers."""
    text = message["prompt"]
    if text == "sing":
        return Answer(np.zeros((0, 6)), 1.0, match=Match(text, "", "dance for me", 0.91, UNCLEAR))
    return Answer(RAMP.copy(), 1.0, match=Match(text, "black", "the black cube", 0.97))


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.policy.answer = answer
    yield rig
    rig.close()


def say(rig: Rig, prompt: str) -> None:
    rig.inbox.put_prompt(prompt, rig.clock.now())
    rig.loop.poke()


def test_an_unclear_prompt_holds_and_the_next_clear_one_resumes(rig: Rig) -> None:
    rig.loop.start()
    rig.wait("to drive", lambda: rig.outlet.events == [DRIVING])
    say(rig, "sing")
    rig.wait("to hold", lambda: rig.outlet.events[-1] == UNCLEAR)
    asked, plans = len(rig.policy.messages), len(rig.outlet.plans)
    rig.inbox.nudge()
    say(rig, "the dark one")
    rig.wait("to resume", lambda: rig.outlet.events == [DRIVING, UNCLEAR, DRIVING])
    assert len(rig.outlet.plans) > plans, "it moves again"
    assert [message["prompt"] for message in rig.policy.messages[asked:]].count("sing") <= 1, (
        "and asks no more about it"
    )
    assert [match and match.target for match in rig.outlet.matches] == ["black", "", "black"], "each is told once"


def test_an_unclear_prompt_from_the_start_commands_nothing(rig: Rig) -> None:
    rig.inbox.put_prompt("sing")
    rig.loop.start()
    rig.wait("to hold", lambda: UNCLEAR in rig.outlet.events)
    assert rig.outlet.plans == []


def test_a_server_that_says_nothing_of_prompts_ends_what_was_said(rig: Rig) -> None:
    rig.loop.start()
    rig.wait("to drive", lambda: bool(rig.outlet.matches))
    rig.policy.answer = lambda message: Answer(RAMP.copy(), 1.0)
    rig.wait("the news", lambda: rig.outlet.matches[-1] is None)


def test_the_first_chunk_after_a_prompt_tells_how_long_it_took(rig: Rig) -> None:
    rig.loop.start()
    rig.wait("to drive", lambda: bool(rig.outlet.timings))
    assert rig.outlet.timings[0][0].prompt_ms is None, "the model's own prompt did not arrive"
    before = rig.clock.now().mono_ns
    say(rig, "the dark one")
    rig.wait("a chunk", lambda: any(timing.prompt_ms for timing, _ in rig.outlet.timings))
    count = len(rig.outlet.timings)
    rig.wait("another", lambda: len(rig.outlet.timings) > count)
    told = [timing for timing, _ in rig.outlet.timings if timing.prompt_ms is not None]
    assert len(told) == 1, "the next chunk follows no new prompt"
    assert 0 < told[0].prompt_ms < (rig.clock.now().mono_ns - before) / 1e6
    assert told[0].values()["prompt_ms"] == told[0].prompt_ms
