"""`evergreen release robot`: the robot's own software to the robots."""

from __future__ import annotations

import argparse
from pathlib import Path

from evergreen.commands import Command
from evergreen.release import options
from evergreen.release.verbs.deploy import add_registry

DETAILS = """\
Pushes an image that docker/Dockerfile made, registers the next version of the component dev.evergreen.Robot and
deploys it. Greengrass's own word decides how it ended: the component reports nothing else. The robot stops while
its container is replaced; a new model needs no such release."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("image", metavar="IMAGE", help="on this computer, or in a registry")
    parser.add_argument(
        "--configuration",
        type=Path,
        metavar="FILE",
        help="JSON object over the recipe's defaults: launch, arguments, devices, settings, ros, signatures",
    )
    add_registry(parser)
    component = parser.add_argument_group("component")
    component.add_argument("--component-version", default="", metavar="V", help="(default: the next)")
    component.add_argument("--nucleus", choices=("classic", "lite"), default="", help="(default: what devices tell)")
    options.add_targets(parser)
    options.add_deployment(parser)
    options.add_waiting(parser)
    options.add_aws(parser)
    options.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Release."""
    from evergreen.release import program  # noqa: PLC0415  not needed for --help

    return program.robot(arguments)


VERB = Command(
    summary="bring the robot's own software to the robots",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen release robot evergreen --group arms --create-repository",),
)
