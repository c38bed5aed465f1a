"""From a launch file and its arguments to the processes to run: conditions, scopes, includes.

It reads files and starts nothing, and comes to the same command lines as ros2 launch.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from evergreen.launch.actions import Action, Argument, Group, Include, Let, Process, PushNamespace, SetEnvironment
from evergreen.launch.context import NAMESPACE, Context
from evergreen.launch.declared import MAX_INCLUDE_DEPTH, declared_arguments
from evergreen.launch.errors import LaunchError
from evergreen.launch.packages import with_workspace
from evergreen.launch.parser import parse_file
from evergreen.launch.plan import LaunchPlan
from evergreen.launch.process import plan_process


def make_plan(
    file: Path, arguments: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
) -> LaunchPlan:
    """Work out what a launch file starts.

    Args:
        file: an XML launch file.
        arguments: launch arguments by name.
        environment: to start from, the process's own by default. The workspace comes in by `packages.with_workspace`.

    Raises:
        LaunchError: naming file, line and element; also for an argument that no file declares or uses.
    """
    start = with_workspace(os.environ if environment is None else environment)
    context = Context(file=file.absolute(), environment=start, variables=dict(arguments or {}))
    _run_file(context, context.file, depth=0)
    _refuse_strangers(context, arguments or {})
    return LaunchPlan(context.file, tuple(context.processes), start)


def _refuse_strangers(context: Context, arguments: Mapping[str, str]) -> None:
    strangers = [name for name in arguments if name not in context.known]
    if not strangers:
        return
    declared = [argument.name for argument in declared_arguments(context.file, context.environment)]
    for name in strangers:
        if name in declared:
            continue
        close = difflib.get_close_matches(name, declared, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it takes: {', '.join(declared) or 'none'}"
        raise LaunchError(f"launch argument {name!r} is unknown to {context.file.name}; {hint}")


def _run_file(context: Context, file: Path, depth: int) -> None:
    if depth > MAX_INCLUDE_DEPTH:
        raise LaunchError(f"{file}: includes are nested more than {MAX_INCLUDE_DEPTH} deep; does it include itself?")
    context.file = file
    _run(context, parse_file(file), depth)


def _run(context: Context, actions: Iterable[Action], depth: int) -> None:
    for action in actions:
        if not context.holds(action):
            if isinstance(action, Argument):
                context.known.add(action.name)
            continue
        match action:
            case Argument():
                _declare(context, action)
            case Let():
                name = context.text(action.name, action.place)
                context.variables[name] = context.text(action.value, action.place)
            case Include():
                _include(context, action, depth)
            case Group():
                _group(context, action, depth)
            case SetEnvironment():
                _set_environment(context, action)
            case PushNamespace():
                _push_namespace(context, action)
            case Process():
                context.processes.append(plan_process(context, action))


def _declare(context: Context, action: Argument) -> None:
    context.known.add(action.name)
    if action.name not in context.variables:
        if action.default is None:
            meaning = f" ({action.description})" if action.description else ""
            raise action.place.error(f"launch argument {action.name!r}{meaning} must be given: {action.name}:=…")
        context.variables[action.name] = context.text(action.default, action.place)
    value = context.variables[action.name]
    if action.choices and value not in action.choices:
        allowed = ", ".join(action.choices)
        raise action.place.error(f"launch argument {action.name!r} is {value!r}; allowed: {allowed}")


def _include(context: Context, action: Include, depth: int) -> None:
    file = Path(context.text(action.file, action.place))
    if not file.is_absolute():
        raise action.place.error(f"file {str(file)!r} is relative to where one stands; write $(dirname)/{file}")
    if not file.is_file():
        raise action.place.error(f"launch file {file} does not exist")
    context.file = file
    for name, value in action.arguments:
        context.variables[context.text(name, action.place)] = context.text(value, action.place)
    _run_file(context, file, depth + 1)


def _group(context: Context, action: Group, depth: int) -> None:
    variables, environment = dict(context.variables), dict(context.environment)
    _run(context, action.actions, depth)
    if action.scoped:
        context.variables, context.environment = variables, environment


def _set_environment(context: Context, action: SetEnvironment) -> None:
    name = context.text(action.name, action.place)
    if action.value is None:
        context.environment.pop(name, None)
    else:
        context.environment[name] = context.text(action.value, action.place)


def _push_namespace(context: Context, action: PushNamespace) -> None:
    pushed = context.text(action.namespace, action.place)
    context.variables[NAMESPACE] = context.namespace_below(pushed, action.place) or "/"
