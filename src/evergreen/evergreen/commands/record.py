"""`evergreen record`: demonstrations, from the running robot or from the scripted expert in simulation."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from evergreen.arguments import above_0, size, whole
from evergreen.commands import Command
from vla_core.errors import ConfigError

DETAILS = """\
Without --expert: records the running robot's camera pictures, joint states, commands and prompt, unchanged, into one
MCAP file an episode. Light enough for the robot's own computer; `evergreen dataset convert` makes a LeRobotDataset of
it on a workstation.

  →  or space   keep this episode; between episodes: begin the next
  ←  or x       discard this episode
  Esc or Ctrl-C end (what is being recorded is kept)

Without a terminal, or beside it, the services recorder/start, keep, discard and end (std_srvs/Trigger) do the same.

With --expert: the scripted expert makes demonstrations in simulation, faster than real time, and writes them as a
LeRobotDataset. With --target they place one cube. With --targets they listen: each is asked for one of these
colours, in other words each time; the cube may be missing, and the prompt may change on the way. Needs LeRobot
(`make setup-train`)."""

DEFAULT_OUT = Path("out/recordings")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"to write to (default: {DEFAULT_OUT})")
    parser.add_argument(
        "--episodes",
        type=whole(1, 1_000_000_000),
        metavar="N",
        help="end after so many (default: no end; --expert: 10)",
    )
    live = parser.add_argument_group("from the running robot")
    live.add_argument("--cameras", metavar="NAME,…", default="", help="which to record (default: all)")
    live.add_argument("--duration", type=above_0(1e6), metavar="S", help="seconds for an episode")
    live.add_argument("--reset", type=above_0(1e6), metavar="S", help="seconds after an episode until the next begins")
    live.add_argument("--wait", action="store_true", help="begin with the first key or service call, not at once")
    live.add_argument("--namespace", default="", help="of the robot")
    live.add_argument(
        "--keep-free", type=above_0(1e6), default=100.0, metavar="MB", help="end when the disk has less (default: 100)"
    )
    live.add_argument("--json", action="store_true", help="print what was kept as JSON at the end")
    expert = parser.add_argument_group("from the scripted expert")
    expert.add_argument("--expert", action="store_true", help="record the expert in simulation instead")
    cubes = expert.add_mutually_exclusive_group()
    cubes.add_argument("--target", default="black", help="cube that it places (default: %(default)s)")
    cubes.add_argument(
        "--targets",
        metavar="COLOUR,…",
        default="",
        help="colours that it is asked for, of black, white, red, green, blue and yellow",
    )
    expert.add_argument(
        "--kinds",
        metavar="KIND,…",
        default="",
        help="with --targets, only demonstrations that go like this: steady, absent, changed before grasp, "
        "changed while carrying (default: all, in the shares of daily use)",
    )
    expert.add_argument(
        "--places",
        metavar="PLACE,…",
        default="",
        help="with --targets, only scenes in which a cube that is asked for lies like this: crowded (another within "
        "10 cm), end (none is, and it lies at an end of the half disc, far out), elsewhere; none of the kind absent "
        "(default: all)",
    )
    expert.add_argument(
        "--size",
        type=size(32, 4096, "256x128"),
        metavar="WxH",
        default=(192, 96),
        help="of the pictures, px, as the policy will see them: multiples of 32; the camera's have 320x240 "
        "(default: 192x96)",
    )
    expert.add_argument(
        "--seed", type=whole(0, 1_000_000_000), default=0, help="of the first scene (default: %(default)s)"
    )
    expert.add_argument("--jobs", type=whole(1, 1_000_000_000), default=1, help="processes (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Record, and return 0 once something was kept."""
    if arguments.expert:
        return _expert(arguments)
    from rich.console import Console  # noqa: PLC0415  not needed for --help

    from evergreen.recording import run as live  # noqa: PLC0415  not needed for --help

    options = live.Options(
        out=arguments.out or DEFAULT_OUT,
        cameras=tuple(filter(None, arguments.cameras.split(","))),
        duration_s=arguments.duration,
        episodes=arguments.episodes,
        reset_s=arguments.reset,
        wait=arguments.wait,
        keep_free_bytes=round(arguments.keep_free * 1e6),
        namespace=arguments.namespace,
        json=arguments.json,
    )
    return live.record(options, Console(stderr=arguments.json))


def _expert(arguments: argparse.Namespace) -> int:
    try:
        module = import_module("vla_training.record_expert")  # needs packages that a robot does not have
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"recording a dataset needs the Python package {error.name}; run `make setup-train`"
        ) from error
    return int(module.run(arguments))


COMMAND = Command(
    summary="record demonstrations, from the running robot or from the scripted expert",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen record --out out/recordings/black",
        "evergreen record --cameras front,wrist --duration 30 --reset 10 --episodes 20",
        "evergreen record --expert --episodes 100 --target black --out out/data/black",
        "evergreen record --expert --targets black,white,red,green,blue,yellow --episodes 6000 --jobs 2",
        'evergreen record --expert --targets black,white --kinds "changed before grasp" --out out/data/changes',
        "evergreen record --expert --targets black,white --places crowded,end --size 256x128 --out out/data/hard",
    ),
)
