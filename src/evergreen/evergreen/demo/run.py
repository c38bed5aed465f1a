"""The demo's composition root: launches the graph, plays, writes the files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evergreen.demo import models, pictures, stage
from evergreen.demo.graph import Graph
from evergreen.demo.log import Log
from evergreen.demo.prompts import PromptLine, asked_for, asked_next
from evergreen.demo.resources import exclusive, writing
from evergreen.demo.results import MIN_REALTIME_FACTOR, Results
from evergreen.demo.screen import Screen, score
from evergreen.demo.session import Plan, Session
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file
from vla_core.latency import LINE_MS, summarise
from vla_sim.targets import CUBES


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(stage.Common):
    """What the user asked for."""

    episodes: int
    policy: str
    variety: str = "plain"
    prompt: str = ""
    then: tuple[str, ...] = ()


def run(options: Options, console: Console) -> Results:
    """Run the demo and write its files into `options.out`.

    Raises:
        EvergreenError: with one line that says what to change.
        KeyboardInterrupt: after everything has been stopped.
    """
    choice = models.choose(options.policy, options.models)
    with exclusive(options.out):
        with stage.claimed() as folder:
            console.print(f"policy {choice.manifest.label} ({choice.reason}), output in {options.out}", highlight=False)
            arguments = stage.arguments(folder, options.seed, choice.folder, options.size, options.fps)
            arguments["prompt"] = options.prompt
            results, graph = _play(options, choice, arguments, folder, console)
        with writing(options.out):
            _write(options, results, graph, console)
    return results


def _play(
    options: Options, choice: models.Choice, arguments: Mapping[str, str], folder: Path, console: Console
) -> tuple[Results, Graph]:
    from evergreen.demo.node import DemoNode  # noqa: PLC0415  rclpy is slow to import, and `--help` needs none of it
    from vla_ros.spinning import spinning  # noqa: PLC0415  as above

    target = asked_for(choice, options.prompt)
    then = asked_next(choice, options.then, target)
    listens = choice.manifest.prompt_encoder is not None
    plan = make_plan(find_launch_file("evergreen_bringup", "demo.launch.xml"), arguments)
    log = Log(options.out / "demo.log", console, verbose=options.verbose)
    graph = Graph()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        stack.enter_context(Launcher(plan, on_event=log))
        robot = stack.enter_context(spinning(lambda: DemoNode(graph, stage.FILMED)))
        screen = stack.enter_context(Screen(console))
        simulation = stack.enter_context(stage.connect(folder / "simulator.sock", lambda: log.failure))
        session = Session(
            Plan(
                episodes=options.episodes,
                seed=options.seed,
                time_limit_s=options.time_limit_s,
                target=target,
                cameras=tuple(simulation.status()["cameras"]),
                policy=choice.manifest.label,
                prompt=options.prompt or choice.manifest.prompt,
                then=then,
                film=options.video,
                variety=options.variety,
                cubes=_cubes(options.variety) if listens or then or target not in CUBES else None,
            ),
            graph,
            robot,
            simulation,
            screen,
            lambda: log.failure,
        )
        line = stack.enter_context(PromptLine(robot.say))
        session.typing = line.listens
        session.wait_until_ready()
        screen.say(f"everything is up after {time.monotonic() - began_s:.1f} s")
        episodes = session.play()
    results = Results(
        policy=choice.manifest.label,
        seed=options.seed,
        episodes=episodes,
        latencies=graph.latencies(),
        cameras=graph.camera_counts(),
        realtime_factor=session.realtime_factor or 0.0,
        realtime_factor_min=session.realtime_factor_min,
        sees=bool(choice.manifest.cameras),
        chunks=graph.chunk_counts(),
        restarts=log.restarts,
    )
    return results, graph


def _cubes(variety: str) -> Callable[[int, Sequence[str]], Sequence[str]]:
    """The cubes of a scene by its seed and by what is asked for."""
    from vla_sim.casting import names_for  # noqa: PLC0415  loads MuJoCo

    return lambda seed, targets: names_for(seed, variety, targets)


def _write(options: Options, results: Results, graph: Graph, console: Console) -> None:
    out = options.out
    results.write(out / "demo.json")
    stills = graph.stills()
    pictures.contact_sheet([(name, stills.get(name, b"")) for name in results.cameras], out / "cameras.png")
    pictures.latency_plot(results.latencies, out / "latency.png", f"{results.policy}, {_path_name(results)}")
    names = ["demo.json", "cameras.png", "latency.png"]
    (out / "prompts.png").unlink(missing_ok=True)  # an earlier run's
    if options.video:
        with console.status("writing the video"):
            pictures.video(graph.shots(), out / "demo.mp4")
        names.append("demo.mp4")
        names += ["prompts.png"] if _write_strip(results, graph, out / "prompts.png") else []
    names.append("demo.log")
    seen = "see " + " ".join(str(out / name) for name in names)
    for line in ["", *_summary(results), seen]:
        console.print(line, highlight=False, soft_wrap=True)


def _write_strip(results: Results, graph: Graph, path: Path) -> bool:
    """Write what the last episode in which the prompt changed looked like; whether there was one, and it was filmed."""
    turned = [episode for episode in results.episodes if len(episode.told) > 1]
    shots = [shot for shot in graph.shots() if shot.camera == stage.FILMED[-1]]
    if turned and shots:
        pictures.prompt_strip(shots, turned[-1].told, turned[-1].ended_ns, path)
    return bool(turned and shots)


def _path_name(results: Results) -> str:
    return "photon to servo" if results.sees else "newest frame to servo (the expert uses no picture)"


def _summary(results: Results) -> list[str]:
    """What a person wants to know first."""
    latency = summarise(chunk.total_ms for chunk in results.latencies)
    lines = [f"placed {score(results.episodes)} with {results.policy}"]
    if latency.p50 is not None and latency.p95 is not None:
        side = "under" if latency.p95 < LINE_MS else "over"
        percentiles = f"p50 {latency.p50:.0f} ms, p95 {latency.p95:.0f} ms"
        lines.append(f"{_path_name(results)}: {percentiles}, {side} the {LINE_MS:.0f} ms line ({latency.n} chunks)")
    if results.chunks.gaps or results.chunks.holds:
        counts = results.chunks
        lines.append(
            f"{counts.gaps:.0f} gaps in which the arm waited (longest {counts.longest_gap_s:.2f} s),"
            f" {counts.holds:.0f} holds"
        )
    if results.cameras:
        slowest = min(camera.fps for camera in results.cameras.values())
        dropped = sum(camera.dropped for camera in results.cameras.values())
        lines.append(f"{len(results.cameras)} cameras at {slowest:.1f} fps or more, {dropped} frames dropped")
    lines.append(f"real-time factor {results.realtime_factor:.3f}, at worst {results.realtime_factor_min:.3f}")
    if results.restarts:
        lines.append(f"INVALID: {results.restarts} times a node died and was started again; see demo.log")
    elif not results.valid:
        lines.append(
            f"INVALID: the simulation fell under {MIN_REALTIME_FACTOR} of real time;"
            " close other programs, or lower --fps or --size"
        )
    return lines
