"""ROS parameters from one declaration: a frozen dataclass whose fields carry description, unit and bounds.

    @dataclass(frozen=True, slots=True)
    class Settings:
        rate_hz: float = param(100.0, "rate of the control loop", unit="Hz", minimum=10, maximum=1000)

    settings = declare(node, Settings)

`ros2 param describe` shows the same text, and `table(Settings)` makes the documentation's table of it. Whole numbers
given for a float are accepted. A value of the wrong type or outside its bounds raises ConfigError, which names the
parameter.
"""

from __future__ import annotations

import difflib
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar, get_type_hints

from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException, ParameterException
from rclpy.node import Node

from vla_core.errors import ConfigError

T = TypeVar("T")
DECLARED_LATER = ("qos_overrides.",)
"""Prefixes of parameters that rclpy declares with the publishers."""


def param(
    default: Any,
    description: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one parameter as a dataclass field. Lists are given as tuples."""
    metadata = {
        "description": description,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


def declare(node: Node, settings: type[T], *, read_only: bool = True) -> T:
    """Declare every field of `settings` on `node` and return the values in force.

    A given parameter that nobody declares is reported as a warning: a misspelt limit would otherwise have no effect.

    Raises:
        ConfigError: a value has the wrong type or lies outside its bounds.
    """
    values: dict[str, Any] = {}
    for spec in fields(settings):  # type: ignore[arg-type]
        values[spec.name] = _declare_one(node, spec, read_only)
    _warn_of_unknown(node, list(values))
    try:
        return settings(**values)
    except ConfigError as error:
        raise ConfigError(f"node {node.get_name()}: {error}") from error


def _warn_of_unknown(node: Node, known: list[str]) -> None:
    given = node._parameter_overrides  # noqa: SLF001  rclpy has no other way to ask what was given
    for name in given:
        if name in known or node.has_parameter(name) or name.startswith(DECLARED_LATER):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`ros2 param list` shows those that there are"
        node.get_logger().warning(f"parameter {name!r} is unknown and has no effect; {hint}")


def _declare_one(node: Node, spec: Field[Any], read_only: bool) -> Any:
    default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
    if default is MISSING:
        raise TypeError(f"parameter {spec.name} needs a default")
    descriptor = ParameterDescriptor(
        description=_describe(spec), read_only=read_only, dynamic_typing=isinstance(default, float)
    )
    _add_range(descriptor, spec)
    where = f"node {node.get_name()}: parameter {spec.name!r}"
    try:
        value = node.declare_parameter(spec.name, default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException, ParameterException) as error:
        raise ConfigError(f"{where}: {error}") from error
    return _checked(where, spec, value, default)


def _checked(where: str, spec: Field[Any], value: Any, default: Any) -> Any:
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where} must be a number, not {value!r}")
        value = float(value)
    minimum, maximum, choices = (spec.metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if minimum is not None and value < minimum:
        raise ConfigError(f"{where} is {value}, below its least value {minimum} {spec.metadata['unit']}".rstrip())
    if maximum is not None and value > maximum:
        raise ConfigError(f"{where} is {value}, above its greatest value {maximum} {spec.metadata['unit']}".rstrip())
    if choices and value not in choices:
        raise ConfigError(f"{where} is {value!r}; allowed: {', '.join(choices)}")
    return tuple(value) if isinstance(spec.default, tuple) else value


def _describe(spec: Field[Any]) -> str:
    text = str(spec.metadata.get("description", ""))
    if unit := spec.metadata.get("unit"):
        text += f" [{unit}]"
    if choices := spec.metadata.get("choices"):
        text += f" (one of {', '.join(choices)})"
    return text


def _add_range(descriptor: ParameterDescriptor, spec: Field[Any]) -> None:
    minimum, maximum = spec.metadata.get("minimum"), spec.metadata.get("maximum")
    if minimum is None or maximum is None or isinstance(spec.default, bool | float):
        return  # a range would make rclpy refuse whole numbers for a float; `_checked` and the text do it better
    if isinstance(spec.default, int):
        descriptor.integer_range = [IntegerRange(from_value=int(minimum), to_value=int(maximum), step=0)]


def table(settings: type[Any]) -> str:
    """A Markdown table of the parameters: name, type, default, unit, bounds, description."""
    hints = get_type_hints(settings)
    rows = ["| parameter | type | default | bounds | meaning |", "| --- | --- | --- | --- | --- |"]
    for spec in fields(settings):
        kind = getattr(hints[spec.name], "__name__", str(hints[spec.name]))
        low, high = spec.metadata.get("minimum"), spec.metadata.get("maximum")
        bounds = "" if low is None and high is None else f"{'' if low is None else low}..{'' if high is None else high}"
        rows.append(f"| `{spec.name}` | {kind} | `{spec.default}` | {bounds} | {_describe(spec)} |")
    return "\n".join(rows) + "\n"
