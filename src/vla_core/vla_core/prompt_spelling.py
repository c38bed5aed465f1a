"""Slips of the typing hand: a word that nobody knows becomes the one known word that is a single slip away.

A sentence encoder reads "balck" as the pieces "bal" and "ck", in which no black is left. A word that the encoder has in
its vocabulary is never touched, however near another is: "reed" stays, "redd" becomes "red".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping

SHORTEST = 3
"""Letters: in shorter words everything is a slip away from everything."""
COMMONER = 4
"""Of two words that are both one slip away the commoner was meant, if it is so many times commoner."""
_WORD = re.compile(r"[^\W\d_]+")
_SOUNDED = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


class Spelling:
    """Corrects towards some words."""

    def __init__(self, words: Mapping[str, int], known: Collection[str]) -> None:
        """Take lower-case words: `words` to correct to with how common each is, and `known` ones to leave alone too."""
        self._words = {word: count for word, count in words.items() if len(word) >= SHORTEST}
        self._known = {*words, *known}

    def correct(self, text: str) -> str:
        """`text` with every unknown word replaced that is one slip away from one word only, or from none as common."""
        return _WORD.sub(lambda found: self._correct(found.group()), text)

    def _correct(self, word: str) -> str:
        plain = word.lower()
        if len(plain) < SHORTEST or plain in self._known:
            return word
        near = sorted(
            ((count, other) for other, count in self._words.items() if is_one_slip(plain, other)), reverse=True
        )
        if not near or (len(near) > 1 and near[0][0] < COMMONER * near[1][0]):
            return word
        return near[0][1]


def plain(text: str) -> str:
    """Its words and numbers in lower case, and nothing between them: marks are not heard."""
    return " ".join(_SOUNDED.findall(text.lower()))


def count_words(texts: Collection[str]) -> Mapping[str, int]:
    """How often each word is in `texts`, in lower case."""
    return Counter(word.lower() for text in texts for word in _WORD.findall(text))


def is_one_slip(typed: str, meant: str) -> bool:
    """Whether one letter was left out, put in or mistaken, or two neighbours exchanged."""
    if typed == meant or abs(len(typed) - len(meant)) > 1:
        return False
    begin = 0
    while begin < min(len(typed), len(meant)) and typed[begin] == meant[begin]:
        begin += 1
    rest, wanted = typed[begin:], meant[begin:]
    if len(typed) != len(meant):
        return rest[1:] == wanted or rest == wanted[1:]
    return rest[1:] == wanted[1:] or (rest[:2] == wanted[1::-1] and rest[2:] == wanted[2:])
