"""From photon to servo: the latency of every action chunk through the whole graph, and the policy server's share alone.

    python benchmarks/latency.py --json out/latency.json                 # the best model in models/, in simulation
    python benchmarks/latency.py --model models/evergreen-black --seconds 60

Starts the demo's graph (simulator, eight cameras, policy, arm), lets the policy drive through fresh scenes, and adds up
what `policy/latency` and `arm_controller/latency` say of the same chunk. Latency means: from the oldest picture that a
chunk used to the first servo write whose setpoint came from it. The scenes are held out: no model was trained on them.

Exit code 0 when p95 is below the line and the arm never stood still for want of a chunk (`gaps`, `holds`), 1 when not,
2 when it could not be measured. `faults` in the result says why.
"""

from __future__ import annotations

import argparse
import contextlib
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from demo_graph import START_TIMEOUT_S, running
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from report import machine, publish

from evergreen.demo import stage
from evergreen.demo.models import choose
from evergreen.demo.session import scene_seed
from vla_core.errors import ConfigError, EvergreenError
from vla_core.latency import LINE_MS, STAGES, summarise
from vla_core.manifest import Manifest
from vla_core.observation import IMAGE_KEY, STATE_KEY
from vla_policy.serving.address import unix_address
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.supervisor import ServerCommand, ServerProcess
from vla_ros import diagnostics, qos
from vla_sim.control import SimClient

WARM_UP_CHUNKS = 3
"""The first chunks wait for discovery and page in what the rest find loaded."""
SCENE_S = 12.0
"""A fresh scene this often keeps the arm in motion."""
REQUESTS = 300
REQUEST_TIMEOUT_S = 30.0
COUNTED = ("gaps", "holds")
"""The policy's counters that must not move while it drives."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    model: str
    models: Path
    seconds: float
    seed: int
    json: Path | None


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="auto", help="a model's name or folder (default: the best in --models)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where models lie (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    return Options(**vars(parser.parse_args()))


class Ledger(Node):
    """Books what policy and arm report of each chunk, by its stamp."""

    def __init__(self) -> None:
        super().__init__("latency_benchmark")
        self.policy: dict[int, dict[str, float]] = {}
        self.arm_ms: dict[int, float] = {}
        self.counts = self._counts_before = dict.fromkeys(COUNTED, 0)
        self.create_subscription(DiagnosticStatus, "policy/latency", self._on_policy, qos.LATENCY)
        self.create_subscription(DiagnosticStatus, "arm_controller/latency", self._on_arm, qos.LATENCY)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.DIAGNOSTICS)

    def _on_policy(self, message: DiagnosticStatus) -> None:
        values = diagnostics.values(message)
        stages = {name: float(values[f"{name}_ms"]) for name in STAGES if f"{name}_ms" in values}
        self.policy[int(values["stamp_ns"])] = stages

    def _on_arm(self, message: DiagnosticStatus) -> None:
        values = diagnostics.values(message)
        self.arm_ms[int(values["stamp_ns"])] = float(values["total_ms"])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "policy: chunks":
                values = diagnostics.values(status)
                self.counts = {name: int(values.get(name) or 0) for name in COUNTED}

    def reset(self) -> None:
        """Forget the chunks, gaps and holds so far."""
        self.policy.clear()
        self.arm_ms.clear()
        self._counts_before = self.counts

    def counted(self) -> dict[str, int]:
        """Gaps and holds since `reset`; the policy reports once a second, so that one about then may count."""
        return {name: self.counts[name] - self._counts_before[name] for name in COUNTED}

    def complete(self) -> list[int]:
        """Stamps of the chunks that both have reported, oldest first."""
        return sorted(self.policy.keys() & self.arm_ms.keys())


def measure_graph(options: Options, model: Path, folder: Path) -> dict[str, Any]:
    """Latency and its stages through the running graph."""
    with running(model, options.seed, folder, Ledger) as graph:
        book = graph.watcher
        graph.wait_for_start(lambda: len(book.complete()) >= WARM_UP_CHUNKS, "the first chunks")
        book.reset()
        with SimClient(folder / "simulator.sock") as simulation, changing_scenes(simulation, options.seed):
            graph.wait(lambda: False, options.seconds)
            realtime_factor = simulation.status().get("realtime_factor")
        return account(book) | {"seconds": options.seconds, "realtime_factor": realtime_factor}


@contextlib.contextmanager
def changing_scenes(simulation: SimClient, seed: int) -> Iterator[None]:
    """Lay out a fresh scene every SCENE_S, in a thread of its own."""
    over = threading.Event()

    def change() -> None:
        index = 0
        while not over.wait(SCENE_S):
            index += 1
            simulation.reset(scene_seed(seed, index), keep_arm=True)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def account(book: Ledger) -> dict[str, Any]:
    """Percentiles of the whole and of each stage; `write` is all that follows the policy's publication."""
    stamps = book.complete()
    totals = [book.arm_ms[stamp] for stamp in stamps]
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    for stamp in stamps:
        known = book.policy[stamp]
        for name, value_ms in known.items():
            stages[name].append(value_ms)
        stages["write"].append(book.arm_ms[stamp] - sum(known.values()))
    return {
        "chunks": len(stamps),
        "line_ms": LINE_MS,
        "below_line": round(float(np.mean(np.array(totals) < LINE_MS)), 4) if totals else None,
        "total_ms": summarise(totals).as_dict(),
        "stages_ms": {name: summarise(values).as_dict() for name, values in stages.items() if values},
    } | book.counted()


