"""One recipe of each kind to read; `python -m gg_bridge.recipes --examples src/gg_bridge/recipes` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gg_bridge.recipes.facts import NUCLEI, WAYS, Facts, Way
from gg_bridge.recipes.render import render, to_text

_DIGEST: Final = "0123456789abcdef" * 4
_IMAGE: Final = f"registry.example.org/evergreen@sha256:{_DIGEST}"
_MODEL: Final = "evergreen-white@1.1.0"
_ARCHIVE: Final = "evergreen-white-1.1.0.tar.gz"

FACTS: Final[Mapping[Way, Facts]] = MappingProxyType(
    {
        "robot": Facts("1.0.0", _IMAGE),
        "image": Facts("1.1.0", f"registry.example.org/evergreen-model@sha256:{_DIGEST}", _MODEL),
        "artifact": Facts("1.1.0", _IMAGE, _MODEL, f"s3://example-bucket/{_ARCHIVE}", _DIGEST, 26_600_000),
        "script": Facts("1.1.0", _IMAGE, _MODEL, f"https://models.example.org/{_ARCHIVE}", _DIGEST),
    }
)


def examples() -> dict[str, str]:
    """Name of the file to its text, for every way and nucleus."""
    return {f"{way}.{nucleus}.json": to_text(render(way, nucleus, FACTS[way])) for way in WAYS for nucleus in NUCLEI}
