"""The phrases that are learnt from, and those that are kept for judging."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_core.prompt_spelling import count_words, plain
from vla_training import phrases

TARGETS = phrases.TARGETS


def words_of(texts: tuple[str, ...]) -> set[str]:
    return set(count_words([plain(text) for text in texts]))


def test_nothing_that_judges_was_learnt_from() -> None:
    """Slips of the hand apart: some are known phrases once marks are out."""
    learnt = {plain(text) for target in TARGETS for text in phrases.known(target)}
    learnt |= {plain(text) for kind in phrases.known_refusals().values() for text in kind}
    kept = {
        text
        for target in TARGETS
        for new, texts in phrases.held_out(target).items()
        for text in texts
        if new != "typing"
    }
    kept |= {text for kind in phrases.unseen_refusals().values() for text in kind}
    both = learnt & {plain(text) for text in kept}
    assert both <= {""}, "marks alone are no words"


@pytest.mark.parametrize("target", TARGETS)
def test_new_wordings_have_words_that_no_known_phrase_has(target: str) -> None:
    learnt = set(chain.from_iterable(words_of(phrases.known(other)) for other in TARGETS))
    for text in phrases.held_out(target)["new wording"]:
        assert words_of((text,)) - learnt or "what about" in text or "get" in text, text


@pytest.mark.parametrize("target", TARGETS)
def test_there_is_variety(target: str) -> None:
    assert len(phrases.known(target)) > 300
    assert len(phrases.unseen(target)) > 300
    assert set(phrases.unseen(target)) == set(chain.from_iterable(phrases.held_out(target).values()))
    assert phrases.known(target)[0] == f"pick the {target} cube and put it on the spot"


def test_the_vectors_are_far_apart_and_do_not_change() -> None:
    vectors = np.array([phrases.vector(target) for target in TARGETS])
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(TARGETS)), atol=1e-6)
    assert "".join("+" if value > 0 else "-" for value in vectors[0, :8]) == "+-+-+-+-", (
        "policies were trained with these"
    )


def test_a_target_that_there_is_not() -> None:
    for ask in (phrases.known, phrases.unseen, phrases.vector, phrases.known_words):
        with pytest.raises(ConfigError, match="there are black, white, red, green, blue, yellow"):
            ask("pink")
