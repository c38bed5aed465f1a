"""Demonstrations on disk, and batches out of them.

A data folder holds shards, each of two files without pickles:

- `<shard>.npz`: `states`, `actions` `(frames, dof)` float32 rad; `ends` `(episodes,)`, the frame after each episode's
  last; `seeds` `(episodes,)`; `pictured` `(pictures,)`, the frame that each picture belongs to;
- `<shard>.images.npy`: `(pictures, height, width, 3)` uint8 RGB, as `vla_core.image.decode_resize` made them.

Frame *i*'s action is the clean setpoint at the time of frame *i*, so the chunk of frame *i* is actions *i*, *i* + 1, …:
action *k* belongs to the observation's time + *k* / rate, as in LeRobot's data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError

IMAGES_SUFFIX = ".images.npy"


@dataclass(frozen=True, slots=True)
class Episode:
    """One demonstration: `states`, `actions` `(frames, dof)`; `images` of the frames numbered in `pictured`."""

    seed: int
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    pictured: NDArray[np.int64]
    images: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.states.shape != self.actions.shape or len(self.pictured) != len(self.images):
            raise ConfigError(
                f"episode of seed {self.seed}: states {self.states.shape} and actions {self.actions.shape}, "
                f"{len(self.pictured)} numbers and {len(self.images)} pictures must agree"
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
    )
    return path


@dataclass(frozen=True, slots=True)
class Dataset:
    """All shards of some folders, one after another; a sample is a frame with a picture.

    Attributes:
        images: `(samples, h, w, 3)` uint8.
        states: `(samples, dof)` float32 rad.
        chunks: `(samples, chunk, dof)` float32 rad; past an episode's end its last action is repeated, which holds.
        episodes: number of demonstrations.
    """

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    chunks: NDArray[np.float32]
    episodes: int

    def __len__(self) -> int:
        return len(self.states)


def load(folders: Sequence[Path], chunk_size: int) -> Dataset:
    """Read every shard of `folders` into memory.

    Raises:
        ConfigError: a folder without shards, or shards of different picture sizes.
    """
    images, states, chunks, episodes = [], [], [], 0
    for folder in folders:
        paths = sorted(folder.glob("*.npz"))
        if not paths:
            raise ConfigError(f"{folder} holds no data (*.npz); record some with python -m vla_training.record")
        for path in paths:
            with np.load(path, allow_pickle=False) as shard:
                pictured, ends = shard["pictured"], shard["ends"]
                states.append(shard["states"][pictured])
                chunks.append(cut_chunks(shard["actions"], ends, pictured, chunk_size))
            images.append(np.load(path.with_name(path.stem + IMAGES_SUFFIX), allow_pickle=False))
            episodes += len(ends)
    if len({array.shape[1:] for array in images}) > 1:
        raise ConfigError("the data folders hold pictures of different sizes; record them again with one size")
    return Dataset(np.concatenate(images), np.concatenate(states), np.concatenate(chunks), episodes)


def cut_chunks(
    actions: NDArray[np.float32], ends: NDArray[np.int64], frames: NDArray[np.int64], chunk_size: int
) -> NDArray[np.float32]:
    """The `(len(frames), chunk_size, dof)` actions from each of `frames` on, never past the end of its episode."""
    last = ends[np.searchsorted(ends, frames, side="right")] - 1
    index = np.minimum(frames[:, None] + np.arange(chunk_size), last[:, None])
    chunks: NDArray[np.float32] = actions[index]
    return chunks
