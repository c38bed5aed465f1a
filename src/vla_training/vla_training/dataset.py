"""Demonstrations on disk, ready for training.

A data folder is a LeRobotDataset, which is decoded into the cache folder once, or holds shards itself: each of two
files without pickles:

- `<shard>.npz`: `states`, `actions` `(frames, dof)` float32 rad; `ends` `(episodes,)`, the frame after each episode's
  last; `seeds` `(episodes,)`; `pictured` `(pictures,)`, the frame that each picture belongs to; and where the
  demonstrations have them `texts` `(sentences,)`, fixed-width unicode, `prompts` `(frames,)`, which of these asks at
  each frame, `cubes` `(pictures, colours, 4)` float32, see `vla_training.localisation`, and `goals` `(pictures,
  colours, dof)` float32 rad, the posture that each colour asks for, NaN where it is not there;
- `<shard>.images.npy`: `(pictures, height, width, 3)` uint8 RGB, as `vla_core.image.decode_resize` made them.

Frame *i*'s action is the clean setpoint at the time of frame *i*, so the chunk of frame *i* is actions *i*, *i* + 1, …:
action *k* belongs to the observation's time + *k* / rate, as in LeRobot's data sets. Where the prompt changes in the
middle of an episode, the actions after the change belong to another prompt than the frames before it: `told` says how
many of a chunk's actions are what its own prompt asks for.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_core.runtime import cache_dir
from vla_policy.memory import read_available_bytes
from vla_sim.layout import NAMED
from vla_training import lerobot_reader
from vla_training.lerobot_format import INFO
from vla_training.localisation import COLUMN, NUMBERS

IMAGES_SUFFIX = ".images.npy"
WHOLE = "whole"
"""Marks a cache folder that was written to its end."""
UNCHANGED: Final = int(np.iinfo(np.int64).max)
"""Frames since the prompt changed, where it has not."""
_SHARD_EPISODES = 50
_MEMORY_SHARE = 0.75
"""Of what is free, that pictures may take: what comes later needs some too."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One demonstration.

    Attributes:
        seed: of its scene.
        states, actions: `(frames, dof)` float32 rad.
        pictured: numbers of the frames that have a picture.
        images: these pictures.
        prompts: what asks at each frame; empty where nobody wrote it down.
        cubes: where the cubes lie in each picture, `(pictures, colours, 4)`, see `vla_training.localisation`.
        goals: the posture that each colour asks for, `(pictures, colours, dof)` rad, NaN where it is not there.
    """

    seed: int
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    pictured: NDArray[np.int64]
    images: NDArray[np.uint8]
    prompts: tuple[str, ...] = ()
    cubes: NDArray[np.float32] | None = None
    goals: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.states.shape != self.actions.shape or len(self.pictured) != len(self.images):
            raise ConfigError(
                f"episode of seed {self.seed}: states {self.states.shape} and actions {self.actions.shape}, "
                f"{len(self.pictured)} numbers and {len(self.images)} pictures must agree"
            )
        if self.prompts and len(self.prompts) != len(self.states):
            raise ConfigError(
                f"episode of seed {self.seed}: {len(self.prompts)} prompts and {len(self.states)} frames must agree"
            )
        if self.cubes is not None and self.cubes.shape != (len(self.images), len(NAMED), len(NUMBERS)):
            raise ConfigError(
                f"episode of seed {self.seed}: places of cubes {self.cubes.shape} must be "
                f"{(len(self.images), len(NAMED), len(NUMBERS))}"
            )


def write_shard(folder: Path, name: str, episodes: Sequence[Episode]) -> Path:
    """Write `episodes` as one shard and return the path of its npz file, which is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = np.cumsum([len(episode.states) for episode in episodes])
    starts = ends - [len(episode.states) for episode in episodes]
    np.save(folder / f"{name}{IMAGES_SUFFIX}", np.concatenate([episode.images for episode in episodes]))
    path = folder / f"{name}.npz"
    np.savez(
        path,
        states=np.concatenate([episode.states for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        ends=ends,
        seeds=np.array([episode.seed for episode in episodes]),
        pictured=np.concatenate([episode.pictured + start for episode, start in zip(episodes, starts, strict=True)]),
        **_notes(episodes),
    )
    return path


def _notes(episodes: Sequence[Episode]) -> dict[str, NDArray[Any]]:
    """The arrays of a shard that only some demonstrations have; all of its episodes have them, or none."""
    found: dict[str, NDArray[Any]] = {}
    if all(episode.prompts for episode in episodes):
        each = [prompt for episode in episodes for prompt in episode.prompts]
        texts = list(dict.fromkeys(each))
        number = {text: index for index, text in enumerate(texts)}
        found |= {"texts": np.array(texts), "prompts": np.array([number[prompt] for prompt in each], np.int32)}
    for name in ("cubes", "goals"):
        labels = [label for episode in episodes if (label := getattr(episode, name)) is not None]
        if len(labels) == len(episodes):
            found[name] = np.concatenate(labels)
    return found


class Pictures:
    """Pictures of all shards one after another, in memory or read from disk as they are asked for."""

    def __init__(self, parts: Sequence[NDArray[np.uint8]]) -> None:
        """Take `(pictures, h, w, 3)` uint8 arrays of one size; memory maps stay on disk."""
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        height, width = self._parts[0].shape[1:3]
        return width, height

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures `(k, h, w, 3)` numbered in `index` `(k,)`."""
        shard = np.searchsorted(self._ends, index, side="right")
        starts = self._ends - [len(part) for part in self._parts]
        return np.stack([self._parts[part][i - starts[part]] for part, i in zip(shard, index, strict=True)])


@dataclass(frozen=True, slots=True)
class Dataset:
    """All shards of some folders, one after another; a sample is a frame with a picture.

    Attributes:
        images: `(samples, h, w, 3)` uint8.
        states: `(samples, dof)` float32 rad.
        chunks: `(samples, chunk, dof)` float32 rad; past an episode's end its last action is repeated, which holds.
        episodes: number of demonstrations.
        told: `(samples,)`, how many of each chunk's actions its own prompt asks for; the rest come after another one.
        since: `(samples,)`, frames since each sample's prompt took another one's place; UNCHANGED where none did.
        texts: all prompts; empty where no shard has any.
        prompts: `(samples,)`, number of each sample's prompt in `texts`; -1 where its shard has none.
        cubes: `(samples, colours, 4)` float32, see `vla_training.localisation`; NaN where its shard has none.
        goals: `(samples, colours, dof)` float32 rad, the posture that each colour asks for, NaN where it is not there;
            None where the shards have none.
    """

    images: Pictures
    states: NDArray[np.float32]
    chunks: NDArray[np.float32]
    episodes: int
    told: NDArray[np.int64]
    since: NDArray[np.int64]
    texts: tuple[str, ...]
    prompts: NDArray[np.int64]
    cubes: NDArray[np.float32]
    goals: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.states)


def load(folders: Sequence[Path], chunk_size: int, *, into_memory: bool = False) -> Dataset:
    """Open every shard of `folders`; pictures stay on disk, or come `into_memory` where there is room.

    Batches are drawn at random from all pictures: from files that the kernel does not keep in its cache, a step may
    wait for the disk longer than it computes.

    Raises:
        ConfigError: a folder without shards, or shards that do not belong together.
    """
    images, states, chunks, told, since, prompts, cubes, goals, episodes = [], [], [], [], [], [], [], [], 0
    texts: dict[str, int] = {}
    for path in _shards(folders):
        with np.load(path, allow_pickle=False) as shard:
            pictured, ends = shard["pictured"], shard["ends"]
            states.append(shard["states"][pictured])
            chunks.append(cut_chunks(shard["actions"], ends, pictured, chunk_size))
            numbers = np.array([texts.setdefault(str(text), len(texts)) for text in shard.get("texts", ())], np.int64)
            asked = numbers[shard["prompts"]] if len(numbers) else np.full(len(shard["states"]), -1)
            told.append(count_told(asked, ends, pictured, chunk_size))
            since.append(count_since(asked, ends, pictured))
            prompts.append(asked[pictured])
            unknown = np.full((len(pictured), len(NAMED), len(NUMBERS)), np.nan, np.float32)
            cubes.append(shard.get("cubes", unknown))
            goals.extend([shard["goals"]] if "goals" in shard else [])
        images.append(np.load(path.with_name(path.stem + IMAGES_SUFFIX), mmap_mode="r", allow_pickle=False))
        episodes += len(ends)
    if len({array.shape[1:] for array in images}) > 1:
        raise ConfigError("the data folders hold pictures of different sizes; record them again with one size")
    if 0 < len(goals) < len(images):
        raise ConfigError(f"{', '.join(map(str, folders))}: only some scenes have goals; make all of them again")
    if into_memory and has_room(sum(array.nbytes for array in images), read_available_bytes()):
        images = [np.array(array) for array in images]
    return Dataset(
        Pictures(images),
        np.concatenate(states),
        np.concatenate(chunks),
        episodes,
        np.concatenate(told),
        np.concatenate(since),
        tuple(texts),
        np.concatenate(prompts),
        np.concatenate(cubes),
        np.concatenate(goals) if goals else None,
    )


def has_room(needed: int, available: int | None) -> bool:
    """Whether pictures of `needed` bytes may come into memory."""
    return available is not None and needed <= _MEMORY_SHARE * available


def _shards(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        shards = _decoded(folder) if (folder / INFO).is_file() else folder
        paths = sorted(shards.glob("*.npz"))
        if not paths:
            raise ConfigError(f"{folder} holds no data; record some with `evergreen record --expert --out {folder}`")
        yield from paths


def _decoded(root: Path) -> Path:
    """The folder with the shards of a LeRobotDataset, whose pictures are decoded once and kept in the cache folder."""
    about = f"{root.resolve()} {(root / INFO).stat().st_mtime_ns}"
    folder = cache_dir() / "datasets" / hashlib.sha256(about.encode()).hexdigest()[:16]
    if (folder / WHOLE).is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    block: list[Episode] = []
    for episode in lerobot_reader.load(root, columns=(COLUMN,)):
        if len(episode.images) != 1:
            raise ConfigError(f"{root} has cameras {', '.join(episode.images)}; this training knows one")
        (images,) = episode.images.values()
        cubes = episode.columns.get(COLUMN)
        block.append(
            Episode(
                episode.index,
                episode.states,
                episode.actions,
                np.arange(len(images)),
                images,
                episode.prompts,
                None if cubes is None else cubes.reshape(len(images), len(NAMED), len(NUMBERS)),
            )
        )
        if len(block) == _SHARD_EPISODES:
            write_shard(folder, f"{episode.index:06d}", block)
            block = []
    if block:
        write_shard(folder, f"{block[-1].seed:06d}", block)
    (folder / WHOLE).touch()
    return folder


def cut_chunks(
    actions: NDArray[np.float32], ends: NDArray[np.int64], frames: NDArray[np.int64], chunk_size: int
) -> NDArray[np.float32]:
    """The `(len(frames), chunk_size, dof)` actions from each of `frames` on, never past the end of its episode."""
    last = ends[np.searchsorted(ends, frames, side="right")] - 1
    index = np.minimum(frames[:, None] + np.arange(chunk_size), last[:, None])
    chunks: NDArray[np.float32] = actions[index]
    return chunks


def count_told(
    prompts: NDArray[np.int64], ends: NDArray[np.int64], frames: NDArray[np.int64], chunk_size: int
) -> NDArray[np.int64]:
    """How many actions from each of `frames` on come before the prompt changes; all, where it does not any more."""
    changes = _changes(prompts, ends)
    # Each frame's next change, if that lies in its own episode.
    after = np.append(changes, UNCHANGED)[np.searchsorted(changes, frames, side="right")]
    own_end = ends[np.searchsorted(ends, frames, side="right")]
    told: NDArray[np.int64] = np.where(after < own_end, np.minimum(after - frames, chunk_size), chunk_size)
    return told


def count_since(prompts: NDArray[np.int64], ends: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many frames before each of `frames` the prompt last changed; UNCHANGED where it has not yet."""
    changes = _changes(prompts, ends)
    # Each frame's last change, if that lies in its own episode.
    before = np.append(changes, -1)[np.searchsorted(changes, frames, side="right") - 1]
    own_start = np.concatenate([[0], ends])[np.searchsorted(ends, frames, side="right")]
    since: NDArray[np.int64] = np.where(before >= own_start, frames - before, UNCHANGED)
    return since


def _changes(prompts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The frames at which another prompt begins; a new episode is no change."""
    changes = np.flatnonzero(np.diff(prompts)) + 1
    found: NDArray[np.int64] = changes[~np.isin(changes, ends)]
    return found
