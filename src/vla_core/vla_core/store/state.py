"""`state.json`: which model the robot boots, which one to go back to, which ones it refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vla_core.errors import StoreError
from vla_core.store import durable
from vla_core.store.labels import check_label

FILE_NAME = "state.json"
PREVIOUS_NAME = "state.previous.json"
FORMAT = 1
MAX_REFUSED = 100
"""Older refusals are forgotten, lest the file grow for ever."""


class StateDamagedError(StoreError):
    """Neither copy of the state can be read; writing it anew is the cure."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the store remembers about its models.

    Attributes:
        current: label of the model that the robot boots; "" for none.
        last_good: label of the last model that passed its probation; "" for none.
        refused: label to the reason why it shall not be tried again.
        recent: labels in the order of their last use, the latest last. An order and no times: a robot without a
            battery-backed clock boots in 1970.
    """

    current: str = ""
    last_good: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    recent: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for label in filter(None, (self.current, self.last_good, *self.refused, *self.recent)):
            check_label(label)
        object.__setattr__(self, "refused", dict(self.refused))

    @property
    def kept(self) -> frozenset[str]:
        """What is never evicted."""
        return frozenset(filter(None, (self.current, self.last_good)))

    def used(self, label: str) -> StoreState:
        """With `label` as the latest used."""
        return replace(self, recent=(*(other for other in self.recent if other != label), label))

    def without(self, label: str) -> StoreState:
        """With `label` no longer among the used."""
        return replace(self, recent=tuple(other for other in self.recent if other != label))

    def refusing(self, label: str, reason: str) -> StoreState:
        """With `label` refused."""
        refused = {other: why for other, why in self.refused.items() if other != label} | {label: reason}
        return replace(self, refused=dict(list(refused.items())[-MAX_REFUSED:]))

    def allowing(self, label: str) -> StoreState:
        """With `label` no longer refused."""
        return replace(self, refused={other: why for other, why in self.refused.items() if other != label})


def to_json(state: StoreState) -> str:
    """The text of `state.json`."""
    document = {
        "format": FORMAT,
        "current": state.current,
        "last_good": state.last_good,
        "refused": dict(state.refused),
        "recent": list(state.recent),
    }
    return json.dumps(document, indent=2) + "\n"


def read(root: Path) -> StoreState:
    """The state of the store at `root`; the one before where the newest is unreadable; empty where there is none.

    Raises:
        StateDamagedError: no copy can be read, which power loss alone cannot do.
        StoreError: another release wrote it.
    """
    reasons = []
    for name in (FILE_NAME, PREVIOUS_NAME):
        try:
            return _parse((root / name).read_text(encoding="utf-8"), root / name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reasons.append(f"{root / name}: {error}")
    if reasons:
        raise StateDamagedError(f"{'; '.join(reasons)}. `evergreen model use NAME@VERSION` writes it anew")
    return StoreState()


def write(root: Path, state: StoreState) -> None:
    """Replace the state durably; the one before stays beside it."""
    path, previous = root / FILE_NAME, root / PREVIOUS_NAME
    if path.exists():
        link = previous.with_name(previous.name + ".new")
        with contextlib.suppress(OSError):  # some file systems have no links; the copy is a comfort
            link.unlink(missing_ok=True)
            link.hardlink_to(path)
            link.replace(previous)
    durable.replace_text(path, to_json(state))


def _parse(text: str, path: Path) -> StoreState:
    document: Any = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("is no JSON object")  # noqa: TRY004  one kind for all that is wrong in a file
    if document.get("format") != FORMAT:
        raise StoreError(f"{path}: format {document.get('format')!r} was written by another release than this one")
    try:
        return StoreState(
            current=document["current"],
            last_good=document["last_good"],
            refused=document["refused"],
            recent=tuple(document.get("recent", ())),
        )
    except (KeyError, TypeError, AttributeError, StoreError) as error:
        raise ValueError(f"malformed: {error}") from error
