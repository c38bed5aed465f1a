"""`evergreen eval`: how often a model succeeds, in closed loop."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.arguments import whole
from evergreen.commands import Command
from vla_core.errors import ConfigError

if TYPE_CHECKING:
    from evergreen.evaluation import Options

TARGETS = ("black", "white", "red", "green", "blue", "yellow")
"""Of `vla_sim.targets`: a robot has no simulator, but `--help`."""
SHIFTS = ("lighting", "size", "camera", "distractors", "yaw")

DETAILS = """\
Plays scenes that no model was trained on, and counts. A scene is a success when the right object rests within 3 cm of
the spot, was lifted and let go, and no other object was lifted or moved by more than 1 cm.

Places, turns, start poses, light, table, sizes, camera poses and distractors differ from scene to scene within the
range of daily use; --shift takes one of these to its extremes, --plain leaves only places and turns. Faster than real
time, in one process a core; --graph plays through the whole ROS graph and the serial bus instead, in real time.

A model that listens is told what to do: by its own prompt, by --prompt, or by every row of a table, --prompts, in which
the cube may also be missing (then the arm must stay at rest), or the prompt changes on the way. Each row plays scenes
of its own; failures that end with the right cube on the spot are counted apart."""

SHIPPED = "shipped"
"""Of `--prompts` without a file."""
EPISODES = 100
EPISODES_A_ROW = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path, metavar="PATH", help="folder of the model")
    what.add_argument("--expert", action="store_true", help="the scripted expert, which listens: what can be reached")
    what.add_argument("--taught", type=Path, metavar="FILE", help="a taught trajectory instead (`evergreen teach`)")
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--prompt", metavar="TEXT", help="what a model that listens is told (default: its own prompt)")
    told.add_argument(
        "--prompts",
        nargs="?",
        const=SHIPPED,
        metavar="FILE",
        help="a table of prompts, YAML or JSON lines (default: the shipped one)",
    )
    parser.add_argument(
        "--episodes",
        type=whole(1, 1000),
        metavar="N",
        help=f"scenes (default: {EPISODES}; with --prompts, for each row, {EPISODES_A_ROW})",
    )
    parser.add_argument(
        "--seed", type=whole(0, 1_000_000), default=0, metavar="S", help="choice of the scenes (default: %(default)s)"
    )
    parser.add_argument("--target", choices=TARGETS, help="object to place (default: the prompt's)")
    scenes = parser.add_mutually_exclusive_group()
    scenes.add_argument("--shift", choices=SHIFTS, help="take this to its extremes")
    scenes.add_argument("--plain", action="store_true", help="a black and a white cube, always in the same light")
    parser.add_argument(
        "--cubes-of",
        type=whole(0, 1_000_000),
        metavar="SEED",
        help="put the cubes where the plain scene SEED has them, every time",
    )
    parser.add_argument(
        "--time-limit", type=float, default=20.0, metavar="S", help="simulated time for a scene (default: %(default)s)"
    )
    parser.add_argument(
        "--latency", type=float, default=0.1, metavar="S", help="picture to setpoint, in process (default: %(default)s)"
    )
    parser.add_argument("--graph", action="store_true", help="through the whole ROS graph, in real time")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    parser.add_argument(
        "--failures", type=Path, metavar="PATH", help="contact sheet of failures, PNG (default: out/eval/NAME.png)"
    )
    parser.add_argument("--rollout", type=Path, metavar="PATH", help="pictures of the first scene, as a PNG")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and return 0 however many succeeded."""
    from evergreen import evaluation  # noqa: PLC0415  not needed for --help

    options = evaluation.Options(
        subject=arguments.taught or arguments.model,
        taught=arguments.taught is not None,
        target=arguments.target or "",
        episodes=arguments.episodes or (EPISODES_A_ROW if arguments.prompts else EPISODES),
        seed=arguments.seed,
        variety="plain" if arguments.plain else (arguments.shift or "varied"),
        time_limit_s=arguments.time_limit,
        latency_s=arguments.latency,
        jobs=arguments.jobs,
        failures=arguments.failures,
        rollout=arguments.rollout,
        cubes_of=arguments.cubes_of,
        prompt=arguments.prompt or "",
    )
    _check(arguments)
    if arguments.prompts:
        return _table(arguments, options)
    summary = evaluation.through_graph(options) if arguments.graph else evaluation.in_process(options)
    if arguments.json:
        evaluation.write(summary, arguments.json)
    print(evaluation.sentence(summary))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.graph and arguments.cubes_of is not None:
        raise ConfigError("--cubes-of is for measuring in process; leave out --graph")
    if arguments.graph and arguments.taught:
        raise ConfigError("--graph plays models; a taught trajectory goes through it with `evergreen teach replay`")
    if arguments.graph and arguments.target:
        raise ConfigError("--graph judges by the prompt; leave out --target")
    if arguments.graph and arguments.expert:
        raise ConfigError("--graph plays models: give --model models/expert")
    if arguments.taught and (arguments.prompt or arguments.prompts):
        raise ConfigError("a taught trajectory does not listen; leave out the prompt")
    if arguments.expert and not (arguments.prompt or arguments.prompts):
        raise ConfigError("the expert is told what to do: give --prompt or --prompts")
    for name in ("graph", "rollout", "target", "cubes_of"):
        if arguments.prompts and getattr(arguments, name):
            raise ConfigError(f"--prompts plays its rows in process; leave out --{name.replace('_', '-')}")


def _table(arguments: argparse.Namespace, options: Options) -> int:
    from evergreen import evaluation, prompt_evaluation  # noqa: PLC0415  loads MuJoCo

    summary = prompt_evaluation.play(options, None if arguments.prompts == SHIPPED else Path(arguments.prompts))
    if arguments.json:
        evaluation.write(summary, arguments.json)
    prompt_evaluation.show(summary)
    return 0


COMMAND = Command(
    summary="measure how often a model succeeds",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen eval --model models/evergreen-black --episodes 300",
        "evergreen eval --model models/evergreen-white --shift lighting --json out/lighting.json",
        "evergreen eval --model models/evergreen-black --graph --episodes 60",
        'evergreen eval --model models/evergreen-prompt --prompt "now the red cube"',
        "evergreen eval --model models/evergreen-prompt --prompts --json out/prompts.json",
    ),
)
