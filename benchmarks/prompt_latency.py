"""From a sentence on `prompt` to the first servo write that follows it, through the whole graph.

    python benchmarks/prompt_latency.py --model models/evergreen-prompt --json out/bench/prompt_latency.json

Starts the demo's graph and says one prompt after the other: each is a phrase that the model knows, for its targets in
turn, never twice the same sentence, so that each is encoded anew. Three durations: `policy` from the prompt's arrival
at the policy to the publication of the first trajectory whose actions were asked for with it; `servo` from before its
publication here to the servo write of that trajectory's first setpoint; `encode` of the encoder alone.

Exit code 0 when every prompt was followed, 1 when not, 2 when it could not be measured.
"""

from __future__ import annotations

import argparse
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo_graph import Watched, running
from diagnostic_msgs.msg import DiagnosticStatus
from latency import Ledger
from report import machine, publish
from std_msgs.msg import String

from evergreen.demo import stage
from evergreen.demo.models import choose
from vla_core.errors import EvergreenError
from vla_core.latency import summarise
from vla_policy.serving.prompt_encoder import Listener
from vla_ros import diagnostics, qos

FOLLOW_TIMEOUT_S = 10.0
PAUSE_S = 0.7
"""Between two prompts; no whole number of chunks, so that they meet every phase of one."""
NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    model: str
    models: Path
    prompts: int
    seed: int
    json: Path | None


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="evergreen-prompt", help="a model's name or folder (default %(default)s)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where models lie (default %(default)s)")
    parser.add_argument("--prompts", type=int, default=50, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scene (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    return Options(**vars(parser.parse_args()))


class Speaker(Ledger):
    """Says prompts, and notes which chunk follows each."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = self.create_publisher(String, "prompt", qos.PROMPT)
        self.followed: dict[int, float] = {}

    def _on_policy(self, message: DiagnosticStatus) -> None:
        super()._on_policy(message)
        values = diagnostics.values(message)
        if "prompt_ms" in values:
            self.followed[int(values["stamp_ns"])] = float(values["prompt_ms"])


@dataclass(slots=True)
class Measured:
    """Durations, ms."""

    policy_ms: list[float] = field(default_factory=list)
    servo_ms: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def sentences(listener: Listener, count: int) -> list[str]:
    """Known phrases of the targets in turn."""
    phrases, targets = listener.phrases, list(listener.phrases.centroids)
    of = {
        name: [t for t, target in zip(phrases.texts, phrases.targets, strict=True) if target == name]
        for name in targets
    }
    chosen = [of[targets[index % len(targets)]] for index in range(count)]
    return [texts[index // len(targets) % len(texts)] for index, texts in enumerate(chosen)]


def measure_encoder(listener: Listener, texts: list[str]) -> list[float]:
    """What understanding each takes, ms, without ROS."""
    times_ms = []
    for text in texts:
        begun = time.perf_counter()
        listener.understand(text)
        times_ms.append((time.perf_counter() - begun) * 1e3)
    return times_ms


def measure_graph(options: Options, model: Path, folder: Path, texts: list[str]) -> Measured:
    """Say every prompt in the running graph."""
    measured = Measured()
    with running(model, options.seed, folder, Speaker) as graph:
        graph.wait_for_start(lambda: len(graph.watcher.complete()) > 2, "the first chunks")
        for text in texts:
            say(graph, text, measured)
    return measured


def say(graph: Watched[Speaker], text: str, measured: Measured) -> None:
    """One prompt, until the servos follow it."""
    speaker = graph.watcher
    graph.wait(lambda: False, PAUSE_S)
    speaker.followed.clear()
    said_ns = time.time_ns()
    speaker.prompts.publish(String(data=text))
    if not graph.wait(lambda: bool(speaker.followed.keys() & speaker.arm_ms.keys()), FOLLOW_TIMEOUT_S):
        measured.lost.append(text)
        return
    stamp_ns = next(iter(speaker.followed.keys() & speaker.arm_ms.keys()))
    measured.policy_ms.append(speaker.followed[stamp_ns])
    measured.servo_ms.append((stamp_ns - said_ns) / NS_PER_MS + speaker.arm_ms[stamp_ns])


def main() -> int:
    """Measure, and print."""
    options = parse()
    try:
        choice = choose(options.model, options.models)
        listener = Listener.load(choice.folder, choice.manifest)
        texts = sentences(listener, options.prompts)
        result: dict[str, Any] = machine() | {"model": choice.manifest.label, "prompts": len(texts)}
        result["encode_ms"] = summarise(measure_encoder(listener, texts)).as_dict()
        with stage.claimed() as folder:
            measured = measure_graph(options, choice.folder, folder, texts)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["policy_ms"] = summarise(measured.policy_ms).as_dict()
    result["servo_ms"] = summarise(measured.servo_ms).as_dict()
    result["lost"] = measured.lost
    publish(result, options.json)
    return 1 if measured.lost else 0


if __name__ == "__main__":
    sys.exit(main())
