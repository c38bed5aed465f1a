"""The commands of `evergreen`: one module each, named as the command, with a `COMMAND`.

A module of this folder imports only what its `--help` needs; `run` imports the rest.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand.

    Attributes:
        summary: one line for the list of commands.
        details: what else `--help` should say, wrapped by hand.
        configure: adds the command's arguments to its parser.
        run: does the work and returns the exit code; 0 for done, 1 for failed. It raises EvergreenError with what the
            user can put right.
        examples: command lines for the end of `--help`.
    """

    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    details: str = ""
    examples: tuple[str, ...] = ()


def names() -> list[str]:
    """Every command's name, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Command:
    """The command of this name; KeyError where there is none."""
    if name not in names():
        raise KeyError(name)
    command = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").COMMAND
    if not isinstance(command, Command):
        raise TypeError(f"evergreen.commands.{name}.COMMAND is {command!r}, no Command")
    return command


def every() -> Iterator[tuple[str, Command]]:
    """All commands with their names, sorted."""
    for name in names():
        yield name, load(name)
