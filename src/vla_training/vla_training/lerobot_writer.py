"""Writes a LeRobotDataset v3 whose saved episodes survive whatever happens to the process or to the disk.

`add_episode` returns when the episode is on the disk and counted in `meta/info.json`. A process that is killed in the
middle leaves the dataset as it was before, plus rows that no reader counts; opening it again removes them.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla_training import lerobot_format as layout
from vla_training.lerobot_format import DatasetError, DiskFullError
from vla_training.lerobot_repair import Saved, plain, repair, upstream

_DATA_FILE_BYTES = 16_000_000
"""A data file grows to this; it is rewritten for every episode, which takes some 30 ms at this size."""
_EPISODES_FILE_ROWS = 100
_FILES_IN_CHUNK = 1000
_SPARE_BYTES = 4_000_000
"""For the small files beside an episode's pictures."""
_PNG_LEVEL = 3
"""5 % larger than level 6 and a third faster."""


@dataclass(frozen=True, slots=True)
class EpisodeData:
    """One episode: `images` of `(n, h, w, 3)` uint8 RGB, `states` and `actions` `(n, dof)` float32 rad.

    `prompts` has one for each frame; `columns` holds further numbers `(n, k)` float32, of which NaN are unknown.
    """

    images: Mapping[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    prompts: tuple[str, ...]
    columns: Mapping[str, NDArray[np.float32]]

    def check(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Compare with the dataset's columns.

        Raises:
            DatasetError: another camera, size, number of joints or of frames; no frames; numbers that are not finite.
        """
        frames = len(self.states)
        wanted = {key: tuple(about["shape"]) for key, about in features.items() if key.startswith(layout.IMAGE_PREFIX)}
        given = {f"{layout.IMAGE_PREFIX}{name}": array.shape[1:] for name, array in self.images.items()}
        if given != wanted:
            raise DatasetError(f"the episode has pictures {given}, the dataset {wanted}")
        shape = (frames, *features[layout.STATE]["shape"])
        if frames == 0 or self.states.shape != shape or self.actions.shape != shape:
            raise DatasetError(
                f"an episode needs as many states {self.states.shape} as actions {self.actions.shape}, at least one, "
                f"of {shape[1]} joints"
            )
        for name, array in self.images.items():
            if len(array) != frames or array.dtype != np.uint8:
                raise DatasetError(f"camera {name}: {len(array)} {array.dtype} pictures for {frames} frames (uint8)")
        if len(self.prompts) != frames:
            raise DatasetError(f"{len(self.prompts)} prompts for {frames} frames: one for all, or one for each")
        own = {layout.STATE, layout.ACTION}
        others = {
            key: (frames, *about["shape"])
            for key, about in features.items()
            if about["dtype"] == "float32" and key not in own and key not in layout.COUNTED
        }
        if {key: array.shape for key, array in self.columns.items()} != others:
            raise DatasetError(
                f"the episode has further columns { ({key: array.shape for key, array in self.columns.items()}) }, "
                f"the dataset {others}"
            )
        if not (np.isfinite(self.states).all() and np.isfinite(self.actions).all()):
            raise DatasetError("an episode's states and actions must be finite numbers")


class DatasetWriter:
    """Creates a dataset in `root`, or goes on with the one that is there. Not for two threads."""

    def __init__(
        self,
        root: Path,
        rate_hz: float,
        cameras: Mapping[str, tuple[int, int]],
        joint_names: Sequence[str],
        robot_type: str = "so101",
        *,
        videos: bool = False,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Open `root`; `cameras` gives the pictures' `(width, height)` in px, `videos` stores MP4 instead of PNG.

        `columns` are further numbers of every frame, by the column's name: what each is. They have no statistics.

        Raises:
            DatasetError: the folder holds something else or other columns, or another process writes to it.
        """
        if rate_hz != round(rate_hz) or rate_hz < 1:
            raise DatasetError(f"rate {rate_hz} Hz: a LeRobotDataset needs a whole number of frames a second")
        self._upstream = upstream()
        self._root = root
        self._videos = videos
        self._robot_type = robot_type
        self._fps = round(rate_hz)
        self._lock: int | None = _lock(root)
        try:
            self._features = self._upstream.all_features(layout.features(cameras, joint_names, videos, columns))
            if not (root / layout.INFO).exists():
                self._create()
            self._check_same(layout.read_info(root))
            self._saved: Saved | None = repair(root)
        except BaseException:
            self.close()
            raise

    @property
    def episodes(self) -> int:
        """How many episodes are saved."""
        return self._now().episodes

    @property
    def frames(self) -> int:
        """How many frames the saved episodes have together."""
        return self._now().frames

    def add_episode(
        self,
        images: Mapping[str, NDArray[np.uint8]],
        states: NDArray[np.float32],
        actions: NDArray[np.float32],
        prompt: str | Sequence[str],
        extra: Mapping[str, float | str] | None = None,
        *,
        columns: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """Save one episode; on return it is on the disk.

        Args:
            images: `(n, h, w, 3)` uint8 RGB by camera.
            states: `(n, dof)` rad.
            actions: `(n, dof)` rad; action *k* is the setpoint at the stamp of observation *k*.
            prompt: the instruction, LeRobot's `task`: one for all frames, or one for each.
            extra: facts about the episode, such as the seed; kept in `meta/evergreen.jsonl`.
            columns: `(n, k)` of each of the dataset's further columns; NaN is unknown.

        Raises:
            DiskFullError: no room; what was saved before stays valid, and the call can be repeated.
            DatasetError: the episode does not fit the dataset, or the disk failed.
        """
        prompts = (prompt,) * len(states) if isinstance(prompt, str) else tuple(prompt)
        further = {key: np.asarray(array, np.float32) for key, array in (columns or {}).items()}
        episode = EpisodeData(images, np.asarray(states, np.float32), np.asarray(actions, np.float32), prompts, further)
        episode.check(self._features)
        saved = self._now()
        try:
            self._saved = None  # until the end: whatever fails below, the folder is looked at anew
            self._saved = self._commit(episode, dict(extra or {}), saved)
        except OSError as error:
            self._drop_writing()
            whole = f"{self._root}: {saved.episodes} episodes are saved and whole"
            if layout.is_full(error):
                raise DiskFullError(f"{whole}; the disk is full, so another one was dropped: make room") from error
            raise DatasetError(f"{whole}; another one was dropped: {error}") from error

    def close(self) -> None:
        """Let another process write; everything is saved already."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _now(self) -> Saved:
        if self._lock is None:
            raise DatasetError(f"{self._root} was closed")
        if self._saved is None:
            self._saved = repair(self._root)
        return self._saved

    def _create(self) -> None:
        foreign = [path.name for path in self._root.iterdir() if path.name not in {".lock", "meta"}]
        if foreign:
            raise DatasetError(
                f"{self._root} is no LeRobotDataset and not empty (it holds {foreign[0]}); choose another"
            )
        info = self._upstream.empty_info(self._fps, self._features, self._robot_type, self._videos)
        layout.write_json(self._root / layout.INFO, info)

    def _check_same(self, info: Mapping[str, Any]) -> None:
        wanted = {key: _comparable(about) for key, about in self._features.items()}
        present = {key: _comparable(about) for key, about in info["features"].items()}
        if present != wanted:
            differing = sorted(key for key in {*wanted, *present} if wanted.get(key) != present.get(key))
            key = differing[0]
            raise DatasetError(
                f"{self._root} has other columns: {key} is {present.get(key, 'absent')} there and "
                f"{wanted.get(key, 'absent')} here; write to another folder"
            )
        if info["fps"] != self._fps or info.get("robot_type") != self._robot_type:
            raise DatasetError(
                f"{self._root} has {info['fps']} Hz of robot {info.get('robot_type')}, not {self._fps} Hz of "
                f"{self._robot_type}; write to another folder"
            )

    def _commit(self, episode: EpisodeData, extra: Mapping[str, float | str], saved: Saved) -> Saved:
        """Write all files of one episode; the last one, `meta/info.json`, makes it count."""
        number, frames = saved.episodes, len(episode.states)
        own = tuple(dict.fromkeys(episode.prompts))
        tasks = tuple(dict.fromkeys((*saved.tasks, *own)))
        columns = self._columns(episode, saved, tasks)
        self._refuse_when_full(columns)
        counted = {key: column for key, column in columns.items() if key not in episode.columns}
        stats = self._upstream.statistics(counted, episode.images, self._features)
        chunk, file = self._append_data(columns, saved)
        row = {
            "episode_index": number,
            "tasks": list(own),
            "length": frames,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": saved.frames,
            "dataset_to_index": saved.frames + frames,
        }
        if self._videos:
            row |= self._append_videos(episode, number)
        if tasks != saved.tasks:
            self._upstream.write_tasks(self._root / layout.TASKS, tasks)
        meta = self._append_row(row, stats, saved)
        if extra:
            _append_line(self._root / layout.EXTRA, {"episode_index": number, **extra})
        merged = self._upstream.add_up([each for each in (saved.stats, stats) if each])
        layout.write_json(self._root / layout.STATS, plain(merged))
        now = Saved(number + 1, saved.frames + frames, tasks, merged, (chunk, file), meta)
        self._count(now)
        return now

    def _count(self, now: Saved) -> None:
        info = layout.read_info(self._root)
        if self._videos and now.episodes == 1:
            self._upstream.describe_videos(self._root, info["features"])
        info |= {
            "total_episodes": now.episodes,
            "total_frames": now.frames,
            "total_tasks": len(now.tasks),
            "splits": {"train": f"0:{now.episodes}"},
        }
        layout.write_json(self._root / layout.INFO, info)

    def _columns(self, episode: EpisodeData, saved: Saved, tasks: Sequence[str]) -> dict[str, Any]:
        """Every column but videos, in the dataset's order; pictures as lists of PNG bytes."""
        frames = len(episode.states)
        number = np.arange(frames)
        made: dict[str, Any] = {
            layout.STATE: episode.states,
            layout.ACTION: episode.actions,
            "timestamp": (number / self._fps).astype(np.float32),
            "frame_index": number,
            "episode_index": np.full(frames, saved.episodes),
            "index": saved.frames + number,
            "task_index": np.array([tasks.index(prompt) for prompt in episode.prompts]),
            **episode.columns,
        }
        for name, pictures in episode.images.items():
            if not self._videos:
                made[f"{layout.IMAGE_PREFIX}{name}"] = [_png(picture) for picture in pictures]
        return {key: made[key] for key in self._features if key in made}

    def _refuse_when_full(self, columns: Mapping[str, Any]) -> None:
        """Rewriting a file needs room for a second one: better to say so before anything is touched."""
        pictures = sum(sum(map(len, column)) for column in columns.values() if isinstance(column, list))
        if shutil.disk_usage(self._root).free < pictures + _SPARE_BYTES:
            raise OSError(errno.ENOSPC, "no room for this episode")

    def _append_data(self, columns: Mapping[str, Any], saved: Saved) -> tuple[int, int]:
        schema = self._upstream.schema(self._features)
        table = pa.table([_array(columns[field.name], field) for field in schema], schema=schema)
        place = saved.data
        if place is None:
            place = (0, 0)
        elif layout.chunk_path(self._root / layout.DATA, *place).stat().st_size + table.nbytes > _DATA_FILE_BYTES:
            place = _next(*place)
        _append(layout.chunk_path(self._root / layout.DATA, *place), table, groups=True)
        return place

    def _append_row(self, row: Mapping[str, Any], stats: Mapping[str, Any], saved: Saved) -> tuple[int, int]:
        place, path = saved.meta or (0, 0), None
        if saved.meta is not None:
            path = layout.chunk_path(self._root / layout.EPISODES, *place)
            if pq.read_metadata(path).num_rows >= _EPISODES_FILE_ROWS:
                place = _next(*place)
        path = layout.chunk_path(self._root / layout.EPISODES, *place)
        flat = {f"stats/{key}/{name}": value.tolist() for key, each in stats.items() for name, value in each.items()}
        whole = {**row, **flat, "meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]}
        _append(path, pa.Table.from_pydict({key: [value] for key, value in whole.items()}), groups=False)
        return place

    def _append_videos(self, episode: EpisodeData, number: int) -> dict[str, Any]:
        """One MP4 an episode and camera."""
        chunk, file = divmod(number, _FILES_IN_CHUNK)
        row: dict[str, Any] = {}
        for name, pictures in episode.images.items():
            key = f"{layout.IMAGE_PREFIX}{name}"
            duration_s = self._upstream.encode_video(
                self._root, key, (chunk, file), [_png(p) for p in pictures], self._fps
            )
            row |= {
                f"videos/{key}/chunk_index": chunk,
                f"videos/{key}/file_index": file,
                f"videos/{key}/from_timestamp": 0.0,
                f"videos/{key}/to_timestamp": duration_s,
            }
        return row

    def _drop_writing(self) -> None:
        """Free what a failed write left; a full disk needs that room."""
        for path in self._root.rglob(f".*{layout.WRITING}*"):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lock(root: Path) -> int:
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DatasetError(f"{root} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DatasetError(f"{root} is being written by another process") from error
    return descriptor


def _comparable(about: Mapping[str, Any]) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    return about["dtype"], tuple(about["shape"]), tuple(about.get("names") or ())


def _png(rgb: NDArray[np.uint8]) -> bytes:
    done, encoded = cv2.imencode(
        ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
    )
    if not done:
        raise DatasetError(f"a picture of shape {rgb.shape} cannot be written as PNG")
    return encoded.tobytes()


def _array(column: Any, field: pa.Field) -> pa.Array:
    if isinstance(column, list):
        names = pa.array([f"frame-{number:06d}.png" for number in range(len(column))], pa.string())
        return pa.StructArray.from_arrays([pa.array(column, pa.binary()), names], names=["bytes", "path"])
    if column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(column.ravel(), field.type.value_type), column.shape[1])
    return pa.array(column, field.type)


def _append(path: Path, table: pa.Table, groups: bool) -> None:
    """Replace `path` by itself and `table`; `groups` keeps one row group an episode, as LeRobot does with frames."""
    with layout.replacing(path) as temporary:
        before = pq.ParquetFile(path) if path.exists() else None
        schema = table.schema if before is None else before.schema_arrow
        parts = [table.select(schema.names).cast(schema)]
        if before is not None:
            parts = [before.read_row_group(group) for group in range(before.num_row_groups)] + parts
        with pq.ParquetWriter(temporary, schema, compression="snappy", use_dictionary=False) as writer:
            for part in parts if groups else [pa.concat_tables(parts)]:
                writer.write_table(part)


def _next(chunk: int, file: int) -> tuple[int, int]:
    return (chunk, file + 1) if file + 1 < _FILES_IN_CHUNK else (chunk + 1, 0)


def _append_line(path: Path, note: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(note, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
