"""The simulator's control socket: one JSON object a line, each way, on a Unix stream socket.

    {"op": "reset", "seed": 7, "keep_arm": true}  ->  {"ok": true, "episode": 2, ...}
    {"op": "resett"}                              ->  {"ok": false, "error": "no operation 'resett': …"}

`ControlServer` runs on an asyncio loop in the simulator; `SimClient` is what programs and tests use.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from vla_core.errors import ConfigError, EvergreenError

_LOG = logging.getLogger(__name__)

Json = dict[str, Any]
Operation = Callable[[Json], Awaitable[Json]]

DEFAULT_TIMEOUT_S: Final = 5.0
_MAX_LINE_BYTES: Final = 65536


class SimError(EvergreenError):
    """The simulator is not there, went away, or refused a request."""


class ControlServer:
    """Serves `operations` by name. One connection's requests are answered in turn, connections independently."""

    def __init__(self, path: Path, operations: Mapping[str, Operation]) -> None:
        self._path = path
        self._operations = dict(operations)
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._inode = 0

    async def start(self) -> None:
        """Listen; a socket that a dead simulator left is replaced.

        Raises:
            ConfigError: a living simulator has the path, or it cannot be used.
        """
        _check_free(self._path)
        try:
            self._server = await asyncio.start_unix_server(self._connected, self._path, limit=_MAX_LINE_BYTES)
            self._path.chmod(0o600)
            self._inode = self._path.stat().st_ino
        except OSError as error:
            raise ConfigError(f"--control {self._path}: {error.strerror or error}; choose another path") from error

    async def close(self) -> None:
        """Stop, and remove the socket unless somebody else has put theirs there."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError) as error:  # ValueError: a line without end
            _LOG.debug("a control connection ended: %s", error)
        except asyncio.CancelledError:
            _LOG.debug("a control connection was open at the end")
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Json:
        try:
            request = json.loads(line)
        except ValueError as error:
            return _refusal(f"not JSON: {error}")
        name = request.get("op") if isinstance(request, dict) else None
        operation = self._operations.get(name) if isinstance(name, str) else None
        if operation is None:
            return _refusal(f"no operation {name!r}: there are {', '.join(sorted(self._operations))}")
        try:
            return {"ok": True, **await operation(request)}
        except EvergreenError as error:
            return _refusal(str(error))
        except asyncio.CancelledError:
            return _refusal("the simulator is stopping")
        except Exception as error:  # noqa: BLE001 (one bad request must not end the simulation)
            _LOG.exception("operation %s failed", name)
            return _refusal(f"{type(error).__name__}: {error}")


def _refusal(reason: str) -> Json:
    return {"ok": False, "error": reason}


def _check_free(path: Path) -> None:
    """Remove a dead socket.

    Raises:
        ConfigError: something else is there, or the folder is not.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"--control {path}: there is no folder {path.parent}; make it, or choose another path")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--control {path} exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # it exists and does not refuse: somebody is there, only busy
    raise ConfigError(f"another simulator listens on {path}; stop it, or choose another --control")


class SimClient:
    """A connection to the simulator's control socket. Not for several threads at once."""

    def __init__(self, path: Path | str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect.

        Raises:
            SimError: nobody listens at `path`.
        """
        self._path = Path(path)
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(os.fspath(self._path))
        except OSError as error:
            self._socket.close()
            raise SimError(f"no simulator at {self._path} ({error.strerror}); start one with --control") from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def request(self, op: str, *, timeout_s: float | None = None, **arguments: Any) -> Json:
        """Ask for any operation; its answer without `ok`.

        Raises:
            SimError: it was refused, or the simulator is gone.
        """
        self._socket.settimeout(self._timeout_s if timeout_s is None else timeout_s)
        try:
            self._socket.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError as error:
            self.close()  # a late answer would be taken for that of the next request
            raise SimError(f"the simulator at {self._path} did not answer '{op}' in time") from error
        except OSError as error:
            raise SimError(f"the connection to {self._path} broke ({error.strerror or error})") from error
        if not line:
            raise SimError(f"the simulator at {self._path} hung up on '{op}'")
        answer: Json = json.loads(line)
        if not answer.pop("ok", False):
            raise SimError(f"{op}: {answer.get('error', 'refused without a reason')}")
        return answer

    def reset(
        self,
        seed: int,
        *,
        keep_arm: bool = False,
        variety: str = "plain",
        target: str = "black",
        names: Sequence[str] | None = None,
    ) -> Json:
        """Begin an episode: `{"episode", "seed"}`; `names` are the cubes on the table, see `vla_sim.layout`."""
        cubes = None if names is None else list(names)
        return self.request("reset", seed=seed, keep_arm=keep_arm, variety=variety, target=target, names=cubes)

    def truth(self) -> Json:
        """What `vla_sim.truth.Truth` has, with `stamp_ns`, the system time for which it holds."""
        return self.request("truth")

    def outcome(self, target: str = "black", excused: Sequence[str] = ()) -> Json:
        """How the task stands, see `vla_sim.truth.Outcome`; `excused` cubes may have been moved."""
        return self.request("outcome", target=target, excused=list(excused))

    def status(self) -> Json:
        """Real-time factors, cameras, bus counters."""
        return self.request("status")

    def write_times(self) -> list[int]:
        """When the servos were sent goals since the last call: `time.monotonic_ns` of each sync write."""
        stamps_ns: list[int] = self.request("write_times")["stamps_ns"]
        return stamps_ns

    def fault(self, kind: str, **arguments: Any) -> Json:
        """Break something; `fault("clear")` mends everything."""
        return self.request("fault", kind=kind, **arguments)

    def hand_guide(
        self,
        joints: Mapping[str, float] | None = None,
        *,
        sweep: Sequence[str] = (),
        duration_s: float = 1.0,
        wait: bool = True,
    ) -> Json:
        """Lead limp joints by hand, to angles (rad), or through their whole ranges one after the other.

        Args:
            joints: where to, in `duration_s`.
            sweep: instead, joints to move from end to end, each in `duration_s`.
            duration_s: see above.
            wait: return when the hand has arrived, not at once. It holds on until `release` or the next move.
        """
        total_s = duration_s * max(1, len(sweep))
        where: Json = {"sweep": list(sweep)} if sweep else {"joints": dict(joints or {})}
        timeout_s = self._timeout_s + (total_s * 2.0 if wait else 0.0)  # a slow machine's time runs slower
        return self.request("hand_guide", timeout_s=timeout_s, duration_s=duration_s, wait=wait, **where)

    def release(self) -> Json:
        """Take the hand off the arm."""
        return self.request("hand_guide", release=True)

    def shutdown(self) -> Json:
        """Ask the simulator to end."""
        return self.request("shutdown")
