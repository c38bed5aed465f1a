"""`evergreen record --expert`: demonstrations by the scripted expert in simulation, as a LeRobotDataset.

Faster than real time, on as many cores as wanted; interrupted, the same command goes on with the next scene. With
`--targets`, any of several colours is asked for, in other words each time, and every frame also says where the cubes
lie in the picture: column `cubes`, see `vla_training.localisation`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_sim import layout
from vla_sim.layout import CUBES, NAMED, TRAINING
from vla_training.dataset import Episode
from vla_training.evaluate import VALIDATION_SEED, LoopSettings, refuse_held_out
from vla_training.lerobot_format import EXTRA
from vla_training.lerobot_writer import DatasetWriter
from vla_training.localisation import COLUMN, COLUMN_NAMES
from vla_training.places import Place, place_of
from vla_training.record import Demonstrator, RecordSettings
from vla_training.scripts import Kind, Script, draw
from vla_training.shape import ActSettings

Choice = TypeVar("Choice", Kind, Place)

DEFAULT_EPISODES = 10
_AHEAD = 4
"""Episodes that a worker may be ahead of the disk."""


def prompt_for(target: str) -> str:
    """The instruction that demonstrations with this cube carry."""
    return f"put the {target} cube on the spot"


def run(arguments: argparse.Namespace) -> int:
    """Record until the dataset holds `arguments.episodes`; returns 0.

    Raises:
        EvergreenError: no such target, a size that no policy is fed, no scenes left that are not for evaluation, or a
            disk that is full; what is saved is whole.
    """
    targets, kinds = targets_of(arguments), kinds_of(arguments)
    places = places_of(arguments, kinds)
    root = arguments.out or Path("out/data") / ("prompt" if targets else arguments.target)
    shape = ActSettings(width=arguments.size[0], height=arguments.size[1])  # refuses what no policy could be fed
    loop = LoopSettings(
        target=targets[0] if targets else arguments.target, variety=TRAINING, width=shape.width, height=shape.height
    )
    wanted = arguments.episodes or DEFAULT_EPISODES
    columns = {COLUMN: COLUMN_NAMES} if targets else {}
    cameras = {loop.camera: (loop.width, loop.height)}
    with DatasetWriter(root, loop.rate_hz, cameras, SO101_JOINTS, columns=columns) as writer:
        first = next_seed(root, arguments.seed)
        refuse_held_out(range(first, first + max(0, wanted - writer.episodes)))
        if writer.episodes >= wanted:
            print(f"{root} holds {writer.episodes} episodes already")
            return 0
        settings = RecordSettings(loop, picture_every=1, targets=targets)
        seeds = _seeds(first, targets, kinds, frozenset(places))
        _fill(writer, wanted, seeds, settings, arguments.jobs)
        print(f"{root}: {writer.episodes} episodes, {writer.frames} frames")
        if writer.episodes < wanted:
            raise ConfigError(
                f"{root} holds {writer.episodes} of {wanted} episodes, and no scene that fits is left below seed "
                f"{VALIDATION_SEED}, where those for evaluation begin; ask for fewer, or of more kinds"
            )
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


def kinds_of(arguments: argparse.Namespace) -> tuple[Kind, ...]:
    """The kinds of demonstrations of `--kinds`; all where it is not given.

    Raises:
        ConfigError: there is no such kind, or no `--targets` to choose among.
    """
    return _some_of(Kind, "--kinds", arguments.kinds, arguments.targets)


def places_of(arguments: argparse.Namespace, kinds: Collection[Kind]) -> tuple[Place, ...]:
    """Where a cube that is asked for lies, of `--places`; anywhere where it is not given.

    Raises:
        ConfigError: there is no such place, no `--targets` to choose among, or none of these cubes is ever there.
    """
    places = _some_of(Place, "--places", arguments.places, arguments.targets)
    if len(places) < len(Place) and set(kinds) == {Kind.ABSENT}:
        raise ConfigError(
            f"--places: in scenes of the kind {Kind.ABSENT}, no cube that is asked for lies on the table; "
            "add another kind, or leave out one of the two"
        )
    return places


def _some_of(kind: type[Choice], option: str, given: str, targets: str) -> tuple[Choice, ...]:
    """The members that are `given`, separated by commas; all where none is."""
    if given and not targets:
        raise ConfigError(f"{option} chooses among demonstrations with --targets; give these too")
    names = given.split(",") if given else list(kind)
    if unknown := [name for name in names if name not in list(kind)]:
        raise ConfigError(f"{option} {unknown[0]}: give some of {', '.join(kind)}")
    return tuple(kind(name) for name in dict.fromkeys(names))


def next_seed(root: Path, first: int) -> int:
    """The scene after the last that is saved; `first` in a new dataset."""
    notes = root / EXTRA
    if not notes.is_file():
        return first
    seeds = [json.loads(line).get("seed") for line in notes.read_text(encoding="utf-8").splitlines()]
    return max([first - 1, *(int(seed) for seed in seeds if seed is not None)]) + 1


def _seeds(first: int, targets: Sequence[str], kinds: Collection[Kind], places: frozenset[Place]) -> Iterator[int]:
    """Scenes from `first` on whose demonstrations are of these kinds, and in which what is asked for lies there."""
    anywhere = len(places) == len(Place)
    for seed in range(first, VALIDATION_SEED):
        script = draw(seed, targets) if targets else None
        if script is None or (script.kind in kinds and (anywhere or not places.isdisjoint(_places(seed, script)))):
            yield seed


def _places(seed: int, script: Script) -> Iterator[Place]:
    """How the cubes lie that are asked for, as far as they are there; of two of one colour only the first counts."""
    cubes = layout.draw(seed, TRAINING, script.targets[-1], names=script.names).cubes
    return (place_of(cubes, asked) for asked in script.targets if asked in cubes)


def _fill(writer: DatasetWriter, wanted: int, seeds: Iterator[int], settings: RecordSettings, jobs: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tried, begun = 0, writer.episodes
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("recording", total=wanted, completed=begun)
        for episode in _episodes(seeds, settings, jobs):
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


def _episodes(seeds: Iterator[int], settings: RecordSettings, jobs: int) -> Iterator[Episode | None]:
    """Demonstrations of these scenes, in order; None where one failed."""
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
