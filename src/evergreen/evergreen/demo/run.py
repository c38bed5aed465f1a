"""The demo's composition root: claims a domain and ports, launches the graph, plays, writes the files."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from evergreen.demo import models, pictures
from evergreen.demo.graph import Graph
from evergreen.demo.resources import cannot_write, exclusive, free_domain, free_port, private_folder, writing
from evergreen.demo.results import MIN_REALTIME_FACTOR, Results
from evergreen.demo.screen import Screen, score
from evergreen.demo.session import POLL_S, START_TIMEOUT_S, DemoError, Plan, Session
from evergreen.launch.events import Event, Exited, Output, Respawning
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file
from vla_core.latency import LINE_MS, summarise
from vla_core.runtime import run_dir

if TYPE_CHECKING:
    from vla_sim.control import SimClient

TARGET = "black"
FILMED = ("front", "front_left")
"""The model's own view, and one from which a person sees the grasp."""
TAIL_LINES = 15
"""Of a process's last words, from which the reason is taken when it dies."""
HOPELESS_ENDS = 3
"""A process that ends as often does not come up: say so at once instead of waiting."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; see `evergreen demo --help`."""

    episodes: int
    seed: int
    policy: str
    models: Path
    out: Path
    time_limit_s: float
    size: tuple[int, int]
    fps: float
    video: bool
    verbose: bool


class Log:
    """Keeps what the nodes wrote in a file, and the first reason why the graph broke down.

    A file that cannot be written is such a reason: the results would have no room either.
    """

    def __init__(self, path: Path, console: Console, *, verbose: bool) -> None:
        """Begin the file; ConfigError where it cannot be written."""
        self._path = path
        with writing(path):
            self._stream = path.open("w", encoding="utf-8", buffering=1)
            self._stream.write(f"ROS_DOMAIN_ID={os.environ.get('ROS_DOMAIN_ID', '0')}\n")
        self._console = console
        self._verbose = verbose
        self._tail: dict[str, list[str]] = {}
        self._ends: Counter[str] = Counter()
        self.failure: str | None = None

    def __call__(self, event: Event) -> None:
        """Take one event of the launcher."""
        if isinstance(event, Output):
            self._write(f"[{event.process}] {event.line}")
            tail = self._tail.setdefault(event.process, [])
            tail.append(event.line)
            del tail[:-TAIL_LINES]
        elif isinstance(event, Exited):
            self._write(f"[{event.process}] ended with code {event.code}")
            if not event.expected:
                self._ends[event.process] += 1
                self.failure = self.failure or self._last_words(event)
        elif isinstance(event, Respawning) and self._ends[event.process] < HOPELESS_ENDS:
            self.failure = None  # it gets another chance

    @property
    def restarts(self) -> int:
        """How often a process ended though nobody had asked it to."""
        return self._ends.total()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # what could not be written has been reported
            self._stream.close()

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
        except OSError as error:
            self.failure = cannot_write(self._path, error)
        if self._verbose:
            self._console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)

    def _last_words(self, event: Exited) -> str:
        tail = [line for line in self._tail.get(event.process, ()) if line.strip()]
        errors = [line for line in tail if "error" in line.lower()]
        said = (errors or tail or ["it said nothing"])[-1].strip()
        return f"{event.process} ended with code {event.code}: {said}"


def run(options: Options, console: Console) -> Results:
    """Run the demo and write its files into `options.out`.

    Raises:
        EvergreenError: with one line that says what to change.
        KeyboardInterrupt: after everything has been stopped.
    """
    choice = models.choose(options.policy, options.models)
    with exclusive(options.out):
        with free_domain() as domain, private_folder(run_dir()) as folder:
            os.environ["ROS_DOMAIN_ID"] = str(domain)
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
            console.print(f"policy {choice.manifest.label} ({choice.reason}), output in {options.out}", highlight=False)
            arguments = _arguments(options, choice, folder)
            results, graph = _play(options, choice, arguments, folder, console)
        with writing(options.out):
            _write(options, results, graph, console)
    return results


def _arguments(options: Options, choice: models.Choice, folder: Path) -> dict[str, str]:
    width, height = options.size
    return {
        "run_dir": str(folder),
        "http_port": str(free_port()),
        "seed": str(options.seed),
        "model": str(choice.folder.absolute()),
        "width": str(width),
        "height": str(height),
        "fps": f"{options.fps:g}",
        "autostart": "false",
    }


def _play(
    options: Options, choice: models.Choice, arguments: Mapping[str, str], folder: Path, console: Console
) -> tuple[Results, Graph]:
    from evergreen.demo.node import spinning  # noqa: PLC0415  rclpy is slow to import, and `--help` needs none of it

    plan = make_plan(find_launch_file("evergreen_bringup", "demo.launch.xml"), arguments)
    log = Log(options.out / "demo.log", console, verbose=options.verbose)
    graph = Graph()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        stack.enter_context(Launcher(plan, on_event=log))
        robot = stack.enter_context(spinning(graph, FILMED))
        screen = stack.enter_context(Screen(console))
        simulation = stack.enter_context(_connect(folder / "simulator.sock", lambda: log.failure))
        session = Session(
            Plan(
                episodes=options.episodes,
                seed=options.seed,
                time_limit_s=options.time_limit_s,
                target=TARGET,
                cameras=tuple(simulation.status()["cameras"]),
                policy=choice.manifest.label,
                prompt=choice.manifest.prompt,
                film=options.video,
            ),
            graph,
            robot,
            simulation,
            screen,
            lambda: log.failure,
        )
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


def _connect(path: Path, failed: Callable[[], str | None]) -> SimClient:
    """Wait for the simulator's control socket."""
    from vla_sim.control import SimClient, SimError  # noqa: PLC0415  the robot's image has no simulator

    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        if problem := failed():
            raise DemoError(problem)
        try:
            return SimClient(path)
        except SimError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(POLL_S)


def _write(options: Options, results: Results, graph: Graph, console: Console) -> None:
    out = options.out
    results.write(out / "demo.json")
    stills = graph.stills()
    pictures.contact_sheet({name: stills.get(name, b"") for name in results.cameras}, out / "cameras.png")
    pictures.latency_plot(results.latencies, out / "latency.png", f"{results.policy}, {_path_name(results)}")
    if options.video:
        with console.status("writing the video"):
            pictures.video(graph.shots(), out / "demo.mp4")
    names = ["demo.json", "cameras.png", "latency.png", *(["demo.mp4"] if options.video else []), "demo.log"]
    seen = "see " + " ".join(str(out / name) for name in names)
    for line in ["", *_summary(results), seen]:
        console.print(line, highlight=False, soft_wrap=True)


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
