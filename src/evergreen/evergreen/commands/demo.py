"""`evergreen demo`: the whole graph against the simulation."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from evergreen.commands import Command
from vla_core.errors import ConfigError

DETAILS = """\
Starts the simulation, the cameras, the policy and the arm through evergreen_bringup's demo.launch.xml, lays out a
random scene for each episode, and lets the policy put the black cube on the spot. Writes demo.json, cameras.png,
latency.png, demo.mp4 and demo.log. Ctrl-C and SIGTERM stop every process. The exit code is 0 once all episodes were
played, however many succeeded."""

SEARCHED = (Path.cwd, lambda: Path(__file__).resolve().parents[4])
"""Where a folder `models` is looked for: here, and in the checkout that this file belongs to."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--episodes", type=_count, default=5, metavar="N", help="scenes to play (default: %(default)s)")
    parser.add_argument("--seed", type=_count, default=1, metavar="S", help="of the scenes (default: %(default)s)")
    parser.add_argument(
        "--policy",
        default="auto",
        metavar="NAME",
        help="a model's name or folder, `expert`, or `auto`: the learned model with the best measured success if it"
        " succeeds more often than not, else the expert (default: %(default)s)",
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where models lie (default: ./models)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="for what it writes (default: %(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=_positive,
        default=20.0,
        metavar="S",
        help="seconds for an episode (default: %(default)s)",
    )
    parser.add_argument(
        "--size", type=_size, default=(320, 240), metavar="WxH", help="of the pictures, px (default: 320x240)"
    )
    parser.add_argument(
        "--fps", type=_positive, default=15.0, help="that each camera is asked for (default: %(default)s)"
    )
    parser.add_argument("--no-video", action="store_true", help="film nothing")
    parser.add_argument("--json", action="store_true", help="print the content of demo.json at the end, and only that")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the processes write")


def run(arguments: argparse.Namespace) -> int:
    """Play, and return 0 once everything was played."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` and systemd mean what Ctrl-C means

    from rich.console import Console  # noqa: PLC0415  not needed for --help

    from evergreen.demo import run as demo  # noqa: PLC0415  not needed for --help

    console = Console(stderr=arguments.json)
    results = demo.run(
        demo.Options(
            episodes=arguments.episodes,
            seed=arguments.seed,
            policy=arguments.policy,
            models=arguments.models or _models(),
            out=arguments.out,
            time_limit_s=arguments.time_limit,
            size=arguments.size,
            fps=arguments.fps,
            video=not arguments.no_video,
            verbose=arguments.verbose,
        ),
        console,
    )
    if arguments.json:
        print(results.to_json(), end="")
    return 0


def _models() -> Path:
    for base in SEARCHED:
        if (folder := base() / "models").is_dir():
            return folder
    raise ConfigError("no folder `models` here; name one with --models")


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 to 1000000 is needed")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0 and up to 3600 is needed")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        size = int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write width x height in px, for example 320x240") from None
    if not all(32 <= side <= 1920 for side in size):
        raise argparse.ArgumentTypeError(f"{text}: each side must be 32 to 1920 px")
    return size


COMMAND = Command(
    summary="play the task in simulation, with every real process, and measure it",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen demo",
        "evergreen demo --episodes 3 --seed 7 --policy expert",
        "evergreen demo --policy models/act-black --json",
    ),
)
