"""A release in waves: a few targets first, and the rest only when those have taken the model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vla_core.errors import ConfigError

_SHARE = re.compile(r"(\d{1,4})(%?)")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Share:
    """So many targets, or per cent of them, have the model after this wave."""

    amount: int
    per_cent: bool

    def of(self, total: int) -> int:
        """How many of `total` that are: at least one, at most all."""
        count = math.ceil(self.amount * total / 100) if self.per_cent else self.amount
        return max(1, min(total, count))


def parse(text: str) -> tuple[Share, ...]:
    """`1,10%,100%`.

    Raises:
        ConfigError: another form, nothing, or more than 100 %.
    """
    shares = []
    for word in text.split(","):
        match = _SHARE.fullmatch(word.strip())
        if not match or int(match[1]) == 0 or (match[2] and int(match[1]) > 100):
            raise ConfigError(f"canary {text!r}: write counts or per cent in the order of the waves, as in 1,10%,100%")
        shares.append(Share(int(match[1]), bool(match[2])))
    return tuple(shares)


def split(items: Sequence[Item], shares: Sequence[Share]) -> tuple[tuple[Item, ...], ...]:
    """The waves. Without shares all items are one; what the last share leaves out is in none.

    Raises:
        ConfigError: a later share is smaller than an earlier one.
    """
    if not shares:
        return (tuple(items),)
    ends = [share.of(len(items)) for share in shares]
    if ends != sorted(ends):
        raise ConfigError(f"canary: of {len(items)} targets the waves would reach {ends}, which must not shrink")
    starts = [0, *ends[:-1]]
    return tuple(tuple(items[start:end]) for start, end in zip(starts, ends, strict=True) if end > start)
