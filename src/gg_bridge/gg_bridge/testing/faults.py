"""What tests make the stand-in do wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vla_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Faults:
    """Each set holds operations such as `GetConfiguration`; `Connect` is the greeting. Nothing is wrong by default.

    Attributes:
        delay_s: before every answer.
        mute: never answered.
        deny: refused as if the recipe's access control lacked them.
        fail: answered with a ServiceError.
        lacking: answered as an operation that this nucleus does not have.
        malform: answered with JSON of another shape than the operation's.
        garble: answered with what is no JSON.
        cut: the connection breaks in the middle of the answer.
        repeat_events: how often each event is sent.
        reverse_events: the events of one change come last first.
    """

    delay_s: float = 0.0
    mute: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    fail: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()
    malform: frozenset[str] = frozenset()
    garble: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    repeat_events: int = 1
    reverse_events: bool = False

    def __post_init__(self) -> None:
        if self.delay_s < 0:
            raise ConfigError(f"delay_s is {self.delay_s}; it must not be negative")
        if self.repeat_events < 1:
            raise ConfigError(f"repeat_events is {self.repeat_events}; it must be 1 or more")


def faults_from(settings: Mapping[str, Any]) -> Faults:
    """Faults from JSON, with lists for sets.

    Raises:
        ConfigError: an unknown name, or a value of another kind.
    """
    known = {field.name: field.default for field in fields(Faults)}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"no fault {name!r}: there are {', '.join(known)}")
        default = known[name]
        wanted: tuple[type, ...] = (
            (list,)
            if isinstance(default, frozenset)
            else (int, float)
            if isinstance(default, float)
            else (type(default),)
        )
        if not isinstance(value, wanted):
            raise ConfigError(f"fault {name} is {value!r}; it must be {' or '.join(kind.__name__ for kind in wanted)}")
        values[name] = frozenset(map(str, value)) if isinstance(value, list) else value
    return Faults(**values)
