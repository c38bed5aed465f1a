"""The `evergreen` command.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted. What the user can put right is one line
on standard error, never a traceback.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from evergreen import commands
from vla_core.errors import ConfigError, EvergreenError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's last flush would fail again
        return EXIT_FAILED


def _dispatch(words: list[str]) -> int:
    if words and words[0] == "help":
        words = [*words[1:2], "--help"]
    if not words:
        print(overview(), file=sys.stderr)
        return EXIT_USAGE
    first, rest = words[0], words[1:]
    if first in ("-h", "--help"):
        print(overview())
        return 0
    if first == "--version":
        print(f"evergreen {version()}")
        return 0
    try:
        command = commands.load(first)
    except KeyError:
        raise ConfigError(_unknown(first)) from None
    try:
        return command.run(make_parser(first, command).parse_args(rest))
    except SystemExit as leaving:  # argparse has printed its help or what is wrong
        return leaving.code if isinstance(leaving.code, int) else EXIT_USAGE


def make_parser(name: str, command: commands.Command) -> argparse.ArgumentParser:
    """The parser of one command."""
    epilog = "examples:\n" + "\n".join(f"  {example}" for example in command.examples) if command.examples else None
    parser = argparse.ArgumentParser(
        prog=f"evergreen {name}",
        description="\n\n".join(filter(None, (command.summary, command.details))),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.configure(parser)
    return parser


def overview() -> str:
    """The list of commands."""
    listed = dict(commands.every())
    width = max(map(len, listed), default=0)
    lines = [f"  {name:{width}}  {command.summary}" for name, command in listed.items()]
    return "\n".join(
        [
            "usage: evergreen [--version] [-h] command …",
            "",
            "A robot arm whose AI model never goes stale.",
            "",
            "commands:",
            *lines,
            "",
            "`evergreen command --help` tells more about one.",
        ]
    )


def version() -> str:
    """The installed version, or 'unknown' in a tree that is not installed."""
    try:
        return importlib.metadata.version("evergreen")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _unknown(name: str) -> str:
    kind = "option" if name.startswith("-") else "command"
    close = difflib.get_close_matches(name, commands.names(), n=1)
    hint = f"did you mean `evergreen {close[0]}`?" if close else f"there are: {', '.join(commands.names())}"
    return f"unknown {kind} {name!r}; {hint}"


if __name__ == "__main__":
    sys.exit(main())
