"""The line in the demo's terminal: a real terminal, typed into as a person does."""

from __future__ import annotations

import io
import os
import pty
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evergreen.demo.asked import Conversation, Request
from evergreen.demo.models import Choice
from evergreen.demo.prompts import PromptLine, asked_for, asked_next
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_core.manifest import Manifest


def wait_for(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_lines_from_a_terminal() -> None:
    master, slave = pty.openpty()
    heard: list[str] = []
    with os.fdopen(slave, "r", encoding="utf-8") as stream, PromptLine(heard.append, stream) as line:
        assert line.listens
        os.write(master, "the white one, please\n\n  the därk one  \n".encode())
        wait_for(lambda: len(heard) == 2)
        os.write(master, b"\x04")  # Ctrl-D ends the typing, not the demo
    assert heard == ["the white one, please", "the därk one"]
    os.close(master)


def test_it_ends_while_nobody_types() -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "r", encoding="utf-8") as stream, PromptLine(pytest.fail, stream):
        pass
    os.close(master)


def test_what_is_no_terminal_is_left_alone() -> None:
    stream = io.StringIO("the white one\n")
    with PromptLine(pytest.fail, stream) as line:
        assert not line.listens
    assert stream.read() == "the white one\n"
    stream.close()
    assert not PromptLine(pytest.fail, stream).listens


def choice(policy_type: str) -> Choice:
    prompt = "put the black cube on the spot"
    manifest = Manifest("tiny", "1", policy_type, "onnx", SO101_JOINTS, prompt=prompt)
    return Choice(Path("tiny"), manifest, "test")


def test_a_model_that_does_not_listen_is_not_told_anything_else() -> None:
    assert asked_for(choice("act"), "") == "black"
    assert asked_for(choice("expert"), "the white cube") == "white"
    with pytest.raises(ConfigError, match="tiny@1 does not listen: it always does 'put the black cube on the spot'"):
        asked_for(choice("act"), "the white cube")


WHITE, BLACK, RED = (Request(f"the {colour} one", colour) for colour in ("white", "black", "red"))


def test_the_plan_goes_on_once_the_arm_has_lifted_what_was_asked_for() -> None:
    asked = Conversation([WHITE, BLACK, RED], 0)
    assert asked.next(lifted=False) is None
    assert asked.next(lifted=True) == "the black one"
    assert asked.next(lifted=True) is None, "what was said is not in force yet, and it is the white one that is lifted"
    asked.hear("the black one", "", 2.5, 25)
    assert (asked.target, asked.excused) == ("black", ("white",))
    assert asked.next(lifted=False) is None
    assert asked.next(lifted=True) == "the red one"
    asked.hear("the red one", "red", 6.0, 60)
    assert asked.next(lifted=True) is None
    assert (asked.target, asked.excused) == ("red", ("white", "black"))
    assert [turn.as_dict() for turn in asked.turns] == [
        {"prompt": "the white one", "target": "white", "at_s": 0.0},
        {"prompt": "the black one", "target": "black", "at_s": 2.5},
        {"prompt": "the red one", "target": "red", "at_s": 6.0},
    ]


def test_what_a_person_types_between_waits_for_its_meaning_and_ends_the_plan() -> None:
    asked = Conversation([WHITE, BLACK], 0)
    asked.hear("the white one", "white", 0.1, 1)
    assert len(asked.turns) == 1
    asked.hear("sing a song", "", 1.0, 10)
    assert asked.target == "white"
    assert asked.next(lifted=True) is None
    asked.hear("the milky one", "", 2.0, 20)
    asked.hear("the milky one", "white", 2.1, 21)
    assert [turn.request.target for turn in asked.turns] == ["white", "", "white"]
    assert (asked.excused, asked.turns[-1].at_s) == ((), 2.0)
    assert asked.next(lifted=True) is None


def test_a_plan_that_cannot_be_is_refused_before_anything_starts() -> None:
    assert asked_next(choice("act"), (), "black") == ()
    assert asked_next(choice("expert"), ("now white",), "black") == (Request("now white", "white"),)
    with pytest.raises(ConfigError, match="tiny@1 does not listen"):
        asked_next(choice("act"), ("the black cube",), "black")
    with pytest.raises(ConfigError, match="needs a sentence"):
        asked_next(choice("expert"), (" ",), "black")
    with pytest.raises(ConfigError, match="black, white, black are asked for; name each once"):
        asked_next(choice("expert"), ("white", "black"), "black")
    with pytest.raises(ConfigError, match="and 4 at most"):
        asked_next(choice("expert"), ("white", "red", "green", "blue"), "black")


def test_a_placed_cube_is_no_success_while_the_plan_goes_on() -> None:
    asked = Conversation([WHITE, BLACK], 0)
    assert asked.goes_on
    assert asked.next(lifted=True) == "the black one"
    assert asked.goes_on, "it was said, and is not in force"
    asked.hear("the black one", "black", 1.0, 10)
    assert not asked.goes_on
    assert not Conversation([WHITE], 0).goes_on


def test_an_episode_may_begin_with_a_prompt_that_asks_for_nothing() -> None:
    asked = Conversation([Request("sing a song", "")], 0, "black")
    asked.hear("sing a song", "", 0.5, 5)
    assert (asked.target, asked.excused, asked.goes_on) == ("black", (), False)
