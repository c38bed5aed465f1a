"""The sentences that are drawn for the prompt encoder to learn from."""

from __future__ import annotations

from functools import cache
from itertools import chain

import pytest

from vla_core.errors import ConfigError
from vla_core.prompt_spelling import plain
from vla_training import phrases, phrases_grammar
from vla_training.phrases_grammar import Part

FEW = 200
TARGETS = phrases.TARGETS


@cache
def drawn() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Requests by target and refusals by kind, as the encoder learns from them."""
    asking = {target: phrases_grammar.requests(target, phrases_grammar.PER_TARGET, 0) for target in TARGETS}
    return asking, dict(phrases_grammar.refusals(phrases_grammar.PER_KIND, 0))


def all_plain(*groups: dict[str, tuple[str, ...]]) -> set[str]:
    return {plain(text) for group in groups for texts in group.values() for text in texts}


def test_no_sentence_that_judges_is_drawn() -> None:
    judging = {plain(text) for target in TARGETS for text in phrases.unseen(target)}
    judging |= {plain(text) for texts in phrases.unseen_refusals().values() for text in texts}
    assert not all_plain(*drawn()) & judging


def test_no_word_for_a_colour_that_judges_is_drawn() -> None:
    texts = [f" {text} " for text in all_plain(*drawn())]
    for word in chain.from_iterable(phrases.unseen_words(target) for target in TARGETS):
        assert not [text for text in texts if f" {plain(word)} " in text]


@pytest.mark.parametrize("part", Part)
def test_every_target_and_every_kind_has_as_many(part: Part) -> None:
    asking = {target: phrases_grammar.requests(target, FEW, 0, part) for target in TARGETS}
    for group in (asking, phrases_grammar.refusals(FEW, 0, part)):
        for name, texts in group.items():
            assert len(set(texts)) == FEW, name
            assert not any(mark in text for text in texts for mark in "<>{}"), name


def test_refusals_have_no_sentence_that_asks() -> None:
    asking, refused = drawn()
    known = {target: phrases.known(target) for target in TARGETS}
    assert not all_plain(asking, known) & all_plain(refused)
    assert not all_plain(asking) & all_plain(dict(phrases.known_refusals()))


def test_a_sentence_asks_for_one_target_only() -> None:
    asking, _ = drawn()
    for target, other in ((a, b) for a in TARGETS for b in TARGETS if a != b):
        assert not all_plain({target: asking[target]}) & all_plain({other: asking[other]})


def test_the_same_seed_draws_the_same() -> None:
    assert phrases_grammar.requests("red", FEW, 0) == drawn()[0]["red"][:FEW]
    assert phrases_grammar.requests("red", FEW, 0) != phrases_grammar.requests("red", FEW, 1)


def test_what_is_kept_back_is_not_learnt() -> None:
    learnt, kept = (set(phrases_grammar.requests("red", FEW, 0, part)) for part in (Part.LEARNT, Part.KEPT))
    assert not learnt & kept


def test_the_rules_that_have_parts_kept_back_have_enough() -> None:
    for rule in phrases_grammar.KEPT_RULES:
        assert rule in phrases_grammar.RULES, rule
        kept = [text for text in phrases_grammar.RULES[rule] if phrases_grammar.is_kept_back(rule, text)]
        assert 0 < len(kept) < len(phrases_grammar.RULES[rule]) / 2, rule


def test_its_words_are_those_of_its_sentences() -> None:
    assert {"fetch", "brick", "circle", "please", "don't"} <= phrases_grammar.words()


def test_a_target_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="there are black, white"):
        phrases_grammar.requests("pink", 1, 0)
