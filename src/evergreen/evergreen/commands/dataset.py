"""`evergreen dataset`: make a LeRobotDataset of recordings, and say what is in one."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType

from evergreen.arguments import above_0, size, whole
from evergreen.commands import Command
from vla_core.errors import ConfigError, EvergreenError

DETAILS = """\
convert appends each MCAP file of `evergreen record` to a LeRobotDataset v3 as one episode: at the control rate, with
pictures through the robot's own decoding and resizing, and with the commanded setpoint as the action. It can be
interrupted and repeated: files that are in the dataset already are passed over.

info tells what a LeRobotDataset holds, whoever wrote it.

Both need LeRobot (`make setup-train`)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="convert|info")
    convert = verbs.add_parser("convert", help="recordings to a dataset")
    convert.add_argument("files", type=Path, nargs="+", metavar="FILE", help="MCAP files, or folders of them")
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset; one there is continued")
    convert.add_argument(
        "--rate-hz", type=whole(1, 200), default=10, help="control rate of the policy (default: %(default)s)"
    )
    convert.add_argument(
        "--size", type=size(8, 4096, "192x96"), metavar="WxH", help="of the pictures, px (default: the cameras' own)"
    )
    convert.add_argument("--cameras", default="", metavar="NAME,…", help="to take (default: those of the first file)")
    convert.add_argument("--prompt", default="", help="instead of what the robot was told")
    convert.add_argument(
        "--actions",
        choices=("commanded", "measured"),
        default="commanded",
        help="what the action is: the setpoint, or where the arm was, for one that was led by hand",
    )
    convert.add_argument("--no-trim", action="store_true", help="keep long standing still at both ends")
    convert.add_argument(
        "--max-skew",
        type=above_0(5),
        default=0.2,
        metavar="S",
        help="how far a picture may lie from the frame that it belongs to (default: %(default)s)",
    )
    convert.add_argument("--include-cut", action="store_true", help="take episodes that were cut short, too")
    convert.add_argument("--videos", action="store_true", help="store MP4 instead of PNG")
    convert.add_argument("--namespace", default="", help="of the robot")
    convert.add_argument("--json", action="store_true", help="print the outcome as JSON")
    info = verbs.add_parser("info", help="what a dataset holds")
    info.add_argument("folder", type=Path, metavar="DIR")
    info.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do what the verb says."""
    return _convert(arguments) if arguments.verb == "convert" else _info(arguments)


def _convert(arguments: argparse.Namespace) -> int:
    """0 when every file became an episode, 1 when some did not."""
    converting = _training("convert")
    options = converting.Options(
        rate_hz=float(arguments.rate_hz),
        size=arguments.size,
        cameras=tuple(filter(None, arguments.cameras.split(","))),
        prompt=arguments.prompt,
        measured=arguments.actions == "measured",
        trim=not arguments.no_trim,
        max_skew_s=arguments.max_skew,
        include_cut=arguments.include_cut,
        videos=arguments.videos,
        namespace=arguments.namespace,
    )
    output = sys.stderr if arguments.json else sys.stdout
    files = converting.find(arguments.files)
    outcome = converting.convert(files, arguments.out, options, lambda line: print(line, file=output, flush=True))
    if arguments.json:
        print(json.dumps({"converted": outcome.converted, "present": outcome.present, "refused": outcome.refused}))
    else:
        print(f"{arguments.out}: {outcome.converted} new episodes, {outcome.present} were there already")
    if outcome.refused:
        raise DatasetIncompleteError(f"{len(outcome.refused)} of {len(files)} files were not converted; see above")
    return 0


class DatasetIncompleteError(EvergreenError):
    """Some files could not be converted; the others were."""


def _info(arguments: argparse.Namespace) -> int:
    about = _training("lerobot_reader").describe(arguments.folder)
    prompts = Counter(about.prompts)
    lengths = sorted(about.lengths)
    facts = {
        "folder": str(about.root),
        "robot_type": about.robot_type,
        "rate_hz": about.rate_hz,
        "episodes": len(lengths),
        "frames": sum(lengths),
        "shortest": lengths[0] if lengths else 0,
        "median": lengths[len(lengths) // 2] if lengths else 0,
        "longest": lengths[-1] if lengths else 0,
        "cameras": {name: list(size) for name, size in about.cameras.items()},
        "joints": list(about.joint_names),
        "storage": "videos" if about.videos else "images",
        "prompts": dict(prompts.most_common()),
    }
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    seconds = facts["frames"] / about.rate_hz
    print(f"{about.root}: {len(lengths)} episodes, {facts['frames']} frames at {about.rate_hz:g} Hz, {seconds:.0f} s")
    print(f"lengths   {facts['shortest']} to {facts['longest']} frames, median {facts['median']}")
    print(f"cameras   {', '.join(f'{name} {width}x{height}' for name, (width, height) in about.cameras.items())}")
    print(f"joints    {', '.join(about.joint_names)} ({about.robot_type}), {facts['storage']}")
    for prompt, count in prompts.most_common():
        print(f"prompt    {count:5d} times: {prompt}")
    return 0


def _training(name: str) -> ModuleType:
    try:
        return import_module(f"vla_training.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"datasets need the Python package {error.name}; run `make setup-train`") from error


COMMAND = Command(
    summary="make a LeRobotDataset of recordings, and say what is in one",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen dataset convert out/recordings/black --out out/data/black --size 192x96 --cameras front",
        "evergreen dataset info out/data/black",
    ),
)
