"""Closed-loop success of an exported model: `python -m vla_training.evaluate models/act-black --episodes 50`.

Runs in one process, faster than real time, without ROS, but with what the ROS graph does to a policy: JPEG pictures,
servo ticks, setpoints at 100 Hz, inference that takes time while the arm moves on, and `vla_core.chunk.join`, the
function that the policy node joins chunks with.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core import manifest as manifests
from vla_core.chunk import NS_PER_S, ActionChunk, Hold, JoinRules, Plan, join
from vla_core.errors import ConfigError, EvergreenError
from vla_core.image import decode_resize, encode_jpeg
from vla_sim.world import TIMESTEP_S, World
from vla_training.onnx_policy import ONNX_FILE, OnnxPolicy

TICK_RAD = 2 * math.pi / 4096
"""Resolution of an STS3215's target and of its measured position."""
SETPOINT_PERIOD_NS = 10_000_000
"""The driver writes the bus at 100 Hz."""
HELD_OUT_SEED = 1_000_000
"""Scenes of training have smaller seeds than this, scenes of evaluation larger."""
_WILSON_Z = 1.959964  # 95 %
_JUDGE_PERIOD_NS = 100_000_000
_SETTLED_NS = NS_PER_S
"""An episode ends once success has lasted this long: a cube that falls over later would not count."""

PolicyCall = Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float64]]
"""Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the closed loop is made of.

    Attributes:
        camera, width, height: what the policy sees.
        rate_hz: of the policy's actions.
        latency_s: from the picture's capture to the first setpoint that uses the answer.
        skew_s: how much newer the joint positions are than the picture; both carry the picture's stamp.
        replan_s: between observations; the node asks anew when this much of a chunk is played.
        rules: how chunks are joined.
        limit_s: simulated time given to an episode.
        target: the cube that must be placed.
    """

    camera: str = "front"
    width: int = 128
    height: int = 64
    rate_hz: float = 10.0
    latency_s: float = 0.10
    skew_s: float = 0.04
    replan_s: float = 0.5
    rules: JoinRules = JoinRules()  # noqa: RUF009 (frozen)
    limit_s: float = 20.0
    target: str = "black"

    def __post_init__(self) -> None:
        if not 0 <= self.skew_s <= self.latency_s:
            raise ConfigError(f"skew_s {self.skew_s} must lie between 0 and latency_s {self.latency_s}")
        if min(self.latency_s, self.replan_s, self.limit_s, self.rate_hz) <= 0:
            raise ConfigError(
                f"latency_s {self.latency_s}, replan_s {self.replan_s}, limit_s {self.limit_s} and "
                f"rate_hz {self.rate_hz} must be above 0"
            )


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one scene ended; distances in metres, times in simulated seconds."""

    seed: int
    success: bool
    lifted: bool
    placed: bool
    wrong_lifted: bool
    distance_m: float
    others_moved_m: float
    time_s: float
    largest_gap_rad: float
    """Largest disagreement between the plan in force and the chunk that took over."""


def to_ticks(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles as a servo can hold or report them, rad."""
    return np.rint(angles_rad / TICK_RAD) * TICK_RAD


def see(world: World, settings: LoopSettings) -> NDArray[np.uint8]:
    """One picture the way it reaches the policy on the robot: through a JPEG and `decode_resize`."""
    return decode_resize(encode_jpeg(world.render(settings.camera)), settings.width, settings.height)


class _Asker:
    """The policy node's part of the loop: observe, wait for the answer, join.

    Times are simulated nanoseconds since the episode began.
    """

    def __init__(self, world: World, policy: PolicyCall, settings: LoopSettings) -> None:
        self._world, self._policy, self._settings = world, policy, settings
        self._latency_ns = round(settings.latency_s * NS_PER_S)
        self._skew_ns = round(settings.skew_s * NS_PER_S)
        self._replan_ns = round(settings.replan_s * NS_PER_S)
        self._picture: NDArray[np.uint8] | None = None
        self._seen_ns = 0
        self._due_ns = 0
        self._chunk: ActionChunk | None = None
        self.plan: Plan | None = None
        self.largest_gap_rad = 0.0

    def tick(self, now_ns: int) -> None:
        """Do what is due: take a picture, ask with the newest joint positions, or join the answer."""
        if self._picture is None and now_ns >= self._due_ns:
            self._picture, self._seen_ns = see(self._world, self._settings), now_ns
        if self._picture is not None and self._chunk is None and now_ns >= self._seen_ns + self._skew_ns:
            actions = self._policy(self._picture, to_ticks(self._world.joint_positions()))
            self._chunk = ActionChunk(self._seen_ns, self._settings.rate_hz, actions)
        if self._chunk is not None and now_ns >= self._seen_ns + self._latency_ns:
            self._join(self._chunk, now_ns)
            self._due_ns = max(now_ns, self._seen_ns + self._replan_ns)
            self._picture = self._chunk = None

    def _join(self, chunk: ActionChunk, now_ns: int) -> None:
        joined = join(chunk, now_ns, self.plan, to_ticks(self._world.joint_positions()), self._settings.rules)
        if isinstance(joined, Hold):
            return
        if self.plan is not None:
            self.largest_gap_rad = max(
                self.largest_gap_rad, float(np.abs(chunk.at(now_ns) - self.plan.at(now_ns)).max())
            )
        self.plan = joined


