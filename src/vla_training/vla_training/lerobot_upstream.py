"""What is taken from LeRobot to write its datasets: schema, statistics, video encoding. Importing this takes 8 s."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from lerobot.configs import rgb_encoder_defaults
from lerobot.datasets.compute_stats import (
    aggregate_stats,
    auto_downsample_height_width,
    compute_episode_stats,
    get_feature_stats,
    sample_indices,
)
from lerobot.datasets.feature_utils import create_empty_dataset_info, get_hf_features_from_features
from lerobot.datasets.video_utils import (
    decode_video_frames,
    encode_video_frames,
    get_video_duration_in_s,
    get_video_info,
)
from lerobot.utils.constants import DEFAULT_FEATURES
from numpy.typing import NDArray

from vla_training import lerobot_format as layout

Features = Mapping[str, Mapping[str, Any]]
Stats = dict[str, dict[str, NDArray[Any]]]


def all_features(own: Features) -> dict[str, dict[str, Any]]:
    """`own` columns and those that every dataset has."""
    return {key: dict(about) for key, about in {**own, **DEFAULT_FEATURES}.items()}


_STATS_PICTURES = 12
"""Of an episode, at most: LeRobot takes all of a short one, a quarter of the time that recording takes."""


def empty_info(fps: int, features: Features, robot_type: str, videos: bool) -> dict[str, Any]:
    """`meta/info.json` of a dataset without episodes."""
    info: dict[str, Any] = create_empty_dataset_info(
        "v3.0", fps, dict(features), use_videos=videos, robot_type=robot_type
    ).to_dict()
    return info


def schema(features: Features) -> pa.Schema:
    """The columns of a data file."""
    made: pa.Schema = get_hf_features_from_features(features).arrow_schema
    return made


def statistics(columns: Mapping[str, Any], images: Mapping[str, NDArray[np.uint8]], features: Features) -> Stats:
    """The statistics of one episode; LeRobot's own function wants pictures as files."""
    stats: Stats = {}
    for name, pictures in images.items():
        every = sample_indices(len(pictures))
        sample = pictures[every[:: -(-len(every) // _STATS_PICTURES)]].transpose(0, 3, 1, 2)
        small = np.stack([auto_downsample_height_width(picture) for picture in sample])
        raw = get_feature_stats(small, axis=(0, 2, 3), keepdims=True)
        stats[f"{layout.IMAGE_PREFIX}{name}"] = {
            key: value if key == "count" else np.squeeze(value / 255.0, axis=0) for key, value in raw.items()
        }
    numbers = {key: column for key, column in columns.items() if not isinstance(column, list)}
    stats |= compute_episode_stats(numbers, dict(features))
    return stats


def add_up(each: Sequence[Mapping[str, Any]]) -> Stats:
    """The statistics of several episodes together."""
    total: Stats = aggregate_stats([dict(stats) for stats in each])
    return total


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Replace `meta/tasks.parquet`."""
    frame = pd.DataFrame({"task_index": range(len(tasks))}, index=pd.Index(tasks, name="task"))
    with layout.replacing(path) as temporary:
        frame.to_parquet(temporary)


def encode_video(root: Path, key: str, place: tuple[int, int], pngs: Sequence[bytes], fps: int) -> float:
    """Write one MP4 with LeRobot's settings; returns its duration in s."""
    path = layout.chunk_path(root / layout.VIDEOS / key, *place, suffix=".mp4")
    stills = root / f".{key}{layout.WRITING}"
    stills.mkdir(exist_ok=True)
    try:
        for number, png in enumerate(pngs):
            (stills / f"frame-{number:06d}.png").write_bytes(png)
        encoded = stills / "episode.mp4"
        with _scheduling_kept():
            encode_video_frames(stills, encoded, fps, video_encoder=rgb_encoder_defaults(), overwrite=True)
        with layout.replacing(path) as temporary:
            encoded.replace(temporary)
    finally:
        shutil.rmtree(stills, ignore_errors=True)
    return float(get_video_duration_in_s(path))


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Undo what SVT-AV1 does to the calling thread where it may (as root): SCHED_FIFO at priority 99, for good.

    Whatever that thread starts would inherit it, and keep everything else from the processors.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def describe_videos(root: Path, features: Mapping[str, dict[str, Any]]) -> None:
    """Note codec and size of the first episode's videos in `features`."""
    for key, about in features.items():
        if about["dtype"] == "video":
            path = layout.chunk_path(root / layout.VIDEOS / key, 0, 0, suffix=".mp4")
            about["info"] = get_video_info(path, video_encoder=rgb_encoder_defaults())


def decode_video(path: Path, times_s: Sequence[float]) -> NDArray[np.uint8]:
    """The frames at `times_s`: `(n, h, w, 3)` uint8 RGB.

    Raises:
        DatasetError: the file is missing or damaged, or has no such frames.
    """
    try:
        frames = decode_video_frames(path, list(times_s), tolerance_s=1e-3, return_uint8=True)
    except Exception as error:  # whatever the decoder at hand raises
        raise layout.DatasetError(f"{path} cannot be decoded: {error}") from error
    return np.ascontiguousarray(frames.numpy().transpose(0, 2, 3, 1))
