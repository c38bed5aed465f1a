"""`evergreen release deploy`: a model's way from its folder to the robots."""

from __future__ import annotations

import argparse
from pathlib import Path

from evergreen.commands import Command
from evergreen.release import options

DETAILS = """\
Packs and signs the folder, brings the model to where the robots can get it (an image in a registry, an artifact
in S3, or an address of yours), writes the recipe of the component's next version, registers it, deploys it and
waits until each robot has told what became of it. Other components of the target's present deployment stay.
What was done before is not done again: the same model to another target needs only the last steps.

Where it fails, or with Ctrl-C, what it made and nobody uses yet is removed; after the deployment was made,
nothing is. Exit code 1 where a robot refused the model or time was up."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model")
    model = parser.add_argument_group("model")
    model.add_argument("--model-version", metavar="V", help="write this version into its manifest first")
    model.add_argument("--key", type=Path, metavar="FILE", help="private key to sign it with")
    model.add_argument("--prompt", default="", metavar="TEXT", help="language instruction (default: the model's own)")
    model.add_argument(
        "--swap",
        choices=("blue_green", "restart"),
        help="how robots replace the running model (default: blue_green, while the old one drives)",
    )
    way = parser.add_argument_group("way")
    way.add_argument("--by", choices=("image", "artifact", "download"), default="image", help="(default: image)")
    way.add_argument(
        "--base", default="", metavar="IMAGE", help="image with the robot's software (default: the target's robot's)"
    )
    add_registry(parser)
    way.add_argument("--dockerfile", type=Path, metavar="FILE", help="(default: docker/Dockerfile.model)")
    way.add_argument("--bucket", default="", metavar="NAME", help="for --by artifact: where it is uploaded to")
    way.add_argument("--prefix", default=options.PREFIX, metavar="TEXT", help="of keys there (default: evergreen/)")
    way.add_argument("--uri", default="", metavar="URI", help="for --by download: where robots find these very files")
    component = parser.add_argument_group("component")
    component.add_argument("--component-version", default="", metavar="V", help="(default: the next)")
    component.add_argument("--nucleus", choices=("classic", "lite"), default="", help="(default: what devices tell)")
    options.add_targets(parser)
    options.add_deployment(parser)
    parser.add_argument(
        "--canary",
        default="",
        metavar="1,10%,100%",
        help="so many of the targets first, and more only when those have taken it",
    )
    options.add_waiting(parser)
    options.add_aws(parser)
    options.add_output(parser)


def add_registry(parser: argparse.ArgumentParser) -> None:
    """Where images go, and what makes them."""
    group = parser.add_argument_group("images")
    group.add_argument("--registry", default="", metavar="ADDRESS", help="(default: Amazon ECR of the account)")
    group.add_argument("--repository", default=options.REPOSITORY, metavar="NAME", help="(default: evergreen)")
    group.add_argument("--create-repository", action="store_true", help="make it in Amazon ECR where there is none")
    group.add_argument("--engine", default="", metavar="NAME", help="podman or docker (default: what is installed)")
    group.add_argument("--platform", default="", metavar="OS/ARCH", help="of the robots, for example linux/arm64")


def run(arguments: argparse.Namespace) -> int:
    """Release."""
    from evergreen.release import program  # noqa: PLC0415  not needed for --help

    return program.deploy(arguments)


VERB = Command(
    summary="bring a model to the robots",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen release deploy models/evergreen-white --group arms --dry-run",
        "evergreen release deploy models/evergreen-white --group arms --key ~/keys/evergreen.pem",
        "evergreen release deploy models/evergreen-white --devices-of arms --canary 1,10%,100%",
        "evergreen release deploy models/evergreen-white --thing arm-7 --by artifact --bucket my-models",
    ),
)
