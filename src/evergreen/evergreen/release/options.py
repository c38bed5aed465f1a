"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from evergreen.arguments import whole
from evergreen.release.aws import SHADOW

if TYPE_CHECKING:
    from evergreen.release.documents import Policies

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_S = 7 * 24 * 3600.0
DEFAULT_WAIT = "30m"
REPOSITORY, PREFIX = "evergreen", "evergreen/"
"""Defaults: of an image's repository, and of an artifact's key."""


def duration(text: str) -> float:
    """`90s`, `30m`, `2h` as seconds."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else -1.0
    if not 0.0 <= seconds <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text}: write a duration as 90s, 30m or 2h, a week at most")
    return seconds


def add_aws(parser: argparse.ArgumentParser) -> None:
    """`--profile`, `--region`."""
    group = parser.add_argument_group("AWS", "Found as the AWS CLI finds them: arguments, environment, ~/.aws.")
    group.add_argument("--profile", default="", metavar="NAME", help="profile with the credentials")
    group.add_argument("--region", default="", metavar="NAME", help="region of the robots")


def add_targets(parser: argparse.ArgumentParser) -> None:
    """`--thing`, `--group`, `--devices-of`."""
    group = parser.add_argument_group("targets")
    group.add_argument("--thing", action="append", default=[], metavar="NAME", help="one device; may be repeated")
    group.add_argument("--group", action="append", default=[], metavar="NAME", help="a thing group; may be repeated")
    group.add_argument(
        "--devices-of",
        action="append",
        default=[],
        metavar="GROUP",
        help="each device of a group, by itself; may be repeated",
    )


def add_deployment(parser: argparse.ArgumentParser) -> None:
    """`--on-failure` and its kin."""
    group = parser.add_argument_group("deployment", "What is not given stays as the target has it.")
    group.add_argument(
        "--on-failure",
        choices=("rollback", "nothing"),
        help="what a device does that cannot apply it; Greengrass Lite rolls nothing back",
    )
    group.add_argument(
        "--update-timeout",
        type=whole(1, 86400),
        metavar="S",
        help="how long components may put the update off",
    )
    group.add_argument("--no-notify", action="store_true", help="do not ask components whether now is a good time")


def add_waiting(parser: argparse.ArgumentParser, default: str = DEFAULT_WAIT) -> None:
    """`--wait`, `--poll`."""
    group = parser.add_argument_group("waiting")
    group.add_argument(
        "--wait",
        type=duration,
        default=duration(default),
        metavar="TIME",
        help=f"how long to wait for the devices, as 90s, 30m or 2h; 0: not at all (default: {default})",
    )
    group.add_argument("--poll", type=duration, default=5.0, metavar="TIME", help="how often to look (default: 5s)")
    group.add_argument("--shadow", default=SHADOW, metavar="NAME", help="shadow with the reports (default: evergreen)")


def add_output(parser: argparse.ArgumentParser, *, dry_run: bool = True) -> None:
    """`--dry-run`, `--json`."""
    if dry_run:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="print what would be done, and do nothing; asks AWS, so it needs credentials",
        )
    parser.add_argument("--json", action="store_true", help="print JSON, and only that")


def policies_from(arguments: argparse.Namespace) -> Policies:
    """How devices are to apply the deployment."""
    from evergreen.release.documents import Policies  # noqa: PLC0415  takes a second, which --help need not

    on_failure = {"rollback": "ROLLBACK", "nothing": "DO_NOTHING", None: None}[arguments.on_failure]
    return Policies(on_failure, arguments.update_timeout, False if arguments.no_notify else None)