def faults(result: Mapping[str, Any]) -> list[str]:
    """What keeps `result` from being a proof."""
    p95 = result["total_ms"]["p95"]
    found = [f"{result[name]} {name}: the arm stood still for want of a chunk" for name in COUNTED if result[name]]
    if p95 is None:
        return [*found, "no chunk reached the arm"]
    return [*found, f"p95 is {p95:.1f} ms, the line {LINE_MS:g} ms"] if p95 >= LINE_MS else found


def measure_server(model: Path, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """The policy server alone: time to its first answer, and its round trip without ROS, cameras and arm."""
    observation: dict[str, object] = {
        IMAGE_KEY + name: np.zeros((size.height, size.width, 3), np.uint8) for name, size in manifest.cameras.items()
    }
    observation |= {STATE_KEY: np.zeros(manifest.dof, np.float32), "prompt": manifest.prompt, "stamp_ns": 0}
    began = time.monotonic()
    server = ServerProcess(ServerCommand(unix_address(folder / "server.sock"), model), lambda _: None)
    try:
        server.wait_ready(START_TIMEOUT_S, threading.Event())
        client = PolicyClient(server.command.address)
        client.infer(observation, REQUEST_TIMEOUT_S)
        first_s = time.monotonic() - began
        answers = [client.infer(observation, REQUEST_TIMEOUT_S) for _ in range(REQUESTS)]
        client.close()
    finally:
        server.stop()
    return {
        "first_answer_s": round(first_s, 2),
        "round_trip_ms": summarise(answer.round_trip_ms for answer in answers).as_dict(),
        "infer_ms": summarise(answer.infer_ms for answer in answers).as_dict(),
        "overhead_ms": summarise(answer.round_trip_ms - answer.infer_ms for answer in answers).as_dict(),
    }


def main() -> int:
    """Measure, print, and judge."""
    options = parse()
    try:
        choice = choose(options.model, options.models)
        if not choice.manifest.cameras:
            raise ConfigError(
                f"model {choice.manifest.label} looks at no picture, so that there is no photon to start from; "
                "give --model a model with cameras, such as evergreen-black"
            )
        result: dict[str, Any] = machine() | {"model": choice.manifest.label, "backend": choice.manifest.backend}
        with stage.claimed() as folder:
            result["server"] = measure_server(choice.folder, choice.manifest, folder)
            result |= measure_graph(options, choice.folder, folder)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["faults"] = faults(result)
    publish(result, options.json)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
