"""`$(…)` in launch files: the grammar of Jazzy's frontend, and what each substitution stands for.

A backslash takes the next character literally. Inside `$(name arguments)` arguments are separated by one space; an
argument with spaces is quoted with ' or ". Nothing here runs code: `eval` and `command` are refused.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from evergreen.launch.errors import Place


@dataclass(frozen=True, slots=True)
class Call:
    """One `$(name argument …)`."""

    name: str
    arguments: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """Text with substitutions in it, in order."""

    parts: tuple[str | Call, ...]

    @property
    def constant(self) -> str | None:
        """The text, where there is no substitution in it."""
        return "".join(map(str, self.parts)) if all(isinstance(part, str) for part in self.parts) else None


class Scope(Protocol):
    """What substitutions look things up in."""

    @property
    def file(self) -> Path:
        """The launch file that ros2 launch would hold for the current one."""
        ...

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables, as `set_env` left them."""
        ...

    @property
    def variables(self) -> dict[str, str]:
        """Launch configurations by name."""
        ...

    def variable(self, name: str) -> str | None:
        """A launch configuration, or None."""
        ...

    def prefix(self, package: str) -> Path:
        """Install prefix of a package; LaunchError if it is not installed."""
        ...

    def executable(self, package: str, name: str) -> Path:
        """An executable of a package; LaunchError if it is not installed."""
        ...


# --- grammar ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Recursive descent over one attribute value."""

    def __init__(self, text: str, place: Place) -> None:
        self._text = text
        self._place = place
        self._at = 0

    def template(self) -> Template:
        return self._parts(stop="", quote="")

    def _parts(self, stop: str, quote: str) -> Template:
        """Read up to a character of `stop`. Inside a call `quote` is the quotation around it, else ''."""
        parts: list[str | Call] = []
        text = ""
        while self._at < len(self._text) and self._text[self._at] not in stop:
            if self._text.startswith("$(", self._at):
                if text:
                    parts.append(text)
                    text = ""
                parts.append(self._call(quote))
            elif self._text[self._at] == "\\" and self._at + 1 < len(self._text):
                text += self._text[self._at + 1]
                self._at += 2
            else:
                text += self._text[self._at]
                self._at += 1
        if text:
            parts.append(text)
        return Template(tuple(parts))

    def _call(self, quote: str) -> Call:
        start = self._at
        self._at += 2
        name = self._identifier(start)
        arguments: list[Template] = []
        while self._peek() == " ":
            self._at += 1
            arguments.append(self._argument(start, quote))
        if self._peek() != ")":
            found = self._peek() or "its end"
            raise self._error(start, f"expected ')' or one space before {found!r}")
        self._at += 1
        return _checked(Call(name, tuple(arguments)), self._place)

    def _identifier(self, start: int) -> str:
        begin = self._at
        while self._at < len(self._text) and (self._text[self._at].isalnum() or self._text[self._at] in "_-"):
            self._at += 1
        name = self._text[begin : self._at]
        if not name or not name[0].isalpha():
            raise self._error(start, "a substitution's name is missing")
        return name

    def _argument(self, start: int, quote: str) -> Template:
        mark = self._peek()
        if not quote and mark and mark in "'\"":
            self._at += 1
            template = self._parts(stop=mark, quote=mark)
            if self._peek() != mark:
                raise self._error(start, f"the quotation {mark} is not closed")
            self._at += 1
            return template
        template = self._parts(stop=" ()" + (quote or "'\""), quote=quote)
        if not template.parts:
            raise self._error(start, "an argument is missing; arguments are separated by one space")
        return template

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _error(self, start: int, message: str) -> Exception:
        return self._place.error(f"in {self._text[start:]!r}: {message}")


def parse(text: str, place: Place) -> Template:
    """Read the substitutions in one attribute value; LaunchError where it does not follow the grammar."""
    return _Reader(text, place).template()


# --- meanings --------------------------------------------------------------------------------------------------------


class _Evaluation:
    """One template's evaluation; carries the place for messages."""

    def __init__(self, scope: Scope, place: Place) -> None:
        self.scope = scope
        self.place = place

    def text(self, template: Template) -> str:
        return "".join(part if isinstance(part, str) else self._call(part) for part in template.parts)

    def truth(self, template: Template) -> bool:
        text = self.text(template)
        try:
            return as_bool(text)
        except ValueError as error:
            raise self.place.error(str(error)) from error

    def _call(self, call: Call) -> str:
        return _KNOWN[call.name].function(self, call.arguments)


def as_bool(text: str) -> bool:
    """YAML's truth values, and 0 and 1; ValueError otherwise."""
    try:
        value = {"0": False, "1": True}.get(text, yaml.safe_load(text) if text else None)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, bool):
        raise ValueError(f"{text!r} is neither true nor false")  # noqa: TRY004  one error for every wrong text
    return value


def as_condition(text: str) -> bool:
    """What `if` and `unless` accept: true, false, 1, 0; ValueError otherwise."""
    value = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if value is None:
        raise ValueError(f"{text!r} is no condition; allowed: true, false, 1, 0")
    return value


Arguments = Sequence[Template]


def _var(this: _Evaluation, arguments: Arguments) -> str:
    name = this.text(arguments[0])
    value = this.scope.variable(name)
    if value is not None:
        return value
    if len(arguments) == 1:
        raise this.place.error(f"launch configuration {name!r} does not exist; declare it with <arg name={name!r}/>")
    return this.text(arguments[1])


def _env(this: _Evaluation, arguments: Arguments) -> str:
    name = this.text(arguments[0])
    value = this.scope.environment.get(name)
    if value is not None:
        return value
    if len(arguments) == 1:
        raise this.place.error(f"environment variable {name!r} is not set; write $(env {name} default)")
    return this.text(arguments[1])


