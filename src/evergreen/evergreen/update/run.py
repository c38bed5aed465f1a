"""The story's composition root: nucleus, graph and component are started, the story is told, files are written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from evergreen.demo import pictures, stage
from evergreen.demo.graph import Graph
from evergreen.demo.log import Log
from evergreen.demo.resources import exclusive, writing
from evergreen.demo.screen import Screen
from evergreen.demo.session import Plan
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file
from evergreen.update import picture
from evergreen.update.cast import Cast, assemble
from evergreen.update.deployments import device
from evergreen.update.narrator import Narrator
from evergreen.update.results import Told
from evergreen.update.story import STEPS, Story
from evergreen.update.witness import Witness
from gg_bridge.testing.character import CharacterName
from vla_core.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(stage.Common):
    """What the user asked for."""

    before: str
    after: str
    broken: str
    nucleus: CharacterName
    policy_config: Path | None


def run(options: Options, console: Console) -> Told:
    """Tell the story and write its files into `options.out`.

    Raises:
        EvergreenError: with one line that says what to change.
        KeyboardInterrupt: after everything has been stopped.
    """
    with exclusive(options.out):
        with stage.claimed() as folder:
            cast = assemble(options.before, options.after, options.broken, folder, options.models)
            for line in cast.lines():
                console.print(line, highlight=False, soft_wrap=True)
            told, story = _tell(options, cast, folder, console)
        with writing(options.out):
            _write(options, told, story, console)
    return told


def _tell(options: Options, cast: Cast, folder: Path, console: Console) -> tuple[Told, Story]:
    from evergreen.update.node import UpdateNode  # noqa: PLC0415  rclpy is slow to import, and `--help` needs none of it
    from vla_ros.spinning import spinning  # noqa: PLC0415  as above

    store = Store(folder / "store")
    arguments = {"store": str(store.root)} | stage.arguments(
        folder, options.seed, cast.before.choice.folder, options.size, options.fps
    )
    if options.policy_config is not None:
        arguments["policy_config"] = str(options.policy_config.absolute())
    plan = make_plan(find_launch_file("evergreen_bringup", "demo.launch.xml"), arguments)
    log = Log(options.out / "update.log", console, verbose=options.verbose)
    graph, witness = Graph(), Witness()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        stack.enter_context(Launcher(plan, on_event=log))
        made = stack.enter_context(device(options.nucleus, folder, store.root, log, witness))
        robot = stack.enter_context(spinning(lambda: UpdateNode(graph, stage.FILMED, witness)))
        screen = stack.enter_context(Screen(console))
        simulation = stack.enter_context(stage.connect(folder / "simulator.sock", lambda: log.failure))
        story = Story(
            plan=_plan(options, cast, simulation.status()),
            graph=graph,
            robot=robot,
            simulation=simulation,
            screen=screen,
            failed=lambda: log.failure,
            cast=cast,
            device=made,
            witness=witness,
            narrator=Narrator(screen),
            current=lambda: store.state().current,
            write_times=simulation.write_times,
        )
        story.wait_until_ready()
        screen.say(f"everything is up after {time.monotonic() - began_s:.1f} s")
        story.tell()
    told = Told(
        nucleus=options.nucleus,
        models={"before": cast.before.label, "after": cast.after.label, "broken": cast.broken.label},
        steps=story.steps,
        updates=story.updates,
        episodes=story.episodes,
        realtime_factor_min=story.realtime_factor_min,
        restarts=log.restarts,
        component_restarts=made.component.restarts,
        missing=STEPS[len(story.steps) :],
    )
    return told, story


def _plan(options: Options, cast: Cast, status: Mapping[str, Any]) -> Plan:
    return Plan(
        episodes=0,
        seed=options.seed,
        time_limit_s=options.time_limit_s,
        target=cast.before.target,
        cameras=tuple(status["cameras"]),
        policy=cast.before.label,
        prompt=cast.before.choice.manifest.prompt,
        film=options.video,
    )


def _write(options: Options, told: Told, story: Story, console: Console) -> None:
    out = options.out
    names = ["update.json", "update.png", "update.log"]
    (out / "update.json").write_text(told.to_json(), encoding="utf-8")
    if not picture.draw(told, story.witness, story.stills, out / "update.png"):
        names.remove("update.png")
    if options.video:
        with console.status("writing the video"):
            if pictures.video(story.graph.shots(), out / "update.mp4"):
                names.append("update.mp4")
    verdict = "the story went as told" if told.as_told else _what_went_wrong(told)
    for line in ("", verdict, "see " + " ".join(str(out / name) for name in names)):
        console.print(line, highlight=False, soft_wrap=True)


def _what_went_wrong(told: Told) -> str:
    wrong = [f"{step.name}: {step.detail}" for step in told.steps if not step.ok]
    return "NOT as told: " + ("; ".join(wrong) or f"{', '.join(told.missing)} did not come")
