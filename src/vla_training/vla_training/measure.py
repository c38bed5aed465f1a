"""Closed-loop success over many scenes, on several cores: what `evergreen eval` does in one process tree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vla_core import manifest as manifests
from vla_core.chunk import JoinRules
from vla_core.errors import ConfigError
from vla_core.image import encode_jpeg
from vla_sim.world import OTHERS_MAY_MOVE_M, World
from vla_training import taught_policy
from vla_training.evaluate import EpisodeResult, LoopSettings, PolicyCall, lay, run_episode, wilson
from vla_training.heard_policy import HeardPolicy
from vla_training.onnx_policy import ONNX_FILE, OnnxPolicy
from vla_training.prompted import ExpertPolicy, PromptedPolicy, Trial, lay_trial, run_trial

OVERVIEW = "overhead"
"""Beside the policy's own camera, in pictures of failures."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a model's folder, a taught trajectory's file, or, without a path, the scripted expert.

    `meanings` tells the expert which colour a prompt means.
    """

    path: Path | None
    taught: bool = False
    meanings: Mapping[str, str] = field(default_factory=dict)

    def listening(self, world: World, settings: LoopSettings) -> PromptedPolicy:
        """The policy that is told what to do, in the process that will ask it.

        Raises:
            EvergreenError: it cannot be loaded, or takes no prompt.
        """
        if self.path is None:
            return ExpertPolicy(world, self.meanings, settings)
        check_listens(self.path)
        return HeardPolicy(self.path)

    def load(self, world: World) -> PolicyCall:
        """The policy, in the process that will ask it.

        Raises:
            EvergreenError: it cannot be loaded.
        """
        if self.path is None:
            raise ConfigError("the expert is told what to do: give --prompt or --prompts")
        if self.taught:
            return taught_policy.load(self.path, lambda: world.time_s)
        return OnnxPolicy(self.path / ONNX_FILE)


@dataclass(frozen=True, slots=True)
class Played:
    """One episode, and where it failed two pictures: the scene, and how it was left; `(h, w, 3)` as JPEG."""

    result: EpisodeResult
    pictures: tuple[bytes, bytes] | None = None


def listens(folder: Path) -> bool:
    """Whether a model is told what to do by a prompt; the others can do one thing.

    Raises:
        EvergreenError: no such model.
    """
    return manifests.load(folder).prompt_encoder is not None


def check_listens(folder: Path) -> None:
    """See that a model listens.

    Raises:
        ConfigError: it does not.
    """
    if not listens(folder):
        about = manifests.load(folder)
        raise ConfigError(f"{about.label} does not listen: it can only do {about.prompt!r}; leave out the prompt")


def understood(folder: Path, prompt: str) -> str:
    """Colour of the cube that a model takes a prompt to ask for.

    Raises:
        EvergreenError: the model does not listen, or does not understand it; the reason names what it is nearest to.
    """
    check_listens(folder)
    return HeardPolicy(folder).target_of(prompt)


def settings_for(folder: Path, base: LoopSettings) -> LoopSettings:
    """`base` with what a model's manifest and graph say: camera, size, rate, how much of a chunk is played.

    Raises:
        EvergreenError: no such model, or it has no graph; `evergreen model export` makes one.
    """
    about = manifests.load(folder)
    if not (folder / ONNX_FILE).is_file():
        raise ConfigError(
            f"{folder} has no {ONNX_FILE}; make one with `evergreen model export`, or measure with --graph"
        )
    policy = OnnxPolicy(folder / ONNX_FILE)
    return replace(
        base,
        camera=policy.camera,
        width=policy.width,
        height=policy.height,
        rate_hz=about.rate_hz,
        replan_s=about.open_loop_s,
        rules=JoinRules(open_loop_s=about.open_loop_s + base.latency_s),
    )


def play(subject: Subject, seeds: Sequence[int | Trial], settings: LoopSettings, jobs: int = 0) -> Iterator[Played]:
    """Play the scenes of `seeds`; results come in their order.

    Args:
        subject: what is measured.
        seeds: of the scenes; or trials, in which the subject is told what to do.
        settings: of the loop.
        jobs: processes; 0 is one a core.
    """
    count = min(jobs or len(os.sched_getaffinity(0)), len(seeds))
    if count <= 1:
        player = _Player(subject, settings)
        yield from map(player.play, seeds)
        return
    # spawn: OpenGL contexts and thread pools do not survive a fork.
    with ProcessPoolExecutor(count, get_context("spawn"), _begin, (subject, settings)) as pool:
        pending = [pool.submit(_play, seed) for seed in seeds]
        try:
            for future in pending:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def rollout(
    subject: Subject, what: int | Trial, settings: LoopSettings, pictures: int, camera: str
) -> dict[str, bytes]:
    """`pictures` moments of one episode as JPEG, evenly spaced, by caption."""
    world = World(cameras=tuple(dict.fromkeys((settings.camera, camera))))
    seen: list[tuple[float, bytes]] = []
    try:

        def watch(now: World) -> None:
            seen.append((now.episode_time_s, encode_jpeg(now.render(camera))))

        if isinstance(what, int):
            result = run_episode(world, subject.load(world), what, settings, watch)
        else:
            result = run_trial(world, subject.listening(world, settings), what, settings, watch)
    finally:
        world.close()
    last = max(index for index, (time_s, _) in enumerate(seen) if time_s <= result.time_s + 0.1)
    chosen = np.linspace(0, last, pictures).round().astype(int)
    return {f"{seen[index][0]:.1f} s": seen[index][1] for index in chosen}


class _Player:
    """A world and a policy, kept from one episode to the next."""

    def __init__(self, subject: Subject, settings: LoopSettings) -> None:
        self._settings = settings
        self._world = World(cameras=tuple(dict.fromkeys((settings.camera, OVERVIEW))))
        self._subject = subject
        self._policy: PolicyCall | None = None
        self._listening: PromptedPolicy | None = None

    def play(self, what: int | Trial) -> Played:
        """One scene, with pictures of it where it failed."""
        return self._seed(what) if isinstance(what, int) else self._trial(what)

    def _trial(self, trial: Trial) -> Played:
        if self._listening is None:
            self._listening = self._subject.listening(self._world, self._settings)
        result = run_trial(self._world, self._listening, trial, self._settings)
        if result.success:
            return Played(result)
        end = self._world.render(OVERVIEW)
        lay_trial(self._world, trial, self._settings)
        return Played(result, (encode_jpeg(self._world.render(self._settings.camera)), encode_jpeg(end)))

    def _seed(self, seed: int) -> Played:
        if self._policy is None:
            self._policy = self._subject.load(self._world)
        result = run_episode(self._world, self._policy, seed, self._settings)
        if result.success:
            return Played(result)
        end = self._world.render(OVERVIEW)
        lay(self._world, seed, self._settings)
        return Played(result, (encode_jpeg(self._world.render(self._settings.camera)), encode_jpeg(end)))


_player: list[_Player] = []  # of this worker process


def _begin(subject: Subject, settings: LoopSettings) -> None:
    _player.append(_Player(subject, settings))


def _play(what: int | Trial) -> Played:
    return _player[0].play(what)


def summarise(subject: str, shift: str, results: Sequence[EpisodeResult], settings: LoopSettings) -> dict[str, Any]:
    """Counts, interval, settings and every episode, ready for JSON."""
    successes = sum(result.success for result in results)
    low, high = wilson(successes, len(results))
    times = [result.time_s for result in results if result.success]
    return {
        "model": subject,
        "episodes": len(results),
        "successes": successes,
        "success_rate": round(successes / len(results), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "wrong_object": sum(result.wrong_lifted for result in results),
        "wrong_touched": sum(result.wrong_touched for result in results),
        "median_s": round(float(np.median(times)), 2) if times else None,
        "median_distance_m": round(float(np.median([result.distance_m for result in results])), 4),
        "shift": shift,
        "seeds": [min(result.seed for result in results), max(result.seed for result in results)],
        "graph": False,
        "settings": asdict(settings),
        "results": [asdict(result) for result in sorted(results, key=lambda result: result.seed)],
    }


def why(result: EpisodeResult) -> str:
    """What went wrong, in a few words."""
    if result.note:
        return result.note
    if result.wrong_lifted:
        return "wrong object lifted"
    if not result.lifted:
        return "never lifted"
    if result.others_moved_m > OTHERS_MAY_MOVE_M:
        return "another object moved"
    return f"{result.distance_m * 100:.0f} cm from the spot"
