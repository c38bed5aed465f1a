"""`evergreen model export`: a LeRobot checkpoint becomes a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
CHECKPOINT is a folder that LeRobot's save_pretrained wrote. What it does not say of itself is asked for at a terminal:
which camera feeds which of its pictures, its joints, their units, its rate. Elsewhere every answer must be an option,
or --yes takes what is proposed. Writes manifest.json and, where the policy's type allows, an ONNX graph that is
compared with LeRobot; then a policy server must answer with it. Needs torch and LeRobot. docs/lerobot_policies.md
tells more."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json, model.safetensors"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the model there, leave CHECKPOINT as it is")
    parser.add_argument("--name", metavar="NAME", help="the model's name (proposed: the folder's)")
    parser.add_argument("--version", metavar="V", help="its version (1.0.0)")
    parser.add_argument("--prompt", metavar="TEXT", help="its default prompt (none)")
    parser.add_argument("--rate-hz", metavar="HZ", help="frames a second of its training data")
    parser.add_argument("--open-loop-s", metavar="S", help="part of a chunk that is played before the next (0.5)")
    parser.add_argument("--licence", metavar="TEXT", help="of its weights (unknown)")
    _add_mapping(parser)
    parser.add_argument("--chunk-size", type=int, metavar="N", help="actions in an answer (the type's own)")
    parser.add_argument(
        "--action-offset", type=int, default=0, metavar="N",
        help="periods from the observation to the first action (%(default)s, as of LeRobot's types)",
    )  # fmt: skip
    parser.add_argument(
        "--backbone", action="append", default=[], metavar="[REFERENCE=]FOLDER",
        help="configuration and tokenizer of a model that the checkpoint names; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--onnx", action=argparse.BooleanOptionalAction, default=None, help="make an ONNX graph (default: for ACT)"
    )
    parser.add_argument("--yes", action="store_true", help="take everything that is proposed")
    options.add_json(parser)


def _add_mapping(parser: argparse.ArgumentParser) -> None:
    for option, metavar, text in (
        ("--camera", "KEY=CAMERA", "the camera that feeds one of its pictures, as top=overhead; may be repeated"),
        ("--robot-camera", "NAME", "a camera of this robot; may be repeated (default: those of the shipped robot)"),
        ("--joint", "NAME", "a joint, in the order of its actions; once for each"),
        ("--joint-units", "JOINT=UNITS", "units of a joint that differ, as gripper=percent_from_zero"),
        ("--range", "JOINT=LOW:HIGH", "calibrated range in rad, for units that are percent of it"),
    ):
        parser.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    parser.add_argument("--units", metavar="UNITS", help="of its joints: rad, deg, percent, percent_from_zero")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="LeRobot's, of the arm: gives every --range")


def run(arguments: argparse.Namespace) -> int:
    """Export."""
    from rich.console import Console  # noqa: PLC0415  none of these is needed for --help

    from evergreen.model.exporting import answers, dialogue, program, questions  # noqa: PLC0415
    from vla_core import checkpoint  # noqa: PLC0415

    info = checkpoint.inspect(arguments.checkpoint)
    checkpoint.check_complete(arguments.checkpoint)  # before anybody answers questions about it
    extent = checkpoint.joint_extent(arguments.checkpoint)
    robot = answers.described_robot(arguments)
    asking = program.interactive() and not (arguments.yes or arguments.json)
    console = Console(stderr=True)
    if asking:
        dialogue.show(console, info, extent)
    found = dialogue.answer_all(
        info,
        robot,
        answers.given(arguments, info, robot),
        extent,
        accept=arguments.yes,
        console=console if asking else None,
    )
    rate_hz = questions.parse_rate(found["rate_hz"])
    fields = questions.to_fields(info, found, answers.chunk_size(arguments, info, rate_hz))
    answers.check_joints(arguments, fields["joint_names"])
    order = program.Order(
        info, fields | {"action_offset": arguments.action_offset}, arguments.out, arguments.onnx,
        answers.backbones(arguments.backbone),
    )  # fmt: skip
    made = program.export(order, lambda text: None if arguments.json else console.print(text))
    if arguments.json:
        print(json.dumps(made.facts(), indent=2))
    else:
        print("\n".join(answers.report(made)))
    return 0


VERB = Command(
    summary="make a model of a LeRobot checkpoint",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model export ~/outputs/train/checkpoints/last/pretrained_model --out models/pick",
        "evergreen model export checkpoint --out models/pick --rate-hz 30 --units deg --camera top=overhead --yes",
    ),
)
