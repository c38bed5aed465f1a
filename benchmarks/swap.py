"""What replacing the running model costs the arm, in three ways; and how long an update takes, stage by stage.

    python benchmarks/swap.py --json out/bench/swap.json                 # 20 swaps in each way, 10 deployments
    python benchmarks/swap.py --swaps 3 --deployments 2 --baseline-s 10  # a look

Starts the demo's graph with a store and lets the policy drive through fresh scenes. First nothing is swapped (the
baseline), then the model is swapped again and again:

    blue_green   the new model is started, judged and switched to while the old one drives
    restart      the old server ends first, the policy process goes on
    process      the policy process is stopped and started with the new model

The gap is the time in which the newest trajectory had ended, so that the arm had no setpoint from an active policy;
what the baseline has of it in the same time is subtracted. A late servo period is one that is more than two control
periods longer than the baseline's longest; the simulated servos note when goals come to them.

Then the models are deployed through the stand-in nucleus and the bridge, to see how long it takes from the
configuration event to the first action of the new model.

Exit code 0 when blue_green has no late servo period and a median gap of at most 1 % of process's, 1 when not, 2 when it
could not be measured. `faults` in the result says why.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demo_graph import FPS, SIZE, START_TIMEOUT_S, Tail
from latency import changing_scenes
from report import machine, publish

from evergreen.demo import stage
from evergreen.demo.graph import Graph
from evergreen.demo.models import Choice, choose
from evergreen.demo.session import scene_seed
from evergreen.launch.expand import make_plan
from evergreen.launch.launcher import Launcher
from evergreen.launch.packages import find_launch_file
from evergreen.launch.plan import LaunchPlan
from evergreen.update.cast import BLACK, WHITE, first_of
from evergreen.update.deployments import device
from evergreen.update.node import UpdateNode
from evergreen.update.timeline import Timeline
from evergreen.update.witness import Witness
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.errors import ConfigError, EvergreenError
from vla_core.setpoints import Span, gaps, periods_ns, total_ns
from vla_core.store import Store
from vla_core.swap import Mode, Outcome, SwapRequest, SwapStatus
from vla_ros.spinning import spinning
from vla_ros.swap_client import SwapClient
from vla_sim.control import SimClient

CONTROL_PERIOD_MS = 10.0
"""Of the arm controller: 100 Hz in config/so101.yaml."""
LATE_PERIODS = 2.0
MOST_GAP_SHARE = 0.01
"""Of `process`'s median gap, that `blue_green`'s may be."""
SWAP_TIMEOUT_S = 120.0
PAUSE_S = 1.5
"""Between two swaps: the arm is in full motion again, and what the last swap left behind has ended."""
AFTER_S = 1.0
"""So long after a swap is over its consequences are still counted."""
POLL_S = 0.02
NS_PER_S, NS_PER_MS = 1_000_000_000, 1e6
PROCESS = "process"
WAYS = (str(Mode.BLUE_GREEN), str(Mode.RESTART), PROCESS)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    swaps: int
    deployments: int
    baseline_s: float
    probation_s: float
    models: Path
    seed: int
    json: Path | None


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--swaps", type=int, default=20, help="in each way (default %(default)s)")
    parser.add_argument("--deployments", type=int, default=10, help="through the bridge (default %(default)s)")
    parser.add_argument("--baseline-s", type=float, default=120.0, help="without swaps (default %(default)s)")
    parser.add_argument("--probation-s", type=float, default=2.0, help="the policy's parameter (default %(default)s)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where models lie (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    return Options(**vars(parser.parse_args()))


class Asker(UpdateNode):
    """Notes what happens, and asks for swaps."""

    def __init__(self, witness: Witness) -> None:
        super().__init__(Graph(), (), witness)
        self.swaps = SwapClient(self)


@dataclass(slots=True)
class Bench:
    """The running graph. `policy` runs the policy process alone, so that it can be stopped and started."""

    store: Store
    witness: Witness
    asker: Asker
    simulation: SimClient
    policy_plan: LaunchPlan
    tail: Tail
    graph: Launcher
    policy: Launcher | None = None
    writes_ns: list[int] = field(default_factory=list)

    def start_policy(self) -> None:
        """Start the process; it boots what the store says."""
        self.policy = Launcher(self.policy_plan, on_event=self.tail).start()

    def stop_policy(self) -> None:
        """As Ctrl-C does."""
        if self.policy is not None:
            self.policy.stop()
            self.policy = None

    def until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        """Wait for it.

        Raises:
            ConfigError: it did not come, or the graph ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s or not self.graph.running:
                raise ConfigError(f"{what} did not come within {timeout_s:g} s:\n" + "\n".join(self.tail.lines))
            time.sleep(POLL_S)

    def drives_since(self, since_ns: int) -> bool:
        """Whether a trajectory was published after then."""
        commanded = self.witness.commanded
        return bool(commanded) and commanded[-1].at_ns > since_ns

    def writes(self) -> Sequence[int]:
        """When the servos got goals, from the beginning."""
        self.writes_ns += self.simulation.write_times()
        return self.writes_ns


