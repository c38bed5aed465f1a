"""`evergreen teach`: lead the arm by hand, and let it repeat."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from evergreen.arguments import above_0
from evergreen.commands import Command

SQUEEZE_RAD = 0.15
"""`vla_core.taught.SQUEEZE_RAD`, which would load numpy for a `--help`; a test keeps the two equal."""

DETAILS = """\
record listens to the arm's joints while they move and writes a file. With --limp the arm goes limp first: HOLD IT, or
it falls. At the end, and also at Ctrl-C, it holds where it stands.

replay goes slowly and straight to where the file begins, and plays it through the arm driver, within the driver's
limits. Ctrl-C stops the arm, which then holds. It looks at nothing: what stands elsewhere than it stood is missed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="record|replay")
    record = verbs.add_parser("record", help="listen while a hand leads the arm")
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="to write, for example wave.json")
    record.add_argument("--duration", type=above_0(600), metavar="S", help="end after so many seconds (default: a key)")
    record.add_argument("--limp", action="store_true", help="let the arm go limp; hold it before you do")
    record.add_argument(
        "--sim-hand", default="", metavar="CUBE", help="in simulation: a hand shows how to place this cube"
    )
    record.add_argument("--control", type=Path, metavar="PATH", help="the simulator's control socket, for --sim-hand")
    replay = verbs.add_parser("replay", help="repeat what was taught")
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.add_argument("--speed", type=above_0(600), default=1.0, metavar="X", help="times as fast (default: 1)")
    replay.add_argument(
        "--squeeze",
        type=_angle,
        default=SQUEEZE_RAD,
        metavar="RAD",
        help="how much further the gripper closes than it was led, to hold what it touched (default: %(default)s)",
    )
    for each in (record, replay):
        each.add_argument("--namespace", default="", help="of the robot")
        each.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do what the verb says."""
    output = sys.stderr if arguments.json else sys.stdout

    def say(sentence: str) -> None:
        print(sentence, file=output, flush=True)

    if arguments.verb == "record":
        from evergreen.teach import record  # noqa: PLC0415  rclpy is slow to import, and `--help` needs none of it

        options = record.Options(
            arguments.out,
            arguments.duration,
            arguments.limp,
            arguments.sim_hand,
            arguments.control,
            arguments.namespace,
        )
        lesson = record.record(options, say)
        facts = {"file": str(arguments.out), "duration_s": lesson.duration_s, "poses": len(lesson.positions)}
        code = 0
    else:
        from evergreen.teach import replay  # noqa: PLC0415  as above

        outcome = replay.replay(
            replay.Options(arguments.file, arguments.speed, arguments.squeeze, arguments.namespace), say
        )
        facts = {
            "finished": outcome.finished,
            "duration_s": outcome.duration_s,
            "largest_error_rad": outcome.largest_error_rad,
            "mean_error_rad": outcome.mean_error_rad,
        }
        code = 0 if outcome.finished else 130  # as every interrupted command
    if arguments.json:
        print(json.dumps(facts))
    return code


def _angle(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: 0 to 1 rad is needed")
    return value


COMMAND = Command(
    summary="lead the arm by hand, and let it repeat",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen teach record --limp --out wave.json",
        "evergreen teach replay wave.json --speed 0.5",
    ),
)
