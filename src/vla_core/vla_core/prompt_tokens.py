"""From a sentence to the numbers that a BERT-like encoder reads: lower case, no accents, words, pieces of words.

The same as the `BertNormalizer`, `BertPreTokenizer` and `WordPiece` of the package `tokenizers`, which tests compare it
with. That package would bring a client of a model hub along; this is needed once a prompt, and never for speed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from vla_core.errors import ModelError

BEGIN, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
CONTINUED = "##"
"""Before a piece that does not begin a word."""
LONGEST_WORD = 100
"""Characters; a longer one is unknown as a whole."""
_CJK = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)
"""As in the package `tokenizers`, whose table has 0x2B920 where BERT's own has 0x2B820."""
_ASCII_SYMBOLS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class Tokens:
    """A vocabulary, and how text is split by it."""

    def __init__(self, vocabulary: Mapping[str, int], longest: int) -> None:
        """Take a vocabulary with the three special pieces.

        Args:
            vocabulary: piece to its number.
            longest: how many numbers a sentence may become; what follows is not read.

        Raises:
            ModelError: a special piece is missing.
        """
        if missing := [piece for piece in (BEGIN, END, UNKNOWN) if piece not in vocabulary]:
            raise ModelError(f"the prompt encoder's vocabulary lacks {', '.join(missing)}")
        self._vocabulary, self._longest = vocabulary, longest

    @classmethod
    def parse(cls, text: str, longest: int) -> Tokens:
        """Read a vocabulary of one piece a line; its number is the line's.

        Raises:
            ModelError: it lacks what every vocabulary has.
        """
        return cls({piece: number for number, piece in enumerate(text.split("\n")) if piece}, longest)

    @property
    def words(self) -> frozenset[str]:
        """The pieces that are words by themselves."""
        return frozenset(piece for piece in self._vocabulary if piece.isalpha() and len(piece) > 1)

    def ids(self, text: str) -> list[int]:
        """The numbers of `text`, between those of BEGIN and END."""
        found: list[int] = []
        for word in _words(_plain(text)):
            found += self._pieces(word)
            if len(found) > self._longest - 2:
                break
        ends = self._vocabulary
        return [ends[BEGIN], *found[: self._longest - 2], ends[END]]

    def _pieces(self, word: str) -> list[int]:
        """The longest known beginning of the word, and so on; unknown as a whole where a rest is unknown."""
        unknown = [self._vocabulary[UNKNOWN]]
        if len(word) > LONGEST_WORD:
            return unknown
        numbers, begin = [], 0
        while begin < len(word):
            for end in range(len(word), begin, -1):
                number = self._vocabulary.get((CONTINUED if begin else "") + word[begin:end])
                if number is not None:
                    break
            else:
                return unknown
            numbers.append(number)
            begin = end
        return numbers


def _plain(text: str) -> str:
    """Without control characters, capitals and accents; Chinese characters are words of their own."""
    kept = []
    for char in text:
        if char not in "\t\n\r" and (char == "\ufffd" or unicodedata.category(char).startswith("C")):
            continue
        if char.isspace():
            kept.append(" ")
        else:
            kept.append(f" {char} " if _is_cjk(ord(char)) else char)
    decomposed = unicodedata.normalize("NFD", "".join(kept))
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn").lower()


def _words(text: str) -> Iterator[str]:
    """Runs of characters between spaces; every punctuation mark is a word."""
    word = ""
    for char in text:
        if char.isspace() or _is_mark(char):
            if word:
                yield word
            word = ""
            if not char.isspace():
                yield char
        else:
            word += char
    if word:
        yield word


def _is_mark(char: str) -> bool:
    return char in _ASCII_SYMBOLS or unicodedata.category(char).startswith("P")


def _is_cjk(point: int) -> bool:
    return any(first <= point <= last for first, last in _CJK)
