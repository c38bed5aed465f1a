"""`evergreen dataset convert`: recorded MCAP files to a LeRobotDataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError, ImageError
from vla_core.image import PIPELINE_ID, decode_resize, jpeg_size
from vla_core.joints import SO101_JOINTS, reorder
from vla_training import lerobot_format as layout
from vla_training import lerobot_reader, mcap_recording
from vla_training.lerobot_format import DatasetError, DiskFullError
from vla_training.lerobot_writer import DatasetWriter
from vla_training.mcap_recording import Recording
from vla_training.resample import MAX_SKEW_S, Frames, resample


@dataclass(frozen=True, slots=True)
class Options:
    """How to convert.

    Attributes:
        rate_hz: control rate of the dataset.
        size: `(width, height)` of the pictures in px; None for the camera's own.
        cameras: to take; none means those of the first episode.
        prompt: instead of what the robot was told.
        measured: take where the arm was for the action.
        trim: cut long standing still at both ends.
        max_skew_s: how far a picture may lie from the frame that it belongs to.
        include_cut: convert episodes that were cut short, too.
        videos: MP4 instead of PNG.
        namespace: of the robot.
    """

    rate_hz: float = 10.0
    size: tuple[int, int] | None = None
    cameras: tuple[str, ...] = ()
    prompt: str = ""
    measured: bool = False
    trim: bool = True
    max_skew_s: float = MAX_SKEW_S
    include_cut: bool = False
    videos: bool = False
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many files became episodes, were there already, and why others did not."""

    converted: int
    present: int
    refused: tuple[str, ...]


def find(paths: Sequence[Path]) -> list[Path]:
    """The MCAP files among `paths` and in their folders, sorted within each.

    Raises:
        ConfigError: a path that does not exist, or no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.glob("*.mcap"))
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"{path} does not exist")
    if not found:
        raise ConfigError(f"no MCAP files in {', '.join(map(str, paths))}; make some with `evergreen record`")
    return found


def convert(files: Sequence[Path], out: Path, options: Options, tell: Callable[[str], None]) -> Outcome:
    """Append each file to the dataset in `out` as one episode; `tell` hears a line about each.

    A file that is in the dataset already is passed over, so that an interrupted conversion can be repeated.

    Raises:
        DiskFullError: the episodes before are saved.
        DatasetError: the dataset cannot be written.
    """
    work = _Conversion(out, options)
    converted, present, refused = 0, 0, []
    try:
        for path in files:
            try:
                said = work.take(path)
            except DiskFullError:
                raise
            except DatasetError as error:
                refused.append(str(error))
                tell(f"NOT converted: {error}")
            else:
                converted += said is not None
                present += said is None
                tell(said or f"{path.name}: in the dataset already")
    finally:
        work.close()
    return Outcome(converted, present, tuple(refused))


class _Conversion:
    """One dataset that files are added to. It is opened with the first file that can be converted."""

    def __init__(self, out: Path, options: Options) -> None:
        self._out, self._options = out, options
        self._known = {str(note.get("source")) for note in layout.read_extra(out).values()}
        self._cameras: Mapping[str, tuple[int, int]] = {}
        self._joints: tuple[str, ...] = ()
        if (out / layout.INFO).exists():
            about = lerobot_reader.describe(out)
            self._cameras, self._joints = about.cameras, about.joint_names
        self._writer: DatasetWriter | None = None

    def close(self) -> None:
        """Let others write to the dataset."""
        if self._writer is not None:
            self._writer.close()

    def take(self, path: Path) -> str | None:
        """Add one file; a line about it, or None where it was there already.

        Raises:
            DatasetError: the file cannot be converted.
        """
        recording = mcap_recording.read(path, self._options.namespace)
        source = f"{path.name} {recording.state_ns[0]}"
        if source in self._known:
            return None
        cameras = self._cameras or _cameras(recording, self._options)
        joints = self._joints or _joints(recording)
        images, states, actions, prompt = _episode(recording, cameras, joints, self._options)
        if self._writer is None:
            self._writer = DatasetWriter(self._out, self._options.rate_hz, cameras, joints, videos=self._options.videos)
            self._cameras, self._joints = cameras, joints
        extra = {"source": source, "pipeline": PIPELINE_ID}
        self._writer.add_episode(images, states, actions, prompt, extra)
        self._known.add(source)
        return f"{path.name}: episode {self._writer.episodes - 1}, {len(states)} frames, '{prompt}'"


def _cameras(recording: Recording, options: Options) -> dict[str, tuple[int, int]]:
    """Names and sizes of the pictures of a new dataset."""
    names = options.cameras or tuple(sorted(recording.pictures))
    missing = [name for name in names if not recording.pictures.get(name)]
    if missing or not names:
        raise DatasetError(
            f"{recording.path.name} has no pictures of camera {', '.join(missing) or '(any)'}; it has"
            f" {', '.join(sorted(recording.pictures)) or 'none'}"
        )
    return {name: options.size or _native_size(recording, name) for name in names}


def _joints(recording: Recording) -> tuple[str, ...]:
    """LeRobot's order where the joints are an SO-101's."""
    return SO101_JOINTS if set(recording.joint_names) == set(SO101_JOINTS) else recording.joint_names


def _native_size(recording: Recording, camera: str) -> tuple[int, int]:
    try:
        return jpeg_size(recording.pictures[camera][0][1])
    except ImageError as error:
        raise DatasetError(f"{recording.path.name}: camera {camera}: {error}") from error


def _episode(
    recording: Recording, cameras: Mapping[str, tuple[int, int]], joints: Sequence[str], options: Options
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.float32], NDArray[np.float32], str]:
    """Pictures, states, actions and prompt of one file."""
    if not recording.whole and not options.include_cut:
        raise DatasetError(
            f"{recording.path.name} was cut short: its recorder was killed, or its disk full (--include-cut takes it)"
        )
    frames = resample(
        recording,
        tuple(cameras),
        options.rate_hz,
        measured=options.measured,
        trim=options.trim,
        max_skew_s=options.max_skew_s,
    )
    prompt = options.prompt or recording.prompt_at(int(frames.ticks_ns[-1]))
    if not prompt:
        raise DatasetError(f"{recording.path.name}: nobody said what the arm should do; say it with --prompt")
    try:
        states, actions = (
            np.array([reorder(recording.joint_names, row, joints) for row in rows], np.float32)
            for rows in (frames.states, frames.actions)
        )
    except ConfigError as error:
        raise DatasetError(f"{recording.path.name}: {error}") from error
    images = {name: _pictures(recording, frames, name, size) for name, size in cameras.items()}
    return images, states, actions, prompt


def _pictures(recording: Recording, frames: Frames, camera: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The very function that the robot uses decodes and resizes."""
    made = []
    for index in frames.chosen[camera]:
        stamp_ns, jpeg = recording.pictures[camera][index]
        try:
            made.append(decode_resize(jpeg, *size))
        except ImageError as error:
            raise DatasetError(f"{recording.path.name}: camera {camera}, picture of {stamp_ns} ns: {error}") from error
    return np.stack(made)
