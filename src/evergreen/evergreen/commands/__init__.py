"""The commands of `evergreen`: one module each, named as the command, with a `COMMAND`.

A module of this folder imports only what its `--help` needs; `run` imports the rest.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
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


def names(folders: Iterable[str] = __path__) -> list[str]:
    """Every command's name, sorted; or the names of the modules in these folders."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folders))


def load(name: str, package: str = __name__, attribute: str = "COMMAND") -> Command:
    """The command of this name; KeyError where there is none. `package` may be one of a command's verbs."""
    if name not in names(importlib.import_module(package).__path__):
        raise KeyError(name)
    command = getattr(importlib.import_module(f"{package}.{name.replace('-', '_')}"), attribute)
    if not isinstance(command, Command):
        raise TypeError(f"{package}.{name}.{attribute} is {command!r}, no Command")
    return command


def add_verbs(parser: argparse.ArgumentParser, package: str) -> None:
    """Make a command of the verbs in a package: the parsed arguments then have the chosen verb's `run`."""
    chosen = parser.add_subparsers(dest="verb", metavar="verb", required=True, title="verbs")
    for name in names(importlib.import_module(package).__path__):
        verb = load(name, package, "VERB")
        epilog = "examples:\n" + "\n".join(f"  {example}" for example in verb.examples) if verb.examples else None
        below = chosen.add_parser(
            name,
            help=verb.summary,
            description="\n\n".join(filter(None, (verb.summary, verb.details))),
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.configure(below)
        below.set_defaults(run=verb.run)


def run_verb(arguments: argparse.Namespace) -> int:
    """Run the verb that `add_verbs` chose."""
    code: int = arguments.run(arguments)
    return code


def every() -> Iterator[tuple[str, Command]]:
    """All commands with their names, sorted."""
    for name in names():
        yield name, load(name)
