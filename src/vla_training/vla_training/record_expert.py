"""`evergreen record --expert`: demonstrations by the scripted expert in simulation, as a LeRobotDataset.

Faster than real time, on as many cores as wanted; interrupted, the same command goes on with the next scene. With
`--targets`, any of several colours is asked for, in other words each time, and every frame also says where the cubes
lie in the picture: column `cubes`, see `vla_training.localisation`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_sim.layout import CUBES, NAMED, TRAINING
from vla_training.dataset import Episode
from vla_training.evaluate import VALIDATION_SEED, LoopSettings, refuse_held_out
from vla_training.lerobot_format import EXTRA
from vla_training.lerobot_writer import DatasetWriter
from vla_training.localisation import COLUMN, COLUMN_NAMES
from vla_training.record import Demonstrator, RecordSettings
from vla_training.scripts import draw

DEFAULT_EPISODES = 10
_AHEAD = 4
"""Episodes that a worker may be ahead of the disk."""


def prompt_for(target: str) -> str:
    """The instruction that demonstrations with this cube carry."""
    return f"put the {target} cube on the spot"


def run(arguments: argparse.Namespace) -> int:
    """Record until the dataset holds `arguments.episodes`; returns 0.

    Raises:
        EvergreenError: no such target, seeds that are for evaluation, or a disk that is full; what is saved is whole.
    """
    targets = targets_of(arguments)
    root = arguments.out or Path("out/data") / ("prompt" if targets else arguments.target)
    loop = LoopSettings(target=targets[0] if targets else arguments.target, variety=TRAINING)
    wanted = arguments.episodes or DEFAULT_EPISODES
    columns = {COLUMN: COLUMN_NAMES} if targets else {}
    cameras = {loop.camera: (loop.width, loop.height)}
    with DatasetWriter(root, loop.rate_hz, cameras, SO101_JOINTS, columns=columns) as writer:
        first = next_seed(root, arguments.seed)
        refuse_held_out(range(first, first + max(0, wanted - writer.episodes)))
        if writer.episodes >= wanted:
            print(f"{root} holds {writer.episodes} episodes already")
            return 0
        _fill(writer, wanted, first, RecordSettings(loop, picture_every=1, targets=targets), arguments.jobs)
        print(f"{root}: {writer.episodes} episodes, {writer.frames} frames")
    return 0


def targets_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The colours of `--targets`; none where one cube is recorded, that of `--target`.

    Raises:
        ConfigError: there is no such cube, or a colour comes twice.
    """
    if not arguments.targets:
        if arguments.target not in CUBES:
            raise ConfigError(f"--target {arguments.target}: the expert places {' or '.join(CUBES)}")
        return ()
    targets = tuple(arguments.targets.split(","))
    unknown = [target for target in targets if target not in NAMED]
    if unknown or len(set(targets)) < len(targets):
        raise ConfigError(f"--targets {arguments.targets}: give some of {','.join(NAMED)}, each once")
    return targets


def next_seed(root: Path, first: int) -> int:
    """The scene after the last that is saved; `first` in a new dataset."""
    notes = root / EXTRA
    if not notes.is_file():
        return first
    seeds = [json.loads(line).get("seed") for line in notes.read_text(encoding="utf-8").splitlines()]
    return max([first - 1, *(int(seed) for seed in seeds if seed is not None)]) + 1


def _fill(writer: DatasetWriter, wanted: int, first: int, settings: RecordSettings, jobs: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tried, begun = 0, writer.episodes
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("recording", total=wanted, completed=begun)
        for episode in _episodes(first, settings, jobs):
            tried += 1
            if episode is not None:
                _save(writer, episode, settings)
            kept = writer.episodes - begun
            progress.update(bar, completed=writer.episodes, description=f"{kept} of {tried} scenes kept")
            if writer.episodes >= wanted:
                return


def _save(writer: DatasetWriter, episode: Episode, settings: RecordSettings) -> None:
    loop = settings.loop
    facts = {"seed": episode.seed, "variety": loop.variety, "target": loop.target}
    prompts: str | tuple[str, ...] = prompt_for(loop.target)
    columns = {}
    if settings.targets:
        script = draw(episode.seed, settings.targets)
        facts |= {"target": script.targets[-1], "kind": script.kind.value}
        prompts = episode.prompts
        columns = {COLUMN: np.asarray(episode.cubes).reshape(len(episode.states), -1)}
    writer.add_episode({loop.camera: episode.images}, episode.states, episode.actions, prompts, facts, columns=columns)


def _episodes(first: int, settings: RecordSettings, jobs: int) -> Iterator[Episode | None]:
    """Demonstrations of the scenes from `first` on, in order; None where one failed."""
    seeds = iter(range(first, VALIDATION_SEED))
    if jobs <= 1:
        demonstrator = Demonstrator(settings)
        try:
            yield from map(demonstrator.episode, seeds)
        finally:
            demonstrator.close()
        return
    with get_context("spawn").Pool(jobs, _begin, (settings,)) as pool:
        while block := list(islice(seeds, jobs * _AHEAD)):
            yield from pool.imap(_demonstrate, block)


_demonstrators: list[Demonstrator] = []  # of this worker process


def _begin(settings: RecordSettings) -> None:
    _demonstrators.append(Demonstrator(settings))


def _demonstrate(seed: int) -> Episode | None:
    return _demonstrators[0].episode(seed)
