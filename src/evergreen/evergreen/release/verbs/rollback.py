"""`evergreen release rollback`: the former model again."""

from __future__ import annotations

import argparse

from evergreen.commands import Command
from evergreen.release import options

DETAILS = """\
Finds in AWS which model each target had before the present one, skipping those that were rolled back from, and
deploys that component version again, with its configuration of then. Everything else in the target's deployment
stays as it is now. Works from any computer. Robots have the former model in their store: they need not fetch it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_targets(parser)
    parser.add_argument("--to", default="", metavar="NAME@VERSION", help="which model (default: the former)")
    options.add_waiting(parser)
    options.add_aws(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Roll back."""
    from evergreen.release import program  # noqa: PLC0415  not needed for --help

    return program.rollback(arguments)


VERB = Command(
    summary="deploy the former model again",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen release rollback --group arms",
        "evergreen release rollback --thing arm-7 --to evergreen-black@1.0.0",
    ),
)
