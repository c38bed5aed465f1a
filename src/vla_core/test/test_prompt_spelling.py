"""Slips of the typing hand in prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.prompt_spelling import Spelling, count_words, is_one_slip, plain

WORDS = {"pick": 9, "the": 9, "black": 9, "white": 9, "red": 2, "cube": 9, "bed": 2, "back": 2}
SPELLING = Spelling(WORDS, {"reed", "while"})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("pikc teh balck cueb", "pick the black cube"),
        ("Pick the WITE cube!", "Pick the white cube!"),
        ("redd", "red"),
        ("the reed while", "the reed while"),  # words of their own
        ("xed", "xed"),  # red or bed: nobody knows
        ("bl", "bl"),
        ("blakcc", "blakcc"),  # two slips
        ("", ""),
        ("123 rde-cube 日本", "123 red-cube 日本"),
    ],
)
def test_what_becomes_of_words(typed: str, meant: str) -> None:
    assert SPELLING.correct(typed) == meant


LETTERS = st.text("abc", max_size=6)


def distance(one: str, other: str) -> int:
    """Optimal string alignment, by its definition."""
    if not one or not other:
        return len(one) + len(other)
    same = one[-1] == other[-1]
    found = [
        distance(one[:-1], other) + 1,
        distance(one, other[:-1]) + 1,
        distance(one[:-1], other[:-1]) + (not same),
    ]
    if len(one) > 1 and len(other) > 1 and one[-2:] == other[-1:-3:-1]:
        found.append(distance(one[:-2], other[:-2]) + 1)
    return min(found)


@given(LETTERS, LETTERS)
def test_one_slip_is_a_distance_of_one(typed: str, meant: str) -> None:
    assert is_one_slip(typed, meant) == (distance(typed, meant) == 1)


@given(st.text(max_size=200))
def test_it_takes_any_text(text: str) -> None:
    SPELLING.correct(plain(text))


def test_marks_are_not_heard() -> None:
    assert plain("  PICK the cube's snow-white, side!!! … No. 2") == "pick the cube's snow white side no 2"
    assert count_words(["the cube", "The cubes, the 2"]) == {"the": 3, "cube": 1, "cubes": 1}
