"""The types of parameter values: YAML's rules, as launch_ros applies them to `<param value= type= value-sep=>`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from evergreen.launch import rcl_yaml
from evergreen.launch.errors import Place
from evergreen.launch.substitutions import Scope, Template, as_bool, evaluate, parse

Scalar = bool | int | float | str
ParameterValue = Scalar | list[Scalar]
SCALARS = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type that the author asked for."""

    scalar: type[Scalar]
    many: bool


KINDS: dict[str, Kind | None] = {
    "bool": Kind(bool, False),
    "int": Kind(int, False),
    "float": Kind(float, False),
    "str": Kind(str, False),
    "list_of_bool": Kind(bool, True),
    "list_of_int": Kind(int, True),
    "list_of_float": Kind(float, True),
    "list_of_str": Kind(str, True),
    "yaml": None,
}
"""Type names of the XML frontend; None lets YAML decide."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value before its substitutions are known: one item, or several."""

    kind: Kind | None
    content: Scalar | Template | tuple[Scalar | Template, ...]


def read_value(text: str, kind_name: str | None, separator: str | None, place: Place) -> Value:
    """Read the attributes of one `<param>`.

    Args:
        text: its `value`.
        kind_name: its `type`, or None.
        separator: its `value-sep`, or None.
        place: for messages.

    Raises:
        LaunchError: the text does not fit the type, or is neither a scalar nor a uniform list.
    """
    if kind_name is not None and kind_name not in KINDS:
        raise place.error(f"unknown type {kind_name!r}; allowed: {', '.join(KINDS)}")
    kind = KINDS[kind_name] if kind_name is not None else None
    try:
        if separator is None:
            raw = _coerce(text, kind, lenient=True)
        elif kind is not None and not kind.many:
            raise ValueError(f"value-sep makes a list, but type is {kind_name}")  # noqa: TRY301
        else:
            item = None if kind is None else Kind(kind.scalar, False)
            raw = [_one(_coerce(part, item, lenient=True)) for part in text.split(separator)]
            _check_list(raw, lenient=True)
    except ValueError as error:
        raise place.error(str(error)) from error
    return Value(kind, _with_templates(raw, kind, place))


def _with_templates(
    raw: ParameterValue, kind: Kind | None, place: Place
) -> Scalar | Template | tuple[Scalar | Template, ...]:
    if not isinstance(raw, list):
        content = _template(raw, place)
        if kind is not None and not isinstance(content, Template) and type(content) is not kind.scalar:
            raise place.error(f"{raw!r} is no {kind.scalar.__name__}")
        return content
    items = tuple(_template(item, place) for item in raw)
    types = {type(item) for item in items} - {Template}
    if len(types) > 1:
        raise place.error(f"the list {raw!r} mixes types; all items must have one")
    if kind is not None and types - {kind.scalar}:
        raise place.error(f"the list {raw!r} holds other items than {kind.scalar.__name__}")
    return items


def _template(raw: Scalar, place: Place) -> Scalar | Template:
    if not isinstance(raw, str):
        return raw
    template = parse(raw, place)
    constant = template.constant
    return template if constant is None else constant


def resolve(value: Value, scope: Scope, place: Place) -> ParameterValue:
    """Put in the substitutions and give the result its type; LaunchError where it has none."""
    content = value.content
    try:
        if isinstance(content, Template):
            return _coerce(evaluate(content, scope, place), value.kind)
        if not isinstance(content, tuple):
            return content
        item = None if value.kind is None else Kind(value.kind.scalar, False)
        items = [
            _one(_coerce(evaluate(part, scope, place), item)) if isinstance(part, Template) else part
            for part in content
        ]
        _check_list(items)
    except ValueError as error:
        raise place.error(str(error)) from error
    return items


def _coerce(text: str, kind: Kind | None, *, lenient: bool = False) -> ParameterValue:
    """Give text a type. `lenient`: text that holds substitutions yet may stay text."""
    if kind is None:
        return _by_yaml(text, lenient=lenient)
    if kind.many:
        value = _by_yaml(text, lenient=lenient, load=yaml.safe_load)
        allowed = (str, kind.scalar) if lenient else (kind.scalar,)
        if not isinstance(value, list) or not all(isinstance(item, allowed) for item in value):
            if lenient and isinstance(value, str):
                raise ValueError(f"{text!r} is no list; write it as YAML, [a, b]")
            raise ValueError(f"{text!r} is no list of {kind.scalar.__name__}")
        return value
    if kind.scalar is str:
        return text
    try:
        return as_bool(text) if kind.scalar is bool else kind.scalar(text)
    except ValueError as error:
        if lenient and "$(" in text:
            return text
        raise ValueError(f"{text!r} is no {kind.scalar.__name__}") from error


def _by_yaml(text: str, *, lenient: bool, load: Callable[[str], Any] = rcl_yaml.load) -> ParameterValue:
    """Let YAML decide; where the author gave no type, with the numbers that rcl would find when it reads the value."""
    if not text:
        return text
    try:
        value = load(text)
    except yaml.YAMLError as error:
        if lenient:
            return text
        raise ValueError(f"{text!r} is no YAML; give type='str' if it is meant as text") from error
    if isinstance(value, list):
        _check_list(value, lenient=lenient)
        return value
    if not isinstance(value, SCALARS):
        message = f"{text!r} is {type(value).__name__} to YAML; a parameter is a scalar or a uniform list"
        raise ValueError(message)  # noqa: TRY004  one error for every wrong text
    return value


def _check_list(items: list[Any], *, lenient: bool = False) -> None:
    first = next((type(item) for item in items if type(item) is not str), str)
    allowed = (first, str) if lenient else (first,)
    if first not in SCALARS or not all(isinstance(item, allowed) for item in items):
        raise ValueError(f"the list {items!r} mixes types; all items must have one")


def _one(value: ParameterValue) -> Scalar:
    if isinstance(value, list):
        raise ValueError(f"a list of lists is no parameter: {value!r}")  # noqa: TRY004  one error for every wrong text
    return value
