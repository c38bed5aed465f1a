"""Reads one recorded episode from an MCAP file: of `evergreen record`, or of rosbag2 with the same topics.

A file whose recorder was killed is read up to its last whole record.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.records import Channel, Footer, Message, Schema
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from vla_training.lerobot_format import DatasetError

NS_PER_S = 1_000_000_000
CUT_SUFFIX = ".cut.mcap"
"""Of a file that a full disk ended; it has its summary all the same."""
_CAMERA = re.compile(r"camera/([^/]+)/image_raw/compressed")


@dataclass(frozen=True, slots=True)
class Command:
    """One trajectory message: `positions` `(points, dof)` rad, in the order of `names`; times as in the message, ns."""

    received_ns: int
    stamp_ns: int
    names: tuple[str, ...]
    times_ns: tuple[int, ...]
    positions: tuple[tuple[float, ...], ...]


@dataclass(slots=True)
class Recording:
    """What one file holds; times are system ns.

    Attributes:
        whole: False where the recorder did not come to the end of the episode.
        pictures: stamp and JPEG of each frame, by camera.
        joint_names: of `positions`.
        state_ns: `(n,)` stamps of the joint states.
        positions: `(n, dof)` rad.
        commands: in the order of their arrival.
        prompts: time and text, from topic prompt.
        status_prompts: time and text, as the policy reported it.
    """

    path: Path
    whole: bool = False
    pictures: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    joint_names: tuple[str, ...] = ()
    state_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    positions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    commands: list[Command] = field(default_factory=list)
    prompts: list[tuple[int, str]] = field(default_factory=list)
    status_prompts: list[tuple[int, str]] = field(default_factory=list)

    def prompt_at(self, time_ns: int) -> str:
        """What the robot was told at that time; "" where nobody said."""
        spoken = [text for when_ns, text in self.prompts if when_ns <= time_ns and text]
        reported = [text for when_ns, text in self.status_prompts if when_ns <= time_ns and text]
        return (spoken or reported or [""])[-1]


def read(path: Path, namespace: str = "") -> Recording:
    """Read one file.

    Args:
        path: of the file.
        namespace: of the robot.

    Raises:
        DatasetError: it cannot be read, is no MCAP file, or holds no joint states.
    """
    reader = _Reader(path, "".join(f"{part}/" for part in ("", *filter(None, namespace.split("/")))))
    try:
        with path.open("rb") as stream:
            reader.all(StreamReader(stream))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return reader.finished()


class _Reader:
    def __init__(self, path: Path, prefix: str) -> None:
        self._recording = Recording(path)
        self._prefix = prefix
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, tuple[Callable[[Message, Any], None], Callable[[bytes], Any]]] = {}
        self._decoders = DecoderFactory()
        self._states: list[tuple[int, tuple[float, ...]]] = []
        self._topics: set[str] = set()
        self._takers: Mapping[str, Callable[[Message, Any], None]] = {
            "joint_states": self._joint_state,
            "arm_controller/joint_trajectory": self._trajectory,
            "prompt": lambda message, content: self._recording.prompts.append((message.log_time, content.data)),
            "policy/status": self._status,
        }

    def all(self, stream: StreamReader) -> None:
        """Take every record; an end that comes too early is the end of an unfinished file."""
        begun = False
        try:
            for record in stream.records:
                begun = True
                if isinstance(record, Footer):
                    self._recording.whole = not self._recording.path.name.endswith(CUT_SUFFIX)
                self._take(record)
        except (McapError, CRCValidationError, struct.error, EOFError) as error:
            if not begun:
                raise DatasetError(f"{self._recording.path} is no MCAP file ({error})") from error

    def finished(self) -> Recording:
        """What was found."""
        made = self._recording
        if not self._states:
            listed = ", ".join(sorted(self._topics)) or "nothing"
            raise DatasetError(
                f"{made.path} holds no joint states on {self._prefix}joint_states (it has {listed}); is it of another"
                " --namespace?"
            )
        self._states.sort(key=lambda state: state[0])
        made.state_ns = np.array([stamp_ns for stamp_ns, _ in self._states], np.int64)
        made.positions = np.array([positions for _, positions in self._states])
        made.commands.sort(key=lambda command: command.received_ns)
        for frames in made.pictures.values():
            frames.sort(key=lambda frame: frame[0])
        return made

    def _take(self, record: object) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel):
            self._open(record)
        elif isinstance(record, Message) and record.channel_id in self._channels:
            taker, decode = self._channels[record.channel_id]
            taker(record, decode(record.data))

    def _open(self, channel: Channel) -> None:
        self._topics.add(channel.topic)
        if not channel.topic.startswith(self._prefix):
            return
        topic = channel.topic[len(self._prefix) :]
        camera = _CAMERA.fullmatch(topic)
        taker = self._takers.get(topic) if camera is None else self._camera(camera[1])
        decode = self._decoders.decoder_for(channel.message_encoding, self._schemas.get(channel.schema_id))
        if taker is not None and decode is not None:
            self._channels[channel.id] = (taker, decode)

    def _camera(self, name: str) -> Callable[[Message, Any], None]:
        frames = self._recording.pictures.setdefault(name, [])

        def take(message: Message, content: Any) -> None:
            frames.append((_stamp_ns(content) or message.log_time, bytes(content.data)))

        return take

    def _joint_state(self, message: Message, content: Any) -> None:
        names = tuple(content.name)
        if not self._recording.joint_names:
            self._recording.joint_names = names
        if set(names) != set(self._recording.joint_names) or len(content.position) != len(names):
            return  # of another arm, or malformed
        by_name = dict(zip(names, content.position, strict=True))
        positions = tuple(by_name[name] for name in self._recording.joint_names)
        self._states.append((_stamp_ns(content) or message.log_time, positions))

    def _trajectory(self, message: Message, content: Any) -> None:
        self._recording.commands.append(
            Command(
                message.log_time,
                _stamp_ns(content),
                tuple(content.joint_names),
                tuple(point.time_from_start.sec * NS_PER_S + point.time_from_start.nanosec for point in content.points),
                tuple(tuple(point.positions) for point in content.points),
            )
        )

    def _status(self, message: Message, content: Any) -> None:
        said = {pair.key: pair.value for pair in content.values}
        self._recording.status_prompts.append((message.log_time, said.get("prompt", "")))


def _stamp_ns(content: Any) -> int:
    return int(content.header.stamp.sec) * NS_PER_S + int(content.header.stamp.nanosec)
