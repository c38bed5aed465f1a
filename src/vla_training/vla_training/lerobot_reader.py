"""Reads a LeRobotDataset v3, whoever wrote it, episode by episode and without LeRobot.

Only what `meta/info.json` counts is read: a dataset that is being written, or whose writer was killed, can be read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vla_training import lerobot_format as layout
from vla_training.lerobot_format import DatasetError
from vla_training.lerobot_repair import episode_rows, open_parquet, upstream


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What a dataset is about.

    Attributes:
        cameras: `(width, height)` in px by camera name.
        lengths: frames of each episode.
        prompts: prompt of each episode, the first one where it changes.
        columns: further columns of float32 numbers.
    """

    root: Path
    rate_hz: float
    robot_type: str
    cameras: Mapping[str, tuple[int, int]]
    joint_names: tuple[str, ...]
    lengths: tuple[int, ...]
    prompts: tuple[str, ...]
    videos: bool
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode: `images` `(n, h, w, 3)` uint8 RGB by camera, `states` and `actions` `(n, dof)` float32, rad.

    `prompt` is the first of `prompts`, of which each frame has one; `columns` are further numbers `(n, k)`.
    """

    index: int
    prompt: str
    prompts: tuple[str, ...]
    images: Mapping[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def describe(root: Path) -> DatasetInfo:
    """Read the description alone.

    Raises:
        DatasetError: no dataset, or one whose description is damaged.
    """
    return _described(root, layout.read_info(root))[0]


def load(
    root: Path,
    cameras: Sequence[str] | None = None,
    on_damage: Callable[[DatasetError], None] | None = None,
    columns: Sequence[str] = (),
) -> Iterator[Episode]:
    """The episodes of a dataset, in order.

    Args:
        root: its folder.
        cameras: which to read; None for all.
        on_damage: is told of an episode that is truncated or damaged, which is then left out; without it the first one
            ends the reading.
        columns: further float32 numbers to read, where the dataset has them.

    Raises:
        DatasetError: no dataset, a camera that is not in it, or a damaged episode.
    """
    raw = layout.read_info(root)
    info, rows = _described(root, raw)
    wanted = tuple(info.cameras) if cameras is None else tuple(cameras)
    missing = [name for name in wanted if name not in info.cameras]
    if missing:
        raise DatasetError(
            f"{root} has no camera {', '.join(missing)}; its cameras are {', '.join(info.cameras) or 'none'}: "
            "record or convert it again with that camera"
        )
    return _episodes(
        root, info, rows, _Wanted(wanted, tuple(name for name in columns if name in info.columns)), on_damage
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    cameras: tuple[str, ...]
    columns: tuple[str, ...]


def _described(root: Path, raw: Mapping[str, Any]) -> tuple[DatasetInfo, list[dict[str, Any]]]:
    features: Mapping[str, Mapping[str, Any]] = raw["features"]
    for key in (layout.STATE, layout.ACTION):
        if key not in features:
            raise DatasetError(f"{root} has no column {key}")
    cameras = {
        key.removeprefix(layout.IMAGE_PREFIX): (int(about["shape"][1]), int(about["shape"][0]))
        for key, about in features.items()
        if key.startswith(layout.IMAGE_PREFIX)
    }
    rows = episode_rows(root, int(raw["total_episodes"]))
    info = DatasetInfo(
        root,
        float(raw["fps"]),
        str(raw.get("robot_type") or ""),
        cameras,
        tuple(features[layout.STATE].get("names") or ()),
        tuple(int(row["length"]) for row in rows),
        tuple(str(row["tasks"][0]) if row["tasks"] else "" for row in rows),
        any(about["dtype"] == "video" for about in features.values()),
        tuple(
            key
            for key, about in features.items()
            if about["dtype"] == "float32"
            and len(about["shape"]) == 1
            and key not in (layout.STATE, layout.ACTION, *layout.COUNTED)
        ),
    )
    return info, rows


def _episodes(
    root: Path,
    info: DatasetInfo,
    rows: Sequence[Mapping[str, Any]],
    wanted: _Wanted,
    on_damage: Callable[[DatasetError], None] | None,
) -> Iterator[Episode]:
    notes, tasks = layout.read_extra(root), _tasks(root)
    opened: tuple[Path, pa.Table] | None = None
    for row in rows:
        path = layout.chunk_path(root / layout.DATA, row["data/chunk_index"], row["data/file_index"])
        number, length = int(row["episode_index"]), int(row["length"])
        try:
            if opened is None or opened[0] != path:
                opened = (path, _read(path, wanted, info.videos))
            part = _part(root, opened[1], number, length)
            images = {name: _pictures(info, name, row, part) for name in wanted.cameras}
            prompts = _prompts(root, row, part, tasks)
        except DatasetError as error:
            if on_damage is None:
                raise
            on_damage(error)
            continue
        states, actions = _matrix(part.column(layout.STATE)), _matrix(part.column(layout.ACTION))
        columns = {name: _matrix(part.column(name)) for name in wanted.columns}
        yield Episode(number, prompts[0], prompts, images, states, actions, columns, notes.get(number, {}))


def _tasks(root: Path) -> dict[int, str]:
    """Every prompt of a dataset by its number; empty where there is no such file."""
    if not (root / layout.TASKS).is_file():
        return {}
    table = open_parquet(root / layout.TASKS).read().to_pydict()
    names = table.get("task") or table.get("__index_level_0__") or []
    return {int(number): str(name) for number, name in zip(table["task_index"], names, strict=True)}


def _prompts(root: Path, row: Mapping[str, Any], part: pa.Table, tasks: Mapping[int, str]) -> tuple[str, ...]:
    """The prompt of each frame; that of the whole episode where it has but one."""
    own = [str(task) for task in row["tasks"] or ()]
    if len(own) <= 1:
        return tuple(own or [""]) * part.num_rows
    try:
        return tuple(tasks[number] for number in part.column("task_index").to_pylist())
    except KeyError as error:
        raise DatasetError(
            f"{root}: episode {row['episode_index']} asks with prompt {error}, which {layout.TASKS} does not know"
        ) from error


def _read(path: Path, wanted: _Wanted, videos: bool) -> pa.Table:
    columns = [layout.STATE, layout.ACTION, "episode_index", "timestamp", "task_index", *wanted.columns]
    if not videos:
        columns += [f"{layout.IMAGE_PREFIX}{name}" for name in wanted.cameras]
    try:
        return open_parquet(path).read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error


def _part(root: Path, table: pa.Table, number: int, length: int) -> pa.Table:
    part = table.filter(pc.equal(table.column("episode_index"), number))
    if part.num_rows != length:
        raise DatasetError(f"{root}: episode {number} is truncated: {part.num_rows} of {length} frames")
    return part


def _pictures(info: DatasetInfo, name: str, row: Mapping[str, Any], part: pa.Table) -> NDArray[np.uint8]:
    """One camera's pictures of one episode."""
    key = f"{layout.IMAGE_PREFIX}{name}"
    where = f"{info.root}: episode {row['episode_index']}, camera {name}"
    if info.videos:
        pictures = _from_video(info.root, key, row, part.column("timestamp").to_numpy())
    else:
        pictures = _from_pngs(part.column(key), where)
    width, height = info.cameras[name]
    if pictures.shape[1:] != (height, width, 3):
        raise DatasetError(f"{where}: pictures of another size than {width}x{height}")
    return pictures


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    made: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(len(column), -1)
    return made


def _from_pngs(column: pa.ChunkedArray, where: str) -> NDArray[np.uint8]:
    pictures = []
    for frame, picture in enumerate(pc.struct_field(column, "bytes")):
        encoded = np.frombuffer(picture.as_buffer() or b"", np.uint8)
        bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
        if bgr is None:
            raise DatasetError(f"{where}: frame {frame} holds no picture")
        pictures.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    if len({picture.shape for picture in pictures}) > 1:
        raise DatasetError(f"{where}: pictures of different sizes")
    return np.asarray(pictures, np.uint8)


def _from_video(root: Path, key: str, row: Mapping[str, Any], times_s: NDArray[np.float32]) -> NDArray[np.uint8]:
    path = layout.chunk_path(
        root / layout.VIDEOS / key, row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"], ".mp4"
    )
    start_s = float(row[f"videos/{key}/from_timestamp"])
    decoded: NDArray[np.uint8] = upstream().decode_video(path, [start_s + float(time_s) for time_s in times_s])
    return decoded
