"""The stand-in's socket and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from gg_bridge.testing.character import Character
from gg_bridge.testing.connection import Connection, Handler, Stream
from gg_bridge.testing.faults import Faults
from gg_bridge.testing.operations import Operations
from vla_core.errors import ConfigError

MAX_SOCKET_PATH_BYTES = 107
"""What fits into a sockaddr_un."""


class Server:
    """Listens; a `Host` for its connections."""

    def __init__(self, path: Path, operations: Operations) -> None:
        self._path = path
        self._operations = operations
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.handlers: Mapping[str, Handler] = operations.handlers()
        self.token = _new_token()
        self.pongs = 0

    @property
    def character(self) -> Character:
        """See `Host`."""
        return self._operations.character

    @property
    def faults(self) -> Faults:
        """See `Host`."""
        return self._operations.faults

    @property
    def streaming(self) -> Mapping[str, set[Stream]]:
        """See `Host`."""
        return self._operations.streaming

    def count_pong(self) -> None:
        """See `Host`."""
        self.pongs += 1

    @property
    def clients(self) -> tuple[Connection, ...]:
        """Those that have shown their token."""
        # Copied at once, since other threads look too.
        return tuple(connection for connection in tuple(self._connections) if connection.greeted)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the path cannot be used.
        """
        check_free(self._path)
        try:
            self._listener = await asyncio.start_unix_server(self._serve, self._path)
            self._path.chmod(0o600)
        except OSError as error:
            raise ConfigError(f"socket {self._path}: {error.strerror or error}; choose another path") from error

    async def stop(self) -> None:
        """Hang up on everybody, and listen no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    async def restart(self) -> None:
        """As a nucleus that starts anew: the old token is void."""
        await self.stop()
        self.token = _new_token()
        await self.start()

    def drop(self, *, mid_message: bool = False) -> None:
        """Hang up on everybody."""
        for connection in tuple(self._connections):
            connection.drop(mid_message=mid_message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        task = asyncio.current_task()
        self._connections.add(connection)
        if task is not None:
            self._tasks.add(task)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            if task is not None:
                self._tasks.discard(task)


def check_free(path: Path) -> None:
    """Remove a socket that nobody listens on any more.

    Raises:
        ConfigError: the path is too long, taken, or its folder is not there.
    """
    if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"socket {path}: a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter one"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"socket {path}: there is no folder {path.parent}; make it, or choose another path")
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"socket {path} exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # somebody is there, only busy
    raise ConfigError(f"somebody listens on {path} already; stop it, or choose another path")


def _new_token() -> str:
    return secrets.token_urlsafe(12)  # 16 characters, as a nucleus makes them
