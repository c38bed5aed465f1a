"""From elements to actions, as strict as Jazzy's frontend: an unknown element or attribute is an error."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from evergreen.launch.actions import (
    SIGKILL_AFTER_S,
    SIGTERM_AFTER_S,
    Action,
    Argument,
    Condition,
    Executable,
    Group,
    Include,
    Let,
    Node,
    ParameterFile,
    Parameters,
    PushNamespace,
    SetEnvironment,
)
from evergreen.launch.document import Element, read
from evergreen.launch.errors import Place
from evergreen.launch.substitutions import Template, as_bool, parse
from evergreen.launch.values import Value, read_value

CONDITIONS = ("if", "unless")
PROCESS = (
    *CONDITIONS,
    "cwd",
    "launch-prefix",
    "on_exit",
    "output",
    "respawn",
    "respawn_delay",
    "respawn_max_retries",
    "sigkill_timeout",
    "sigterm_timeout",
)
UNSUPPORTED = {
    "shell": "commands never go through a shell; write the program and its arguments",
    "emulate_tty": "processes write to pipes; Python's output is unbuffered anyway",
    "forwarding": "groups always see the configurations around them",
    "node-name": "write name",
}
"""Attributes that Jazzy knows and this runner does not, with what to do instead."""


def parse_file(path: Path) -> tuple[Action, ...]:
    """Read a launch file into its actions.

    Raises:
        LaunchError: naming file, line and element.
    """
    root = read(path)
    if root.tag != "launch":
        raise root.place.error("a launch file's outermost element is <launch>")
    _check(root, attributes=("deprecated",))
    return _actions(root.children)


def _actions(elements: Iterable[Element]) -> tuple[Action, ...]:
    return tuple(_action(element) for element in elements)


def _action(element: Element) -> Action:
    parse_one = _PARSERS.get(element.tag)
    if parse_one is None:
        close = difflib.get_close_matches(element.tag, _PARSERS, n=1)
        hint = f"did you mean <{close[0]}>?" if close else f"known: {', '.join(sorted(_PARSERS))}"
        raise element.place.error(f"unknown element; {hint}")
    return parse_one(element)


# --- attributes ------------------------------------------------------------------------------------------------------


def _check(
    element: Element,
    *,
    attributes: Iterable[str] = (),
    required: Iterable[str] = (),
    children: Iterable[str] | None = None,
) -> None:
    """Refuse attributes and children outside these lists. `children=None` leaves the children to the caller."""
    required = tuple(required)
    allowed = {*attributes, *required}
    for name in element.attributes:
        if name in allowed:
            continue
        if name in UNSUPPORTED:
            raise element.place.error(f"attribute {name!r} is not supported: {UNSUPPORTED[name]}")
        raise element.place.error(f"unknown attribute {name!r}; allowed: {', '.join(sorted(allowed))}")
    for name in required:
        if name not in element.attributes:
            raise element.place.error(f"attribute {name!r} is missing")
    for child in element.children if children is not None else ():
        if child.tag not in (children or ()):
            allowed_text = ", ".join(f"<{tag}>" for tag in children or ()) or "nothing"
            raise child.place.error(f"unknown element in <{element.tag}>; allowed: {allowed_text}")


def _template(element: Element, name: str) -> Template | None:
    text = element.attributes.get(name)
    return None if text is None else parse(text, element.place)


def _needed(element: Element, name: str) -> Template:
    return parse(element.attributes[name], element.place)


def _condition(element: Element) -> Condition | None:
    given = [name for name in CONDITIONS if name in element.attributes]
    if len(given) == 2:
        raise element.place.error("if and unless exclude each other")
    return Condition(_needed(element, given[0]), given[0] == "if") if given else None


def _common(element: Element) -> dict[str, Any]:
    return {"place": element.place, "condition": _condition(element)}


def _number(element: Element, name: str, default: float) -> float:
    text = element.attributes.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise element.place.error(f"{name} is {text!r}; a number of seconds of 0 or more is needed, no substitution")
    return value


def _unescaped(text: str) -> str:
    """Texts that take no substitutions still drop one backslash before each character."""
    return re.sub(r"\\(.)", r"\1", text)


def _pairs(element: Element, tag: str, first: str, second: str) -> tuple[tuple[Template, Template], ...]:
    pairs = []
    for child in element.named(tag):
        _check(child, required=(first, second), children=())
        pairs.append((_needed(child, first), _needed(child, second)))
    return tuple(pairs)


def split_command(text: str, place: Place) -> tuple[Template, ...]:
    """Split a command line into words as a shell would; a substitution never falls apart into several words."""
    words: list[Template] = []
    word: list[Any] = []

    def end_word() -> None:
        if word:
            words.append(Template(tuple(word)))
            word.clear()

    for part in parse(text, place).parts:
        if not isinstance(part, str):
            word.append(part)
            continue
        try:
            tokens = shlex.split(part)
        except ValueError as error:
            raise place.error(f"in {part!r}: {error} (a quotation cannot reach over a substitution)") from error
        if part[0].isspace():
            end_word()
        for index, token in enumerate(tokens):
            if index:
                end_word()
            word.append(token)
        if part[-1].isspace():
            end_word()
    end_word()
    return tuple(words)


# --- elements --------------------------------------------------------------------------------------------------------


def _arg(element: Element) -> Argument:
    _check(element, attributes=("default", "description", *CONDITIONS), required=("name",), children=("choice",))
    choices = []
    for child in element.named("choice"):
        _check(child, required=("value",), children=())
        choices.append(_unescaped(child.attributes["value"]))
    return Argument(
        **_common(element),
        name=_unescaped(element.attributes["name"]),
        default=_template(element, "default"),
        description=_unescaped(element.attributes.get("description", "")),
        choices=tuple(choices),
    )


def _let(element: Element) -> Let:
    _check(element, attributes=CONDITIONS, required=("name", "value"), children=())
    return Let(**_common(element), name=_needed(element, "name"), value=_needed(element, "value"))


def _include(element: Element) -> Include:
    _check(element, attributes=CONDITIONS, required=("file",), children=("arg",))
    return Include(**_common(element), file=_needed(element, "file"), arguments=_pairs(element, "arg", "name", "value"))


def _group(element: Element) -> Group:
    _check(element, attributes=("scoped", *CONDITIONS))
    if keep := element.named("keep"):
        raise keep[0].place.error("not supported: groups always see the configurations around them")
    text = element.attributes.get("scoped", "true")
    try:
        scoped = as_bool(text)
    except ValueError as error:
        raise element.place.error(f"scoped: {error}, and takes no substitution") from error
    return Group(**_common(element), actions=_actions(element.children), scoped=scoped)


def _set_env(element: Element) -> SetEnvironment:
    _check(element, attributes=CONDITIONS, required=("name", "value"), children=())
    return SetEnvironment(**_common(element), name=_needed(element, "name"), value=_needed(element, "value"))


def _unset_env(element: Element) -> SetEnvironment:
    _check(element, attributes=CONDITIONS, required=("name",), children=())
    return SetEnvironment(**_common(element), name=_needed(element, "name"), value=None)


def _push_namespace(element: Element) -> PushNamespace:
    _check(element, attributes=CONDITIONS, required=("namespace",), children=())
    return PushNamespace(**_common(element), namespace=_needed(element, "namespace"))


def _process(element: Element) -> dict[str, Any]:
    on_exit = element.attributes.get("on_exit")
    if on_exit not in (None, "shutdown"):
        raise element.place.error(f"on_exit is {on_exit!r}; allowed: shutdown")
    retries = element.attributes.get("respawn_max_retries", "-1")
    if not re.fullmatch(r"[+-]?\d+", retries):
        raise element.place.error(f"respawn_max_retries is {retries!r}; a whole number is needed, no substitution")
    return {
        **_common(element),
        "environment": _pairs(element, "env", "name", "value"),
        "cwd": _template(element, "cwd"),
        "output": _template(element, "output"),
        "prefix": _template(element, "launch-prefix"),
        "respawn": _template(element, "respawn"),
        "respawn_delay_s": _number(element, "respawn_delay", 0.0),
        "respawn_limit": int(retries),
        "required": on_exit == "shutdown",
        "sigterm_after_s": _number(element, "sigterm_timeout", SIGTERM_AFTER_S),
        "sigkill_after_s": _number(element, "sigkill_timeout", SIGKILL_AFTER_S),
    }


def _executable(element: Element) -> Executable:
    _check(element, attributes=("name", *PROCESS), required=("cmd",), children=("env",))
    command = split_command(element.attributes["cmd"], element.place)
    if not command:
        raise element.place.error("cmd is empty")
    return Executable(**_process(element), command=command, name=_template(element, "name"))


def _node(element: Element) -> Node:
    _check(
        element,
        attributes=("pkg", "name", "namespace", "exec_name", "args", "ros_args", *PROCESS),
        required=("exec",),
        children=("param", "remap", "env"),
    )
    ros_arguments = element.attributes.get("ros_args")
    return Node(
        **_process(element),
        executable=_needed(element, "exec"),
        package=_template(element, "pkg"),
        name=_template(element, "name"),
        namespace=_template(element, "namespace"),
        label=_template(element, "exec_name"),
        arguments=split_command(element.attributes.get("args", ""), element.place),
        ros_arguments=None if ros_arguments is None else split_command(ros_arguments, element.place),
        remappings=_pairs(element, "remap", "from", "to"),
        parameters=tuple(_param(child) for child in element.named("param")),
    )


def _param(element: Element) -> ParameterFile | Parameters:
    if "from" in element.attributes:
        if "name" in element.attributes:
            raise element.place.error("name and from exclude each other")
        _check(element, attributes=("allow_substs",), required=("from",), children=())
        return ParameterFile(
            path=_needed(element, "from"), substitute=_template(element, "allow_substs"), place=element.place
        )
    values: dict[tuple[Template, ...], tuple[Value, Place]] = {}
    _named_param(element, (), values)
    return Parameters(values=values)


def _named_param(
    element: Element, outer: tuple[Template, ...], values: dict[tuple[Template, ...], tuple[Value, Place]]
) -> None:
    _check(element, attributes=("value", "type", "value-sep"), required=("name",), children=("param",))
    name = (*outer, _needed(element, "name"))
    text = element.attributes.get("value")
    if (text is None) == (not element.children):
        raise element.place.error("either a value or nested <param> elements are needed, not both")
    if text is not None:
        attributes = element.attributes
        value = read_value(text, attributes.get("type"), attributes.get("value-sep"), element.place)
        values[name] = (value, element.place)
        return
    if "type" in element.attributes:
        raise element.place.error("type and nested <param> elements exclude each other")
    for child in element.children:
        _named_param(child, name, values)


_PARSERS: dict[str, Callable[[Element], Action]] = {
    "arg": _arg,
    "let": _let,
    "include": _include,
    "group": _group,
    "node": _node,
    "executable": _executable,
    "set_env": _set_env,
    "unset_env": _unset_env,
    "push_ros_namespace": _push_namespace,
    "push-ros-namespace": _push_namespace,
}
