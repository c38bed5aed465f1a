"""MJPEG over HTTP, as µStreamer sends it: `/<camera>/stream.mjpg`, `/<camera>/snapshot.jpg`, and a list at `/`.

Each part carries `X-Timestamp: <seconds>.<nanoseconds>`, the system time at which the picture was taken. A viewer
that reads too slowly loses frames; it never sees old ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vla_core.errors import ConfigError

_LOG = logging.getLogger(__name__)

BOUNDARY: Final = "boundarydonotcross"
_REQUEST_TIMEOUT_S: Final = 5.0
_SNAPSHOT_TIMEOUT_S: Final = 5.0
_MAX_REQUEST_BYTES: Final = 8192
_SEND_BUFFER_BYTES: Final = 32 * 1024
"""Two pictures of 320x240; the kernel's default would hold seconds of stale ones for a slow viewer."""
_MAX_VIEWERS: Final = 64


def part(stamp_ns: int, jpeg: bytes) -> bytes:
    """One picture, framed for a stream."""
    head = (
        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
        f"X-Timestamp: {format_stamp(stamp_ns)}\r\n\r\n"
    )
    return head.encode("ascii") + jpeg + b"\r\n"


def format_stamp(stamp_ns: int) -> str:
    """Seconds since 1970 with nine decimals, exactly."""
    return f"{stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}"


@dataclass(slots=True)
class _Channel:
    viewers: set[asyncio.StreamWriter] = field(default_factory=set)
    snapshots: list[asyncio.Future[tuple[int, bytes]]] = field(default_factory=list)
    slow: int = 0
    dropped: bool = False


class MjpegServer:
    """Serves on the event loop that calls `start`; `publish` may be called from any thread."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self._channels = {name: _Channel() for name in cameras}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.watched: dict[str, int] = dict.fromkeys(self._channels, 0)
        """Viewers of each camera now: what nobody watches need not be drawn."""

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=_MAX_REQUEST_BYTES)
        except OSError as error:
            raise ConfigError(
                f"cannot serve cameras on {host}:{port} ({os.strerror(error.errno or 0)}); if another simulator runs,"
                " choose another --http-port"
            ) from error

    @property
    def port(self) -> int:
        """The port in use; 0 before `start`."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def close(self) -> None:
        """Stop listening and end all streams."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def publish(self, camera: str, stamp_ns: int, jpeg: bytes) -> None:
        """Send a picture to whoever watches."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may close while the last picture is drawn
                self._loop.call_soon_threadsafe(self._deliver, camera, stamp_ns, jpeg)

    def drop(self, camera: str) -> None:
        """Pull a camera out: its streams break and new ones are refused."""
        channel = self._channels[camera]
        channel.dropped = True
        for writer in tuple(channel.viewers):
            writer.transport.abort()

    def restore(self, camera: str) -> None:
        """Put it back."""
        self._channels[camera].dropped = False

    def slow_frames(self, camera: str) -> int:
        """Frames that viewers were too slow to take."""
        return self._channels[camera].slow

    def _deliver(self, camera: str, stamp_ns: int, jpeg: bytes) -> None:
        channel = self._channels[camera]
        data = part(stamp_ns, jpeg)
        for writer in channel.viewers:
            transport = writer.transport
            if transport.is_closing():
                continue
            if transport.get_write_buffer_size() > 0:
                channel.slow += 1
            else:
                transport.write(data)
        for snapshot in channel.snapshots:
            if not snapshot.done():
                snapshot.set_result((stamp_ns, jpeg))
        channel.snapshots.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            _LOG.debug("a viewer left: %s", error)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_TIMEOUT_S)
        method, target = ([*head.split(b"\r\n", 1)[0].decode("latin-1").split(), "", ""])[:2]
        path = target.split("?", 1)[0]
        if method != "GET":
            _reply(writer, "405 Method Not Allowed", "only GET is served here\n")
        elif path == "/":
            _reply(writer, "200 OK", json.dumps(self._index(), indent=2) + "\n", "application/json")
        else:
            await self._camera(path, reader, writer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    def _index(self) -> dict[str, str]:
        return {name: f"/{name}/stream.mjpg" for name in self._channels}

    async def _camera(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, _, file = path.lstrip("/").partition("/")
        channel = self._channels.get(name)
        if channel is None or file not in {"stream.mjpg", "snapshot.jpg"}:
            known = ", ".join(self._index().values())
            _reply(writer, "404 Not Found", f"no {path} here; there are {known}\n")
        elif channel.dropped:
            _reply(writer, "503 Service Unavailable", f"camera {name} is unplugged\n")
        elif sum(self.watched.values()) >= _MAX_VIEWERS:
            _reply(writer, "503 Service Unavailable", f"{_MAX_VIEWERS} viewers are all that fit\n")
        else:
            self.watched[name] += 1
            try:
                if file == "stream.mjpg":
                    await self._stream(channel, reader, writer)
                else:
                    await self._snapshot(channel, writer)
            finally:
                self.watched[name] -= 1

    async def _stream(self, channel: _Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = writer.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        writer.write(_head("200 OK", f"multipart/x-mixed-replace;boundary={BOUNDARY}"))
        channel.viewers.add(writer)
        try:
            while await reader.read(_MAX_REQUEST_BYTES):
                pass  # nothing is expected but the end of the connection
        finally:
            channel.viewers.discard(writer)

    async def _snapshot(self, channel: _Channel, writer: asyncio.StreamWriter) -> None:
        waiting: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        channel.snapshots.append(waiting)
        try:
            stamp_ns, jpeg = await asyncio.wait_for(waiting, _SNAPSHOT_TIMEOUT_S)
        except TimeoutError:
            _reply(writer, "503 Service Unavailable", "the camera gives no picture\n")
            return
        length = f"Content-Length: {len(jpeg)}\r\nX-Timestamp: {format_stamp(stamp_ns)}\r\n"
        writer.write(_head("200 OK", "image/jpeg", length) + jpeg)


def _head(status: str, kind: str, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def _reply(writer: asyncio.StreamWriter, status: str, text: str, kind: str = "text/plain; charset=utf-8") -> None:
    body = text.encode()
    writer.write(_head(status, kind, f"Content-Length: {len(body)}\r\n") + body)
