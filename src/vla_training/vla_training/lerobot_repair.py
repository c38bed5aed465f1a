"""Looks at a dataset before it is continued: what counts, and what an interrupted writer left behind."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_training import lerobot_format as layout
from vla_training.lerobot_format import DatasetError


@dataclass(frozen=True, slots=True)
class Saved:
    """What a dataset holds; `data` and `meta` are the chunk and file index of its last files, if any."""

    episodes: int
    frames: int
    tasks: tuple[str, ...]
    stats: Mapping[str, Any] | None
    data: tuple[int, int] | None
    meta: tuple[int, int] | None


def repair(root: Path) -> Saved:
    """Remove what no saved episode owns, and say what is saved.

    Raises:
        DatasetError: a file that saved episodes need is missing or damaged; nothing was changed.
    """
    info = layout.read_info(root)
    count = int(info["total_episodes"])
    rows = episode_rows(root, count)
    last = rows[-1] if rows else None
    _check_data(root, rows)
    changed = _drop_leftovers(root, count, rows)
    if changed:
        _trim_notes(root, count)
    stats = _statistics(root, count, anew=changed)
    return Saved(
        count,
        int(info["total_frames"]),
        _tasks(root, int(info["total_tasks"])),
        stats,
        (last["data/chunk_index"], last["data/file_index"]) if last else None,
        (last["meta/episodes/chunk_index"], last["meta/episodes/file_index"]) if last else None,
    )


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file.

    Raises:
        DatasetError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(
            f"{path} is damaged ({error}); a recorder that was killed may have left it: restore it from a copy"
        ) from error


def episode_rows(root: Path, count: int) -> list[dict[str, Any]]:
    """LeRobot's row about each of the first `count` episodes, without statistics.

    Raises:
        DatasetError: a file is damaged, or rows are missing.
    """
    found: dict[int, dict[str, Any]] = {}
    for path in sorted((root / layout.EPISODES).glob("*/*.parquet")):
        file = open_parquet(path)
        names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        for row in file.read(columns=names).to_pylist():
            found[row["episode_index"]] = row
    missing = [number for number in range(count) if number not in found]
    if missing:
        raise DatasetError(
            f"{root}: {layout.INFO} counts {count} episodes, but {layout.EPISODES} does not know episode {missing[0]}"
        )
    return [found[number] for number in range(count)]


def _check_data(root: Path, rows: list[dict[str, Any]]) -> None:
    """Every data file must hold at least the frames of the episodes that are said to lie in it."""
    wanted: dict[Path, int] = {}
    for row in rows:
        path = layout.chunk_path(root / layout.DATA, row["data/chunk_index"], row["data/file_index"])
        wanted[path] = wanted.get(path, 0) + row["length"]
    for path, frames in wanted.items():
        present = open_parquet(path).metadata.num_rows
        if present < frames:
            raise DatasetError(f"{path} is truncated: {present} of {frames} frames")


def _drop_leftovers(root: Path, count: int, rows: list[dict[str, Any]]) -> bool:
    """Remove everything that belongs to an episode that was never counted; whether there was something."""
    changed = False
    for path in list(root.rglob(f".*{layout.WRITING}*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        changed = True
    for folder in (layout.DATA, layout.EPISODES):
        for path in sorted((root / folder).glob("*/*.parquet")):
            changed |= _trim(path, count)
    for folder in (root / layout.IMAGES).glob("*/episode-*"):
        if int(folder.name.removeprefix("episode-")) >= count:
            shutil.rmtree(folder)
    videos = {
        layout.chunk_path(root / layout.VIDEOS / key.split("/")[1], row[key], row[key.replace("chunk", "file")], ".mp4")
        for row in rows
        for key in row
        if key.startswith("videos/") and key.endswith("/chunk_index")
    }
    for path in set((root / layout.VIDEOS).glob("*/*/*.mp4")) - videos:
        path.unlink()
        changed = True
    return changed


def _trim(path: Path, count: int) -> bool:
    """Cut the rows of episodes from `count` on out of a file; whether there were any."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException):
        path.unlink()  # no saved episode lies in it: those files were opened before
        return True
    numbers = file.read(columns=["episode_index"]).column(0).to_numpy()
    if not (numbers >= count).any():
        return False
    if (numbers >= count).all():
        path.unlink()
        return True
    with (
        layout.replacing(path) as temporary,
        pq.ParquetWriter(temporary, file.schema_arrow, compression="snappy", use_dictionary=False) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            kept = table.filter(pa.array(table.column("episode_index").to_numpy() < count))
            if kept.num_rows:
                writer.write_table(kept)
    return True


def _trim_notes(root: Path, count: int) -> None:
    notes = {number: note for number, note in layout.read_extra(root).items() if number < count}
    if (root / layout.EXTRA).exists():
        with layout.replacing(root / layout.EXTRA) as temporary:
            lines = [
                json.dumps({"episode_index": number, **note}, ensure_ascii=False) for number, note in notes.items()
            ]
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _tasks(root: Path, count: int) -> tuple[str, ...]:
    if count == 0:
        return ()
    table = open_parquet(root / layout.TASKS).read().to_pydict()
    by_number = dict(zip(table["task_index"], table["task"], strict=True))
    return tuple(by_number[number] for number in range(count))


def upstream() -> ModuleType:
    """LeRobot's part, loaded when it is needed, without its pages about torchcodec (it then uses PyAV)."""
    logging.getLogger("lerobot.utils.import_utils").setLevel(logging.ERROR)
    return import_module("vla_training.lerobot_upstream")


def _statistics(root: Path, count: int, anew: bool) -> Mapping[str, Any] | None:
    """The dataset's statistics; added up from the episodes' where the file may count one too many."""
    path = root / layout.STATS
    if count == 0:
        path.unlink(missing_ok=True)
        return None
    if not anew and path.exists():
        loaded = json.loads(path.read_text(encoding="utf-8"))
        return {key: {name: np.atleast_1d(value) for name, value in each.items()} for key, each in loaded.items()}
    merged = upstream().add_up(_episode_statistics(root))
    layout.write_json(path, plain(merged))
    return merged  # type: ignore[no-any-return]


def plain(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Statistics as JSON takes them."""
    return {key: {name: np.asarray(value).tolist() for name, value in each.items()} for key, each in stats.items()}


def _episode_statistics(root: Path) -> list[dict[str, dict[str, Any]]]:
    each: list[dict[str, dict[str, Any]]] = []
    for file in sorted((root / layout.EPISODES).glob("*/*.parquet")):
        for row in open_parquet(file).read().to_pylist():
            stats: dict[str, dict[str, Any]] = {}
            for key, value in row.items():
                if key.startswith("stats/"):
                    _, column, name = key.split("/")
                    stats.setdefault(column, {})[name] = np.atleast_1d(value)
            each.append(stats)
    return each