def run_episode(world: World, policy: PolicyCall, seed: int, settings: LoopSettings) -> EpisodeResult:
    """Play one scene to success or to the time limit."""
    world.reset(seed)
    substeps = round(SETPOINT_PERIOD_NS / NS_PER_S / TIMESTEP_S)
    asker = _Asker(world, policy, settings)
    setpoint = to_ticks(world.joint_positions())
    success_since, settled, now_ns = None, False, 0
    while now_ns < settings.limit_s * NS_PER_S:
        asker.tick(now_ns)
        if asker.plan is not None:
            setpoint = to_ticks(asker.plan.at(now_ns))
        world.step(setpoint, substeps)
        now_ns += SETPOINT_PERIOD_NS
        if now_ns % _JUDGE_PERIOD_NS == 0:
            if not world.outcome(settings.target).success:
                success_since = None
            elif success_since is None:
                success_since = now_ns
            elif now_ns - success_since >= _SETTLED_NS:
                settled = True
                break
    end = world.outcome(settings.target)
    return EpisodeResult(
        seed=seed,
        success=settled,
        lifted=end.lifted,
        placed=end.placed,
        wrong_lifted=end.wrong_lifted,
        distance_m=end.distance_m,
        others_moved_m=end.others_moved_m,
        time_s=(success_since or now_ns) / NS_PER_S,
        largest_gap_rad=asker.largest_gap_rad,
    )


def refuse_held_out(seeds: Iterable[int]) -> None:
    """Keep training away from the scenes that evaluation uses.

    Raises:
        ConfigError: one of `seeds` belongs to evaluation.
    """
    if any(seed >= HELD_OUT_SEED for seed in seeds):
        raise ConfigError(f"seeds from {HELD_OUT_SEED} on are for evaluation; choose others for training")


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson, 1927)."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"{successes} successes in {trials} trials is impossible")
    share, z2 = successes / trials, _WILSON_Z**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _WILSON_Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def summarise(results: Sequence[EpisodeResult], settings: LoopSettings) -> dict[str, Any]:
    """Counts, interval, settings and every episode, ready for JSON."""
    successes = sum(result.success for result in results)
    low, high = wilson(successes, len(results))
    times = [result.time_s for result in results if result.success]
    return {
        "successes": successes,
        "episodes": len(results),
        "success_rate": round(successes / len(results), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "lifted": sum(result.lifted for result in results),
        "wrong_lifted": sum(result.wrong_lifted for result in results),
        "median_time_s": float(np.median(times)) if times else None,
        "median_distance_m": float(np.median([result.distance_m for result in results])),
        "settings": asdict(settings),
        "seeds": [min(result.seed for result in results), max(result.seed for result in results)],
        "results": [asdict(result) for result in results],
    }


def evaluate(policy: PolicyCall, seeds: Sequence[int], settings: LoopSettings) -> Iterator[EpisodeResult]:
    """Play the scenes of `seeds`, one after another."""
    world = World(cameras=(settings.camera,))
    try:
        for seed in seeds:
            yield run_episode(world, policy, seed, settings)
    finally:
        world.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vla_training.evaluate", description="Closed-loop success.")
    parser.add_argument("folder", type=Path, help="a model with policy.onnx; its manifest, if any, sets the rate")
    parser.add_argument("--episodes", type=int, default=50, help="scenes (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=HELD_OUT_SEED, help="of the scenes (default %(default)s)")
    parser.add_argument("--latency-s", type=float, default=0.10, help="picture to setpoint (default %(default)s s)")
    parser.add_argument("--replan-s", type=float, help="between observations (default: the manifest's open_loop_s)")
    parser.add_argument("--limit-s", type=float, default=20.0, help="for an episode (default %(default)s s)")
    parser.add_argument("--target", default="black", help="cube to be placed (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write everything here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; 0 whatever the success is, 2 where the model cannot run."""
    options = _parser().parse_args(arguments)
    try:
        policy = OnnxPolicy(options.folder / ONNX_FILE)
        about = manifests.load(options.folder) if (options.folder / manifests.FILE_NAME).is_file() else None
        open_loop_s = about.open_loop_s if about else 0.5
        replan_s = options.replan_s or open_loop_s
        settings = LoopSettings(
            camera=policy.camera,
            width=policy.width,
            height=policy.height,
            rate_hz=about.rate_hz if about else 10.0,
            latency_s=options.latency_s,
            replan_s=replan_s,
            rules=JoinRules(open_loop_s=max(open_loop_s, replan_s + options.latency_s)),
            limit_s=options.limit_s,
            target=options.target,
        )
        results = []
        started = time.monotonic()
        seeds = range(options.first_seed, options.first_seed + options.episodes)
        if options.first_seed < HELD_OUT_SEED:
            raise ConfigError(f"--first-seed {options.first_seed}: scenes below {HELD_OUT_SEED} are for training")
        for result in evaluate(policy, seeds, settings):
            results.append(result)
            won = sum(each.success for each in results)
            word = "success" if result.success else f"FAILED (lifted {result.lifted}, {result.distance_m * 100:.0f} cm)"
            print(f"seed {result.seed}: {word} in {result.time_s:.1f} s; {won} of {len(results)}", flush=True)
        summary = summarise(results, settings)
        summary["computing_s"] = round(time.monotonic() - started, 1)
        if options.json:
            options.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    except (EvergreenError, OSError) as error:
        print(f"evaluate: {error}")
        return 2
    low, high = summary["interval_95"]
    wrong = summary["wrong_lifted"]
    print(f"{summary['successes']} of {summary['episodes']} ({low:.0%} to {high:.0%}); wrong cube lifted {wrong} times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