@dataclass(frozen=True, slots=True)
class Sample:
    """A stretch of driving: its length, the time without a setpoint in it, and the servos' periods, ms."""

    length_ms: float
    gap_ms: float
    periods_ms: Sequence[float]


def sample(bench: Bench, begin_ns: int, end_ns: int) -> Sample:
    """Look at what the arm got between two times."""
    window = Span(begin_ns, end_ns)
    periods = [period_ns / NS_PER_MS for period_ns in periods_ns(bench.writes(), window)]
    return Sample(window.length_ns / NS_PER_MS, total_ns(gaps(bench.witness.commanded, window)) / NS_PER_MS, periods)


def baseline(bench: Bench, seconds: float) -> Sample:
    """Drive, and swap nothing."""
    began_ns = time.monotonic_ns()
    time.sleep(seconds)
    return sample(bench, began_ns, time.monotonic_ns())


def ask(bench: Bench, way: str, label: str, number: int) -> SwapStatus:
    """Swap by request; returns how it ended."""
    request = SwapRequest(label, f"{way}-{number}", "", Mode(way))
    bench.asker.swaps.request(request)
    bench.until(lambda: bench.asker.swaps.answer(request.request_id), SWAP_TIMEOUT_S, f"an answer to {request}")
    answer = bench.asker.swaps.answer(request.request_id)
    if answer is None or answer.outcome is not Outcome.SUCCEEDED:
        raise ConfigError(f"{way} swap {number} to {label} did not succeed: {answer}")
    return answer


def restart_process(bench: Bench, label: str) -> None:
    """Stop the policy, and start it with another model."""
    bench.stop_policy()
    bench.store.set_current(label)
    started_ns = time.monotonic_ns()
    bench.start_policy()
    bench.until(lambda: bench.drives_since(started_ns), SWAP_TIMEOUT_S, "the first chunk of the new process")


def measure(bench: Bench, way: str, labels: Sequence[str], swaps: int) -> list[Sample]:
    """Swap so many times in one way."""
    samples = []
    for number in range(swaps):
        present = bench.store.state().current
        label = next(other for other in labels if other != present)
        time.sleep(PAUSE_S)
        began_ns = time.monotonic_ns()
        if way == PROCESS:
            restart_process(bench, label)
        else:
            ask(bench, way, label, number)
        time.sleep(AFTER_S)
        samples.append(sample(bench, began_ns, time.monotonic_ns()))
        print(f"{way} {number + 1}/{swaps}: {samples[-1].gap_ms:.0f} ms without a setpoint", file=sys.stderr)
    return samples


def account(samples: Sequence[Sample], still: Sample) -> dict[str, Any]:
    """Gaps beyond the baseline's share, and servo periods beyond its worst."""
    share = still.gap_ms / still.length_ms
    limit_ms = max(still.periods_ms) + LATE_PERIODS * CONTROL_PERIOD_MS
    gaps_ms = [max(0.0, one.gap_ms - share * one.length_ms) for one in samples]
    late = sum(period_ms > limit_ms for one in samples for period_ms in one.periods_ms)
    return {
        "n": len(samples),
        "gap_ms_p50": round(statistics.median(gaps_ms), 2),
        "gap_ms_max": round(max(gaps_ms), 2),
        "late_servo_periods": late,
        "longest_servo_period_ms": round(max(max(one.periods_ms) for one in samples), 2),
        "measured_s": round(sum(one.length_ms for one in samples) / 1e3, 1),
    }


def describe(still: Sample) -> dict[str, Any]:
    """The baseline."""
    return {
        "measured_s": round(still.length_ms / 1e3, 1),
        "gap_ms": round(still.gap_ms, 2),
        "servo_period_ms_p50": round(statistics.median(still.periods_ms), 2),
        "servo_period_ms_max": round(max(still.periods_ms), 2),
        "late_from_ms": round(max(still.periods_ms) + LATE_PERIODS * CONTROL_PERIOD_MS, 2),
    }


def deploy_all(bench: Bench, choices: Sequence[Choice], count: int, folder: Path) -> list[Timeline]:
    """Deploy them in turn through nucleus and bridge, as local deployments, which restart no component."""
    timelines = []
    with device("lite", folder, bench.store.root, bench.tail, bench.witness) as robot:
        bench.until(lambda: robot.is_connected, START_TIMEOUT_S, "the bridge")
        for label, archive in archived(choices, folder, count):
            time.sleep(PAUSE_S)
            update = robot.deploy(f"file:{archive}", label.partition("@")[2], local=True)
            bench.until(lambda: update.is_over, SWAP_TIMEOUT_S, f"the report of {label}")  # noqa: B023
            timelines.append(update.timeline)
            whole_s = timelines[-1].to_first_action_s
            if whole_s is None:
                raise ConfigError(f"deployment of {label}: {timelines[-1].outcome}: {timelines[-1].reason}")
            print(f"deployed {label}: first action after {whole_s:.2f} s", file=sys.stderr)
    return timelines


