"""Splitting a prompt into word pieces: by hand, and compared with the package that others use for it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vla_core.errors import ModelError
from vla_core.prompt_tokens import Tokens

PIECES = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "pick",
    "the",
    "black",
    "cube",
    "cub",
    "##e",
    "##s",
    "!",
    "b",
    "##l",
    "雨",
)
TOKENS = Tokens({piece: number for number, piece in enumerate(PIECES)}, 12)


def pieces(text: str) -> list[str]:
    return [PIECES[number] for number in TOKENS.ids(text)]


def test_words_marks_and_pieces() -> None:
    assert pieces("Pick THE  cubes!") == ["[CLS]", "pick", "the", "cube", "##s", "!", "[SEP]"]
    assert pieces("bl xyz") == ["[CLS]", "b", "##l", "[UNK]", "[SEP]"], "a word with an unknown rest is unknown whole"
    assert pieces("") == ["[CLS]", "[SEP]"]


def test_accents_control_characters_and_chinese() -> None:
    assert pieces("bláck\x00 cu\tbe 雨雨") == ["[CLS]", "black", "[UNK]", "b", "##e", "雨", "雨", "[SEP]"]


def test_a_page_of_text_is_cut() -> None:
    assert len(TOKENS.ids("pick the cube " * 10_000)) == 12
    assert pieces("pick " * 50)[-1] == "[SEP]"


def test_a_vocabulary_without_its_special_pieces() -> None:
    with pytest.raises(ModelError, match=r"lacks \[SEP\]"):
        Tokens.parse("[CLS]\n[UNK]\npick", 8)


CHARACTERS = st.one_of(
    st.characters(max_codepoint=0x5FF, exclude_categories=("Cs", "Cn")),
    st.characters(min_codepoint=0x2000, max_codepoint=0x206F, exclude_categories=("Cn",)),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF, exclude_categories=("Cn",)),
    st.sampled_from("🤖😀𠀀\ufffd"),
)
"""Elsewhere some hundred characters are newer than the tables of the package, of which ours know more."""


@settings(max_examples=400, deadline=None)
@given(st.text(CHARACTERS, max_size=60))
@example("put the “black” cube — now…")
@example("naïve Ångström İstanbul ß ﬁ")
@example("a\u200bb \ufffd \x7f \u2028 $5 ^_^ `x`")
@example("nimm den weißen Würfel, 今天天气很好, доброе утро, 🤖🤖")
@example("x" * 101 + " pick")
def test_as_the_package_tokenizers_does_it(text: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token=PIECES[1]))
    theirs.normalizer = tokenizers.normalizers.BertNormalizer()
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    mine = Tokens(vocabulary, 1000).ids(text)
    assert mine == [vocabulary["[CLS]"], *theirs.encode(text).ids, vocabulary["[SEP]"]]
