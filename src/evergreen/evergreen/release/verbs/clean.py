"""`evergreen release clean`: remove what a killed release left."""

from __future__ import annotations

import argparse

from evergreen.commands import Command
from evergreen.release import options

DETAILS = """\
A release notes what it makes before it makes it, and removes it where it fails. One that was killed, or lost its
network, could not: this removes its images, uploads and component versions. Releases that run are left alone."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    options.add_aws(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Clean up."""
    from evergreen.release import program  # noqa: PLC0415  not needed for --help

    return program.clean(arguments)


VERB = Command(
    summary="remove what a release that was killed left behind",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen release clean --dry-run",),
)
