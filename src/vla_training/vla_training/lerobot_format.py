"""Where a LeRobotDataset v3 keeps what, and how a file of it is replaced without ever being half written.

LeRobot's own writer keeps its parquet files open until `finalize()`: a process that is killed before leaves files
without a footer, and up to 100 MB of saved episodes are gone. So files are written here with LeRobot's schema, features
and statistics, but each beside its place and then renamed; `meta/info.json` comes last and says how many episodes
count.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vla_core.errors import EvergreenError

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"
ACTION = "action"
COUNTED = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})
"""Columns that every dataset has and no caller fills."""
INFO = Path("meta/info.json")
STATS = Path("meta/stats.json")
TASKS = Path("meta/tasks.parquet")
EPISODES = Path("meta/episodes")
EXTRA = Path("meta/evergreen.jsonl")
"""One JSON object an episode with what Evergreen knows beside LeRobot's columns, such as the seed of the scene."""
DATA = Path("data")
VIDEOS = Path("videos")
IMAGES = Path("images")
"""LeRobot's pictures of an episode that is being recorded."""
WRITING = ".writing"
"""Suffix of a file that is not yet whole; no reader looks at it."""
CODEBASE = "v3."
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DatasetError(EvergreenError):
    """A dataset that cannot be read or written; the message names the file or the episode."""


class DiskFullError(DatasetError):
    """No room for another episode; those that are saved stay whole."""


def chunk_path(folder: Path, chunk: int, file: int, suffix: str = ".parquet") -> Path:
    """The file that LeRobot calls `chunk-000/file-000`."""
    return folder / f"chunk-{chunk:03d}" / f"file-{file:03d}{suffix}"


def features(
    cameras: Mapping[str, tuple[int, int]],
    joint_names: Sequence[str],
    videos: bool = False,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, dict[str, Any]]:
    """LeRobot's description of the columns that a caller fills; `cameras` gives `(width, height)` in px.

    `columns` are further float32 numbers, by the column's name: what each is.
    """
    joints = {"dtype": "float32", "shape": (len(joint_names),), "names": list(joint_names)}
    pictures = {
        f"{IMAGE_PREFIX}{name}": {
            "dtype": "video" if videos else "image",
            "shape": (height, width, 3),
            "names": ["height", "width", "channels"],
        }
        for name, (width, height) in cameras.items()
    }
    further = {
        key: {"dtype": "float32", "shape": (len(names),), "names": list(names)}
        for key, names in (columns or {}).items()
    }
    return {**pictures, STATE: dict(joints), ACTION: dict(joints), **further}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; afterwards it takes the place of `path` in one step, or nothing has happened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{WRITING}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def read_info(root: Path) -> dict[str, Any]:
    """What `meta/info.json` says.

    Raises:
        DatasetError: no dataset, one of another format, or a damaged file.
    """
    path = root / INFO
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{root} is no LeRobotDataset: {INFO} is missing") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    version = str(info.get("codebase_version", "unknown")) if isinstance(info, dict) else "unknown"
    if not version.startswith(CODEBASE) or "features" not in info:
        raise DatasetError(f"{path} is of version {version}; this reads {CODEBASE}x (convert it with LeRobot's script)")
    return info


def read_extra(root: Path) -> dict[int, dict[str, Any]]:
    """What Evergreen noted beside each episode, by episode index; empty for other people's datasets."""
    try:
        lines = (root / EXTRA).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):  # a line that was cut short belongs to no saved episode
            note = json.loads(line)
            found[int(note.pop("episode_index"))] = note
    return found


def is_full(error: OSError) -> bool:
    """Whether it is the disk that has no room."""
    return error.errno in _FULL