def _same(this: _Evaluation, what: str, current: Path, written: Path) -> str:
    if current != written:
        # Jazzy forgets to go back to the including file: the same text would mean two things in two runners.
        raise this.place.error(
            f"in and after an include, Jazzy's ros2 launch reads $({what}) as {current}, not as {written}; "
            "use $(find-pkg-share package)"
        )
    return str(current)


def _dirname(this: _Evaluation, _arguments: Arguments) -> str:
    return _same(this, "dirname", this.scope.file.parent, this.place.file.parent)


def _filename(this: _Evaluation, _arguments: Arguments) -> str:
    return _same(this, "filename", this.scope.file, this.place.file)


def _find_pkg_prefix(this: _Evaluation, arguments: Arguments) -> str:
    return str(this.scope.prefix(this.text(arguments[0])))


def _find_pkg_share(this: _Evaluation, arguments: Arguments) -> str:
    package = this.text(arguments[0])
    return str(this.scope.prefix(package) / "share" / package)


def _exec_in_pkg(this: _Evaluation, arguments: Arguments) -> str:
    return str(this.scope.executable(this.text(arguments[1]), this.text(arguments[0])))


def _find_exec(this: _Evaluation, arguments: Arguments) -> str:
    name = this.text(arguments[0])
    found = shutil.which(name, path=this.scope.environment.get("PATH"))
    if found is None:
        raise this.place.error(f"no executable {name!r} on the PATH")
    return found


def _file_content(this: _Evaluation, arguments: Arguments) -> str:
    path = Path(this.text(arguments[0]))
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise this.place.error(f"file {path}: {error.strerror or error}") from error


def _anon(this: _Evaluation, arguments: Arguments) -> str:
    name = this.text(arguments[0])
    variables = this.scope.variables
    if f"anon{name}" not in variables:
        unique = f"{name}_{socket.gethostname()}_{os.getpid()}_{random.randint(0, sys.maxsize)}"  # noqa: S311
        variables[f"anon{name}"] = "".join("_" if character in ".-:" else character for character in unique)
    return variables[f"anon{name}"]


def _equal(this: _Evaluation, arguments: Arguments) -> bool:
    left, right = (this.text(argument) for argument in arguments)
    truths = ("true", "false", "1", "0")
    if left.lower() in truths and right.lower() in truths:
        return (left.lower() in truths[::2]) == (right.lower() in truths[::2])
    try:
        return math.isclose(float(left), float(right))
    except ValueError:
        return left == right


def _word(value: bool) -> str:
    return "true" if value else "false"


def _if(this: _Evaluation, arguments: Arguments) -> str:
    if this.truth(arguments[0]):
        return this.text(arguments[1])
    return this.text(arguments[2]) if len(arguments) == 3 else ""


@dataclass(frozen=True, slots=True)
class _Known:
    function: Callable[[_Evaluation, Arguments], str]
    least: int
    most: int


_KNOWN = {
    "var": _Known(_var, 1, 2),
    "env": _Known(_env, 1, 2),
    "dirname": _Known(_dirname, 0, 0),
    "filename": _Known(_filename, 0, 0),
    "find-pkg-share": _Known(_find_pkg_share, 1, 1),
    "find-pkg-prefix": _Known(_find_pkg_prefix, 1, 1),
    "exec-in-pkg": _Known(_exec_in_pkg, 2, 2),
    "find-exec": _Known(_find_exec, 1, 1),
    "file-content": _Known(_file_content, 1, 1),
    "anon": _Known(_anon, 1, 1),
    "equals": _Known(lambda this, arguments: _word(_equal(this, arguments)), 2, 2),
    "not-equals": _Known(lambda this, arguments: _word(not _equal(this, arguments)), 2, 2),
    "not": _Known(lambda this, arguments: _word(not this.truth(arguments[0])), 1, 1),
    "and": _Known(lambda this, arguments: _word(all(this.truth(argument) for argument in arguments)), 2, 2),
    "or": _Known(lambda this, arguments: _word(any(this.truth(argument) for argument in arguments)), 2, 2),
    "if": _Known(_if, 2, 3),
}
_REFUSED = {
    "eval": "it would run code from a launch file",
    "command": "it would run a command while the file is read; use $(file-content path) for a file's text",
    "any": "Jazzy's XML frontend fails on it; use $(or a b)",
    "all": "Jazzy's XML frontend fails on it; use $(and a b)",
    "param": "global parameters are not supported",
    "log_dir": "the log folder is chosen by --log-dir",
    "launch_log_dir": "the log folder is chosen by --log-dir",
}


def _checked(call: Call, place: Place) -> Call:
    if call.name in _REFUSED:
        raise place.error(f"the substitution $({call.name} …) is not supported: {_REFUSED[call.name]}")
    known = _KNOWN.get(call.name)
    if known is None:
        raise place.error(f"unknown substitution $({call.name} …); known: {', '.join(sorted(_KNOWN))}")
    count = len(call.arguments)
    if not known.least <= count <= known.most:
        allowed = str(known.least) if known.least == known.most else f"{known.least} or {known.most}"
        raise place.error(f"$({call.name} …) takes {allowed} argument(s), not {count}")
    if call.name in ("equals", "not-equals") and not all(argument.parts for argument in call.arguments):
        raise place.error(f"$({call.name} …) with an empty quotation: Jazzy compares with '[]' there, not with nothing")
    return call


def evaluate(template: Template, scope: Scope, place: Place) -> str:
    """Put in what the substitutions stand for; LaunchError where one cannot be resolved."""
    return _Evaluation(scope, place).text(template)
