"""How the policy node reaches a server: one that it starts itself, or one at an address.

Local and remote models differ here and nowhere else. `connect` gives a fresh session or raises; whoever calls it
decides when to try again.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from vla_core.errors import ConfigError, EvergreenError
from vla_core.runtime import run_dir
from vla_policy.serving.address import Address, parse_address, unix_address
from vla_policy.serving.client import CONNECT_TIMEOUT_S, PolicyClient
from vla_policy.serving.supervisor import ServerCommand, ServerProcess

LOCAL = "local"
_numbers = itertools.count()


class Link(Protocol):
    """A way to sessions of one policy."""

    def connect(self, cancelled: threading.Event) -> PolicyClient:
        """A new session, history empty; starts the server first where that is ours to do.

        Raises:
            EvergreenError: why there is none.
        """
        ...

    def reset(self) -> None:
        """The server hangs: end it where we started it, so that the next `connect` finds a new one."""
        ...

    def close(self) -> None:
        """Let go of the server for good; ends it where we started it."""
        ...


class RemoteLink:
    """A server at an address; somebody else starts it."""

    def __init__(self, address: Address, api_key: str = "") -> None:
        self._address = address
        self._api_key = api_key

    def connect(self, cancelled: threading.Event) -> PolicyClient:  # noqa: ARG002  it gives up by itself soon enough
        """See `Link`."""
        return PolicyClient(self._address, self._api_key, CONNECT_TIMEOUT_S)

    def reset(self) -> None:
        """Nothing is ours to end."""

    def close(self) -> None:
        """Nothing is ours to end."""


class LocalLink:
    """A server that we start, and start again when it died."""

    def __init__(self, command: ServerCommand, load_timeout_s: float, log: Callable[[str], None]) -> None:
        self._command = command
        self._load_timeout_s = load_timeout_s
        self._log = log
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def connect(self, cancelled: threading.Event) -> PolicyClient:
        """See `Link`."""
        if self._process is None or not self._process.alive:
            if self._process is not None:
                self._log(str(self._process.obituary()))
                self._process.stop()
            self._process = ServerProcess(self._command, self._log)
            try:
                self._process.wait_ready(self._load_timeout_s, cancelled)
            except EvergreenError:
                self.close()  # why is in the error: the next attempt has nothing to tell of this one
                raise
        return PolicyClient(self._command.address, metadata_timeout_s=self._load_timeout_s)

    def reset(self) -> None:
        """End the server."""
        self.close()

    def close(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.stop()
            self._process = None


def new_socket_address() -> Address:
    """A Unix socket that no other server of this process, or of another, uses."""
    return unix_address(run_dir() / f"policy-{os.getpid()}-{next(_numbers)}.sock")


def make_link(
    server: str,
    model: str,
    *,
    threads: int,
    load_timeout_s: float,
    api_key: str,
    log: Callable[[str], None],
) -> Link:
    """The link that the parameters `server` and `model` ask for.

    Raises:
        ConfigError: they do not fit together.
    """
    if server != LOCAL:
        address = parse_address(server)
        if api_key and not (address.secure or address.is_local):
            log(f"the API key travels to {address} unencrypted: use wss://")
        return RemoteLink(address, api_key)
    if not model:
        raise ConfigError("parameter 'model' is empty: give a model folder")
    command = ServerCommand(new_socket_address(), Path(model).expanduser(), threads=threads)
    return LocalLink(command, load_timeout_s, log)
