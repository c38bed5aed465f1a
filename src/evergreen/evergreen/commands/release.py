"""`evergreen release`: bring a model to the robots through AWS IoT Greengrass."""

from __future__ import annotations

import argparse

from evergreen.commands import Command, add_verbs, run_verb

DETAILS = """\
What a person would do by hand: pack, sign, build an image, push it, write a recipe, raise its version, create the
deployment and watch it, with the time that each step took. docs/release.md begins without an AWS account."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    add_verbs(parser, "evergreen.release.verbs")


COMMAND = Command(
    summary="bring a model to the robots through AWS IoT Greengrass",
    details=DETAILS,
    configure=configure,
    run=run_verb,
    examples=(
        "evergreen release deploy models/evergreen-white --group arms",
        "evergreen release status --group arms --wait 2h",
        "evergreen release rollback --group arms",
    ),
)
