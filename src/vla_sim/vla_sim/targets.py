"""Which cube a prompt asks for. Needs no physics, so that commands can look before they load any."""

from __future__ import annotations

import re
from typing import Final

from vla_core.errors import ConfigError

CUBES: Final = ("black", "white")
"""The cubes of models that know one each; a scene has them as objects of their own."""
NAMED: Final = (*CUBES, "red", "green", "blue", "yellow")
"""Colours that can be asked for, by the word that names them."""

MOST_CUBES: Final = 4
"""On a table: as many objects as a scene has."""


def target_of(prompt: str) -> str:
    """The cube that a prompt names by the word of its colour.

    Raises:
        ConfigError: none, or several.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    named = [target for target in NAMED if target in words]
    if len(named) != 1:
        how = f"names {' and '.join(named)}" if named else "names no cube"
        raise ConfigError(f"prompt {prompt!r} {how}; it must name one of {', '.join(NAMED)}")
    return named[0]
