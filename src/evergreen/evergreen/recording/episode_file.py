"""One episode as an MCAP file with raw CDR messages, unchanged.

Messages are not gathered in chunks (as in rosbag2's preset `fastwrite`): each is a record of its own that reaches the
disk with the next flush, nothing is compressed (JPEG would not shrink), and a file whose writer was killed can be read
to its last record. What distinguishes it from a whole one is the footer, which `finish` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mcap.well_known import MessageEncoding, Profile, SchemaEncoding
from mcap.writer import CompressionType, IndexType, Writer

from evergreen.recording.sink import RecordSink, Store

LIBRARY = "evergreen"


class EpisodeFile:
    """Written by one thread. Every method may raise OSError; what came before stays readable."""

    def __init__(self, path: Path, define: Callable[[str], str], system: Store | None = None) -> None:
        """Make `path`; `define` gives the definition of a message type."""
        self.path = path
        self.messages = 0
        self._define = define
        self._schemas: dict[str, int] = {}
        self._channels: dict[tuple[str, str], int] = {}
        self._sink = RecordSink(path, system)
        self._writer = Writer(
            self._sink,
            compression=CompressionType.NONE,
            index_types=IndexType.NONE,
            use_chunking=False,
        )
        self._writer.start(profile=Profile.ROS2, library=LIBRARY)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._sink.size

    def add(self, topic: str, datatype: str, data: bytes, log_ns: int, publish_ns: int) -> None:
        """Append one message; times are system ns of its arrival and of its publisher's call."""
        channel = self._channels.get((topic, datatype))
        if channel is None:
            channel = self._register(topic, datatype)
        self._writer.add_message(channel, log_time=log_ns, data=data, publish_time=publish_ns)
        self.messages += 1

    def sync(self) -> None:
        """Bring everything to the disk."""
        self._sink.sync()

    def finish(self) -> None:
        """Write the summary and close: the episode is whole."""
        try:
            self._writer.finish()
            self._sink.sync()
        finally:
            self._sink.close()

    def abandon(self) -> None:
        """Close without a summary: the episode is cut short, and its messages can be read."""
        self._sink.close()

    def _register(self, topic: str, datatype: str) -> int:
        schema = self._schemas.get(datatype)
        if schema is None:
            text = self._define(datatype)
            schema = self._writer.register_schema(datatype, SchemaEncoding.ROS2, text.encode())
            self._schemas[datatype] = schema
        channel: int = self._writer.register_channel(topic, MessageEncoding.CDR, schema)
        self._channels[topic, datatype] = channel
        return channel
