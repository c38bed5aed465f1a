"""What listening costs: a model that does one thing and a model that is told to do it, on the same scenes.

    python benchmarks/listening.py --json out/bench/listening.json

Both play the same trials: cubes of any colours, among them the one that the second model is for and that the first is
asked for. Then both answer the same observations, in turn, on one thread. Exit code 0, or 2 when it cannot be measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import machine, publish

from vla_core import manifest as manifests
from vla_core.errors import EvergreenError
from vla_core.latency import summarise
from vla_sim.layout import VARIED
from vla_sim.world import World
from vla_training import measure
from vla_training.evaluate import HELD_OUT_SEED, EpisodeResult, LoopSettings, see, to_ticks, wilson
from vla_training.heard_policy import HeardPolicy
from vla_training.onnx_policy import ONNX_FILE, OnnxPolicy
from vla_training.prompted import Kind, PromptedPolicy, Row, Trial, run_trial

ANSWERS, WARM_UPS = 200, 10


class Deaf:
    """A policy that does its one thing, whatever it is told."""

    def __init__(self, folder: Path) -> None:
        """Load its graph."""
        self._policy = OnnxPolicy(folder / ONNX_FILE)

    def prompt(self, text: str) -> str:
        """Take no notice."""
        del text
        return ""

    def __call__(self, picture: NDArray[np.uint8], state: NDArray[np.float64]) -> NDArray[np.float64]:
        """Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad."""
        return self._policy(picture, state)


def play(policy: PromptedPolicy, trials: Sequence[Trial], settings: LoopSettings) -> list[EpisodeResult]:
    """Every trial, one after another."""
    world = World(cameras=(settings.camera,))
    try:
        return [run_trial(world, policy, trial, settings) for trial in trials]
    finally:
        world.close()


def count(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Successes, their interval, and how often a wrong object was lifted."""
    won = sum(result.success for result in results)
    times_s = [result.time_s for result in results if result.success]
    return {
        "successes": won,
        "interval_95": [round(limit, 4) for limit in wilson(won, len(results))],
        "wrong_object": sum(result.wrong_lifted for result in results),
        "median_s": round(float(np.median(times_s)), 2) if won else None,
    }


def time_answers(
    players: Mapping[str, tuple[PromptedPolicy, LoopSettings]],
) -> dict[str, dict[str, float | int | None]]:
    """Milliseconds a chunk takes, of policies that are asked in turn, each about pictures of its own size."""
    world = World(cameras=tuple({settings.camera for _, settings in players.values()}))
    state = to_ticks(world.joint_positions())
    pictures = {name: see(world, settings) for name, (_, settings) in players.items()}
    world.close()
    spent: dict[str, list[float]] = {name: [] for name in players}
    for number in range(WARM_UPS + ANSWERS):
        for name, (policy, _) in players.items():
            began = time.perf_counter()
            policy(pictures[name], state)
            if number >= WARM_UPS:
                spent[name].append((time.perf_counter() - began) * 1e3)
    return {name: summarise(ms).as_dict() for name, ms in spent.items()}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listener", type=Path, default=Path("models/evergreen-prompt"), help="(default %(default)s)")
    parser.add_argument("--alone", type=Path, default=Path("models/evergreen-black"), help="(default %(default)s)")
    parser.add_argument("--episodes", type=int, default=100, help="scenes (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result there")
    options = parser.parse_args()
    try:
        prompt = manifests.load(options.alone).prompt
        target = measure.understood(options.listener, prompt)
        base = LoopSettings(target=target, variety=VARIED)
        row = Row(Kind.KNOWN, (prompt,), (target,))
        trials = [Trial(row, seed) for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + options.episodes)]
        heard = HeardPolicy(options.listener)
        heard.prompt(prompt)
        players: dict[str, tuple[PromptedPolicy, LoopSettings]] = {
            "alone": (Deaf(options.alone), measure.settings_for(options.alone, base)),
            "listener": (heard, measure.settings_for(options.listener, base)),
        }
        chunk_ms = time_answers(players)
        found = {name: count(play(policy, trials, settings)) for name, (policy, settings) in players.items()}
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = {"alone": manifests.load(options.alone).label, "listener": manifests.load(options.listener).label}
    result = {"prompt": prompt, "target": target, "episodes": options.episodes, "models": names}
    publish({**machine(), **result, "success": found, "chunk_ms": chunk_ms}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
