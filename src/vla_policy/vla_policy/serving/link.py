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
from vla_policy.serving import priority
from vla_policy.serving.address import Address, parse_address, unix_address
from vla_policy.serving.client import CONNECT_TIMEOUT_S, PolicyClient
from vla_policy.serving.supervisor import ServerCommand, ServerProcess

LOCAL = "local"
END_S = 1.0
"""A process that was killed hangs up first, and has ended soon after."""
_numbers = itertools.count()


class Link(Protocol):
    """A way to sessions of one policy."""

    @property
    def pid(self) -> int | None:
        """Process id of the running server, where it is ours."""
        ...

    def connect(self, cancelled: threading.Event) -> PolicyClient:
        """A new session, history empty; starts the server first where that is ours to do.

        Raises:
            EvergreenError: why there is none.
        """
        ...

    def ended(self) -> str:
        """Why our server ended, where a connection to it broke; empty where it runs, or is none of ours."""
        ...

    def promote(self) -> None:
        """It is about to drive: a server of ours that yielded to others does so no more, nor do its successors."""
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

    @property
    def pid(self) -> None:
        """It is nobody's child of ours."""

    def connect(self, cancelled: threading.Event) -> PolicyClient:  # noqa: ARG002  it gives up by itself soon enough
        """See `Link`."""
        return PolicyClient(self._address, self._api_key, CONNECT_TIMEOUT_S)

    def ended(self) -> str:
        """Nobody tells us."""
        return ""

    def promote(self) -> None:
        """Its priority is not ours to change."""

    def reset(self) -> None:
        """Nothing is ours to end."""

    def close(self) -> None:
        """Nothing is ours to end."""


class LocalLink:
    """A server that we start, and start again when it died."""

    def __init__(
        self, command: ServerCommand, load_timeout_s: float, log: Callable[[str], None], *, yields: bool = False
    ) -> None:
        """Take what to start; one that `yields` lets others have the processor until it is promoted."""
        self._command = command
        self._yields = yields
        self._load_timeout_s = load_timeout_s
        self._log = log
        self._process: ServerProcess | None = None
        self._starting = threading.Lock()  # the loop and a swap may both want a session

    @property
    def pid(self) -> int | None:
        """See `Link`."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def connect(self, cancelled: threading.Event) -> PolicyClient:
        """See `Link`."""
        with self._starting:
            self._start_if_needed(cancelled)
        return PolicyClient(self._command.address, metadata_timeout_s=self._load_timeout_s)

    def _start_if_needed(self, cancelled: threading.Event) -> None:
        former = self._process
        if former is not None and former.alive:
            return
        if former is not None:
            self._log(str(former.obituary()))
            former.stop()
        process = self._process = ServerProcess(self._command, self._log)
        if self._yields:
            priority.lower(process.pid)
        try:
            process.wait_ready(self._load_timeout_s, cancelled)
        except EvergreenError:
            self.close()  # why is in the error: the next attempt has nothing to tell of this one
            raise

    def ended(self) -> str:
        """See `Link`."""
        process = self._process
        return str(process.obituary()) if process is not None and process.ends_within(END_S) else ""

    def promote(self) -> None:
        """See `Link`."""
        self._yields = False
        if (pid := self.pid) is not None:
            priority.restore(pid)

    def reset(self) -> None:
        """End the server."""
        self.close()

    def close(self) -> None:
        """End the server; it may be asked for twice, from two threads."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()


def new_socket_address() -> Address:
    """A Unix socket that no other server of this process, or of another, uses."""
    return unix_address(run_dir() / f"policy-{os.getpid()}-{next(_numbers)}.sock")


def make_link(
    server: str,
    folder: Path | None,
    *,
    yields: bool = False,
    threads: int,
    load_timeout_s: float,
    api_key: str,
    log: Callable[[str], None],
) -> Link:
    """The link to `server`, or to one that we start for the model in `folder`.

    Raises:
        ConfigError: they do not fit together.
    """
    if server != LOCAL:
        address = parse_address(server)
        if api_key and not (address.secure or address.is_local):
            log(f"the API key travels to {address} unencrypted: use wss://")
        return RemoteLink(address, api_key)
    if folder is None:
        raise ConfigError("parameter 'model' is empty: give a model folder, or name@version where there is a store")
    command = ServerCommand(new_socket_address(), folder, threads=threads)
    return LocalLink(command, load_timeout_s, log, yields=yields)
