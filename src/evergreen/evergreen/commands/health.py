"""`evergreen health`: is the graph of this robot alive? For containers, service managers and people."""

from __future__ import annotations

import argparse
import json
import time

from evergreen.arguments import above_0
from evergreen.commands import Command

DETAILS = """\
robot   well while the arm sends joint states and the policy's node works and has a model, whether it drives, holds or
        was stopped
model   well while the bridge works and is connected to the nucleus

The exit code is 0 where all is well, 1 where not; one line says why. It listens until everything was heard, so that it
takes about a second where all is well and the whole timeout where something is missing."""
POLL_S = 0.05


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("part", nargs="?", choices=("robot", "model"), default="robot", help="default: robot")
    parser.add_argument(
        "--timeout", type=above_0(600), default=10.0, metavar="S", help="how long to listen; default 10"
    )
    parser.add_argument("--namespace", default="", help="of the robot")
    parser.add_argument("--json", action="store_true", help="write one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Listen and judge."""
    from evergreen.health.judge import Heard, judge, missing  # noqa: PLC0415  not needed for --help
    from evergreen.health.node import HealthNode  # noqa: PLC0415
    from vla_ros.spinning import spinning  # noqa: PLC0415

    heard = Heard()
    began_s = time.monotonic()
    with spinning(lambda: HealthNode(heard), arguments.namespace):
        while missing(arguments.part, heard) and time.monotonic() - began_s < arguments.timeout:
            time.sleep(POLL_S)
        verdict = judge(arguments.part, heard, time.monotonic() - began_s)
    if arguments.json:
        print(json.dumps({"healthy": verdict.healthy, "sentence": verdict.sentence}))
    else:
        print(f"{'healthy' if verdict.healthy else 'unhealthy'}: {verdict.sentence}")
    return 0 if verdict.healthy else 1


COMMAND = Command(
    summary="tell whether the robot's graph is alive",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen health", "evergreen health model --json"),
)
