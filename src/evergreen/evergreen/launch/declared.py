"""The arguments that a launch file takes, found without launching it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evergreen.launch.actions import Action, Argument, Group, Include, Let
from evergreen.launch.context import Context
from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.packages import with_workspace
from evergreen.launch.parser import parse_file
from evergreen.launch.substitutions import Template

MAX_INCLUDE_DEPTH = 32
"""Deeper than any sensible nesting: a file that includes itself."""


@dataclass(frozen=True, slots=True)
class DeclaredArgument:
    """An argument that a launch file takes; `default` as it is written, None where it must be given."""

    name: str
    default: str | None
    description: str
    choices: tuple[str, ...]
    place: Place


def declared_arguments(file: Path, environment: Mapping[str, str] | None = None) -> tuple[DeclaredArgument, ...]:
    """The arguments that a launch file takes, with those of its includes that it leaves open.

    Includes whose file depends on an argument without default are left out.
    """
    start = with_workspace(os.environ if environment is None else environment)
    found: dict[str, DeclaredArgument] = {}
    context = Context(file=file.absolute(), environment=start, variables={})
    _collect(context, parse_file(context.file), found, frozenset(), depth=0)
    return tuple(found.values())


def _collect(
    context: Context,
    actions: Iterable[Action],
    found: dict[str, DeclaredArgument],
    settled: frozenset[str],
    depth: int,
) -> None:
    """Gather declared arguments; those in `settled` are passed on by an include and not open to the user."""
    for action in actions:
        match action:
            case Argument(name=name) if name not in found and name not in settled:
                default = None if action.default is None else as_written(action.default)
                found[name] = DeclaredArgument(name, default, action.description, action.choices, action.place)
                _assume(context, action)
            case Let(name=name, value=value):
                _quietly(context, name, value, action.place)
            case Group(actions=inner):
                _collect(context, inner, found, settled, depth)
            case Include() if depth < MAX_INCLUDE_DEPTH:
                _collect_include(context, action, found, settled, depth)


def _collect_include(
    context: Context, action: Include, found: dict[str, DeclaredArgument], settled: frozenset[str], depth: int
) -> None:
    try:
        file = Path(context.text(action.file, action.place))
        inner = parse_file(file)
        passed = frozenset(context.text(name, action.place) for name, _ in action.arguments)
    except LaunchError:
        return  # not resolvable without arguments; launching will say so
    before, context.file = context.file, file
    _collect(context, inner, found, settled | passed, depth + 1)
    context.file = before


def _assume(context: Context, action: Argument) -> None:
    if action.default is not None and action.name not in context.variables:
        _quietly(context, Template((action.name,)), action.default, action.place)


def _quietly(context: Context, name: Template, value: Template, place: Place) -> None:
    try:
        context.variables[context.text(name, place)] = context.text(value, place)
    except LaunchError:
        return  # left open: what depends on it cannot be shown


def as_written(template: Template) -> str:
    """The template as its author may have written it."""
    return "".join(
        part if isinstance(part, str) else f"$({' '.join([part.name, *map(_argument, part.arguments)])})"
        for part in template.parts
    )


def _argument(template: Template) -> str:
    text = as_written(template)
    spaced = any(" " in part for part in template.parts if isinstance(part, str))
    return f"'{text}'" if spaced or not text else text
