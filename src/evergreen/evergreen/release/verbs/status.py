"""`evergreen release status`: what became of the latest deployment."""

from __future__ import annotations

import argparse

from evergreen.commands import Command
from evergreen.release import options

DETAILS = """\
Shows of each device how the target's latest deployment stands there: Greengrass's word together with the robot's
own report. Exit code 1 where a device did not take it, or where --wait ended before each had answered."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_targets(parser)
    options.add_waiting(parser, default="0")
    options.add_aws(parser)
    options.add_output(parser, dry_run=False)


def run(arguments: argparse.Namespace) -> int:
    """Look."""
    from evergreen.release import program  # noqa: PLC0415  not needed for --help

    return program.status(arguments)


VERB = Command(
    summary="show what became of the latest deployment, and go on waiting",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen release status --group arms", "evergreen release status --group arms --wait 2h"),
)