def stages(timelines: Sequence[Timeline]) -> dict[str, Any]:
    """Medians and maxima, s."""
    found: dict[str, list[float]] = {}
    for timeline in timelines:
        for part in timeline.stretches:
            found.setdefault(part.stage, []).append(part.end_s - part.begin_s)
    whole = [whole_s for timeline in timelines if (whole_s := timeline.to_first_action_s) is not None]

    def describe_all(values: Sequence[float]) -> dict[str, float]:
        return {"p50": round(statistics.median(values), 3), "max": round(max(values), 3)}

    return {
        "n": len(whole),
        "first_action": describe_all(whole),
        "stages": {stage_name: describe_all(values) for stage_name, values in found.items()},
    }


def pair(models: Path, folder: Path) -> tuple[Choice, Choice]:
    """Two models of real size: the black and the white one, or else one and its copy."""
    black, white = first_of(BLACK, models), first_of(WHITE, models)
    first = choose(black, models)
    if white:
        return first, choose(white, models)
    copy = copied(first.folder, folder / "copy", "copy")
    return first, Choice(copy, manifests.load(copy), f"a copy of {first.manifest.label}")


def copied(model: Path, folder: Path, version: str) -> Path:
    """The same files under another version."""
    manifest = manifests.load(model)
    shutil.copytree(model, folder)
    manifests.write(folder, replace(manifest, version=f"{manifest.version}-{version}", signature=None))
    return folder


def archived(choices: Sequence[Choice], folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Archives with versions that no store has, so that each is really fetched; each is there until the next."""
    for number in range(count):
        copy = copied(choices[(number + 1) % len(choices)].folder, folder / "deployed", f"d{number}")
        manifest, archive = manifests.load(copy), folder / f"deployed-{number}.tar"
        archives.pack(copy, manifest, archive)
        yield manifest.label, archive
        archive.unlink()
        shutil.rmtree(copy)


@contextlib.contextmanager
def running(options: Options, folder: Path, first: Choice, second: Choice) -> Iterator[Bench]:
    """The graph with both models in its store, driving."""
    store = Store(folder / "store")
    for choice in (first, second):
        store.adopt(choice.folder)
    store.set_current(first.manifest.label)
    arguments = stage.arguments(folder, scene_seed(options.seed, 0), first.folder, SIZE, FPS)
    arguments |= {
        "store": str(store.root),
        "autostart": "true",
        "policy_config": str(stage.policy_config(folder, probation_s=options.probation_s)),
    }
    plan = make_plan(find_launch_file("evergreen_bringup", "demo.launch.xml"), arguments)
    alone = tuple(process for process in plan.processes if process.node.endswith("/policy"))
    others = tuple(process for process in plan.processes if process not in alone)
    tail, witness = Tail(), Witness()
    with contextlib.ExitStack() as stack:
        graph = stack.enter_context(Launcher(replace(plan, processes=others), on_event=tail))
        asker = stack.enter_context(spinning(lambda: Asker(witness)))
        simulation = stack.enter_context(stage.connect(folder / "simulator.sock", lambda: None))
        bench = Bench(store, witness, asker, simulation, replace(plan, processes=alone), tail, graph)
        stack.callback(bench.stop_policy)
        bench.start_policy()
        bench.until(lambda: bench.drives_since(0), START_TIMEOUT_S, "the first chunk")
        time.sleep(PAUSE_S + options.probation_s)
        with SimClient(folder / "simulator.sock") as scenes, changing_scenes(scenes, options.seed):
            yield bench


def run(options: Options, folder: Path) -> dict[str, Any]:
    """All of it."""
    first, second = pair(options.models, folder)
    labels = (first.manifest.label, second.manifest.label)
    sizes = {choice.manifest.label: choice.manifest.size_bytes for choice in (first, second)}
    result: dict[str, Any] = machine() | {"models_bytes": sizes, "probation_s": options.probation_s}
    with running(options, folder, first, second) as bench:
        still = baseline(bench, options.baseline_s)
        result["baseline"] = describe(still)
        for way in WAYS:
            result[way] = account(measure(bench, way, labels, options.swaps), still)
        if options.deployments:
            timelines = deploy_all(bench, (first, second), options.deployments, folder)
            result["event_to_first_action_s"] = stages(timelines)
        status = bench.simulation.status()
        result["realtime_factor"] = {key: status[key] for key in ("realtime_factor", "realtime_factor_total")}
    result["gap_share"] = round(result["blue_green"]["gap_ms_p50"] / max(result["process"]["gap_ms_p50"], 1e-9), 5)
    return result


def faults(result: Mapping[str, Any]) -> list[str]:
    """What keeps `result` from meeting the target."""
    found = []
    if late := result["blue_green"]["late_servo_periods"]:
        found.append(f"{late} late servo periods in blue_green")
    if result["gap_share"] > MOST_GAP_SHARE:
        found.append(
            f"blue_green's median gap is {result['gap_share']:.1%} of process's; {MOST_GAP_SHARE:.0%} is allowed"
        )
    return found


def main() -> int:
    """Measure, print, and judge."""
    options = parse()
    try:
        with stage.claimed() as folder:
            result = run(options, folder)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["faults"] = faults(result)
    publish(result, options.json)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
