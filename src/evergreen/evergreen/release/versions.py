"""Versions of Greengrass components: each may be used once, so a release takes the next one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from evergreen.release.errors import ReleaseError
from vla_core.errors import ConfigError

FIRST = "1.0.0"
_SEMVER = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
_MARK_CHARACTERS = 8
"""Of a hash: enough to tell the builds of one model's version from each other."""


def parse(text: str) -> tuple[int, int, int] | None:
    """`1.2.3` as numbers; None for anything else, such as a pre-release."""
    match = _SEMVER.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def next_after(present: Iterable[str]) -> str:
    """The highest of the present versions with its last number raised."""
    known = [version for version in map(parse, present) if version is not None]
    if not known:
        return FIRST
    major, minor, patch = max(known)
    return f"{major}.{minor}.{patch + 1}"


def newest(present: Iterable[str]) -> str:
    """The highest of the present versions; empty where there is none."""
    known = [(parsed, version) for version in present if (parsed := parse(version)) is not None]
    return max(known)[1] if known else ""


def demand_form(wanted: str) -> None:
    """Refuse what is no component version.

    Raises:
        ConfigError: the wanted one is none.
    """
    if parse(wanted) is None:
        raise ConfigError(f"component version {wanted!r} is not of the form 1.4.0; leave it out to take the next one")


def choose(wanted: str, present: Iterable[str], component: str) -> str:
    """The version of the new component: the wanted one, or the next.

    Raises:
        ConfigError: the wanted one is no version.
        ReleaseError: it is there already.
    """
    versions = list(present)
    if not wanted:
        return next_after(versions)
    demand_form(wanted)
    if wanted in versions:
        raise ReleaseError(
            f"{component} {wanted} is there already, and a version cannot be replaced; the next free one is "
            f"{next_after(versions)}, which is taken without --component-version"
        )
    return wanted


def image_tag(name: str, version: str, *contents: str) -> str:
    """`name-version-hash`: the same contents have the same tag, so that nothing is built or pushed twice."""
    mark = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:_MARK_CHARACTERS]
    return f"{name}-{version}"[: 127 - _MARK_CHARACTERS] + f"-{mark}"
