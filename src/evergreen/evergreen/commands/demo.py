"""`evergreen demo`: the whole graph against the simulation."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evergreen.arguments import above_0, size, whole
from evergreen.commands import Command
from vla_core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

DETAILS = """\
Starts the simulation, the cameras, the policy and the arm through evergreen_bringup's demo.launch.xml, lays out a
random scene for each episode, and lets the policy put the black cube on the spot. Writes demo.json, cameras.png,
latency.png, demo.mp4 and demo.log, and prompts.png where the prompt changed and it films. Ctrl-C and SIGTERM stop every
process. The exit code is 0 once all episodes were played, however many succeeded.

With --update it tells the story of an update instead: the first model works, a deployment through a stand-in
Greengrass nucleus names another one, which takes over while the arm moves; then a broken one is deployed and kept
out. Writes update.json, update.png, update.mp4 and update.log. The exit code is 0 only if all of it went as told."""

SEARCHED = (Path.cwd, lambda: Path(__file__).resolve().parents[4])
"""Where a folder `models` is looked for: here, and in the checkout that this file belongs to."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--episodes", type=whole(0, 1_000_000), default=5, metavar="N", help="scenes to play (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=whole(0, 1_000_000), default=1, metavar="S", help="of the scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--policy",
        default="auto",
        metavar="NAME",
        help="a model's name or folder, `expert`, or `auto`: the learned model with the best measured success if it"
        " succeeds more often than not, else the expert (default: %(default)s)",
    )
    parser.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help="instead of the model's own; another may be typed while it runs (default: the model's own)",
    )
    parser.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="TEXT",
        help="the next prompt, said once the arm has lifted what was asked for before; up to three times, each for"
        " another cube. --time-limit is for all prompts of an episode together",
    )
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where models lie (default: ./models)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="for what it writes (default: %(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=above_0(3600),
        default=20.0,
        metavar="S",
        help="seconds for an episode (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=size(32, 1920, "320x240"),
        default=(320, 240),
        metavar="WxH",
        help="of the pictures, px (default: 320x240)",
    )
    parser.add_argument(
        "--fps", type=above_0(3600), default=15.0, help="that each camera is asked for (default: %(default)s)"
    )
    parser.add_argument("--no-video", action="store_true", help="film nothing")
    parser.add_argument("--json", action="store_true", help="print the content of demo.json at the end, and only that")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the processes write")
    story = parser.add_argument_group("the story of an update")
    story.add_argument(
        "--update",
        action="store_true",
        help="tell it; --episodes, --policy, --prompt and --then do not count then",
    )
    story.add_argument(
        "--from", dest="before", default="", metavar="NAME", help="model that drives first (default: the black one)"
    )
    story.add_argument(
        "--to", dest="after", default="", metavar="NAME", help="model that takes over (default: the white one)"
    )
    story.add_argument(
        "--broken",
        choices=("nan", "hash"),
        default="nan",
        help="what is wrong with the last one: nan, weights that are no numbers; hash, a byte that is not what its"
        " manifest says (default: %(default)s)",
    )
    story.add_argument(
        "--nucleus", choices=("lite", "classic"), default="lite", help="kind of the stand-in (default: %(default)s)"
    )
    story.add_argument(
        "--policy-config", type=Path, metavar="FILE", help="parameters of the policy (default: those of every demo)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Play, and return 0 once everything was played; or tell the story, and return 0 if it went as told."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` and systemd mean what Ctrl-C means

    from rich.console import Console  # noqa: PLC0415  not needed for --help

    console = Console(stderr=arguments.json)
    if arguments.update:
        return _update(arguments, console)

    from evergreen.demo import run as demo  # noqa: PLC0415  not needed for --help

    results = demo.run(
        demo.Options(
            episodes=arguments.episodes,
            policy=arguments.policy,
            prompt=arguments.prompt,
            then=tuple(arguments.then),
            **_common(arguments),
        ),
        console,
    )
    if arguments.json:
        print(results.to_json(), end="")
    return 0


def _update(arguments: argparse.Namespace, console: Console) -> int:
    from evergreen.update import run as update  # noqa: PLC0415  not needed for --help

    told = update.run(
        update.Options(
            before=arguments.before,
            after=arguments.after,
            broken=arguments.broken,
            nucleus=arguments.nucleus,
            policy_config=arguments.policy_config,
            **_common(arguments),
        ),
        console,
    )
    if arguments.json:
        print(told.to_json(), end="")
    return 0 if told.as_told else 1


def _common(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "models": arguments.models or _models(),
        "out": arguments.out,
        "time_limit_s": arguments.time_limit,
        "size": arguments.size,
        "fps": arguments.fps,
        "video": not arguments.no_video,
        "verbose": arguments.verbose,
    }


def _models() -> Path:
    for base in SEARCHED:
        if (folder := base() / "models").is_dir():
            return folder
    raise ConfigError("no folder `models` here; name one with --models")


COMMAND = Command(
    summary="play the task in simulation, with every real process, and measure it",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen demo",
        "evergreen demo --episodes 3 --seed 7 --policy expert",
        "evergreen demo --policy models/evergreen-black --json",
        'evergreen demo --policy models/evergreen-prompt --prompt "the white one, please"',
        (
            'evergreen demo --episodes 1 --time-limit 40 --policy models/evergreen-prompt --prompt "the white one"'
            ' --then "now the black cube" --then "take the red one"'
        ),
        "evergreen demo --update",
        "evergreen demo --update --nucleus classic --broken hash",
    ),
)
