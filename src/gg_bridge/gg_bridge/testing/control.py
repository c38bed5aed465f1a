"""The stand-in's control socket, for demos and tests in other processes: one JSON object a line, each way.

    {"op": "deploy", "merge": {"model": {"uri": "file:/models/b"}}, "wait_s": 30}  ->  {"ok": true, "status": …}
    {"op": "deploi"}                                                             ->  {"ok": false, "error": …}

`ControlServer` serves a `StandInNucleus`; `ControlClient` is what programs and tests use.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gg_bridge.testing.deployments import Deployment
from gg_bridge.testing.faults import faults_from
from gg_bridge.testing.server import check_free
from gg_bridge.testing.stand_in import StandInNucleus
from vla_core.errors import ConfigError, EvergreenError

_LOG = logging.getLogger(__name__)

Json = dict[str, Any]
DEFAULT_TIMEOUT_S: Final = 5.0
_MAX_LINE_BYTES: Final = 1 << 20


class ControlError(EvergreenError):
    """The stand-in is not there, went away, or refused a request."""


class ControlServer:
    """Serves one stand-in; each client in a thread of its own, each client's requests in turn."""

    def __init__(self, path: Path, nucleus: StandInNucleus, shutdown: Callable[[], None]) -> None:
        """Listen.

        Raises:
            ConfigError: the path cannot be used.
        """
        check_free(path)
        operations = _operations(nucleus, shutdown)
        self._path = path
        self._server = _Server(str(path), _handler(operations))
        path.chmod(0o600)
        self._thread = threading.Thread(target=self._server.serve_forever, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Operations = Mapping[str, Callable[[Json], Json]]


def _operations(nucleus: StandInNucleus, shutdown: Callable[[], None]) -> Operations:
    def restart(_request: Json) -> Json:
        nucleus.restart()
        return {"environment": nucleus.environment()}

    def drop(request: Json) -> Json:
        nucleus.drop_connections(mid_message=bool(request.get("mid_message", False)))
        return {}

    def fault(request: Json) -> Json:
        nucleus.faults = faults_from(request)
        return {}

    def stop(_request: Json) -> Json:
        shutdown()
        return {}

    return {
        "deploy": lambda request: _deploy(nucleus, request),
        "restart": restart,
        "drop": drop,
        "fault": fault,
        "status": lambda _: _status(nucleus),
        "environment": lambda _: {"environment": nucleus.environment()},
        "published": lambda _: {"published": [_published(message) for message in nucleus.published]},
        "states": lambda _: {"states": list(nucleus.state_reports)},
        "shadows": lambda _: {
            "shadows": [
                {"thing": thing, "name": name, "document": document}
                for (thing, name), document in nucleus.shadows.items()
            ]
        },
        "shutdown": stop,
    }


def _deploy(nucleus: StandInNucleus, request: Json) -> Json:
    known = {"merge", "reset", "version", "defaults", "local", "on_failure"}
    unknown = set(request) - known - {"wait_s"}
    if unknown:
        raise ConfigError(f"deploy knows no {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}, wait_s")
    wait_s = request.pop("wait_s", 0.0)
    if not isinstance(wait_s, (int, float)) or wait_s < 0:
        raise ConfigError(f"wait_s is {wait_s!r}; it must be a number of seconds")
    deployment = nucleus.deploy(**request)
    if wait_s:
        try:
            deployment.wait(wait_s)
        except TimeoutError:
            _LOG.info("deployment %s goes on", deployment.id)
    return _deployment(deployment)


def _deployment(deployment: Deployment) -> Json:
    return {"deployment": deployment.id, "status": deployment.status, "reason": deployment.reason}


def _published(message: Any) -> Json:
    return {
        "topic": message.topic,
        "qos": message.qos,
        "payload": message.payload.decode(errors="replace"),
        "payload_base64": base64.b64encode(message.payload).decode(),
    }


def _status(nucleus: StandInNucleus) -> Json:
    return {
        "character": nucleus.character,
        "clients": nucleus.clients,
        "version": nucleus.version,
        "configuration": nucleus.configuration(),
        "component": nucleus.component_status(),
        "deployments": [_deployment(deployment) for deployment in nucleus.deployments],
    }


def _handler(operations: Operations) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                while line := self.rfile.readline(_MAX_LINE_BYTES):
                    self.wfile.write(json.dumps(_answer(operations, line)).encode() + b"\n")
            except ConnectionError as error:
                _LOG.debug("a control connection ended: %s", error)

    return Handler


def _answer(operations: Operations, line: bytes) -> Json:
    try:
        request = json.loads(line)
    except ValueError as error:
        return {"ok": False, "error": f"not JSON: {error}"}
    name = request.pop("op", None) if isinstance(request, dict) else None
    operation = operations.get(name) if isinstance(name, str) else None
    if operation is None:
        return {"ok": False, "error": f"no operation {name!r}: there are {', '.join(sorted(operations))}"}
    try:
        return {"ok": True, **operation(request)}
    except EvergreenError as error:
        return {"ok": False, "error": str(error)}
    except Exception as error:  # noqa: BLE001 (one bad request must not end the stand-in)
        _LOG.exception("operation %s failed", name)
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


class ControlClient:
    """Asks the stand-in behind a control socket, each time over a connection of its own."""

    def __init__(self, path: Path | str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._path = Path(path)
        self._timeout_s = timeout_s

    def request(self, op: str, *, timeout_s: float | None = None, **arguments: Any) -> Json:
        """Ask for any operation; its answer without `ok`.

        Raises:
            ControlError: it was refused, or the stand-in is not there, went away or took too long.
        """
        line = json.dumps({"op": op, **arguments}).encode() + b"\n"
        try:
            answer = json.loads(self._exchange(line, self._timeout_s if timeout_s is None else timeout_s))
        except TimeoutError as error:
            raise ControlError(f"the stand-in nucleus at {self._path} did not answer '{op}' in time") from error
        except OSError as error:
            cure = "start one: python -m gg_bridge.testing"
            raise ControlError(f"no stand-in nucleus at {self._path} ({error.strerror or error}); {cure}") from error
        except ValueError as error:
            raise ControlError(f"the stand-in nucleus at {self._path} hung up on '{op}'") from error
        if not answer.pop("ok", False):
            raise ControlError(f"{op}: {answer.get('error', 'refused without a reason')}")
        return dict(answer)

    def _exchange(self, line: bytes, timeout_s: float) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self._path))
            connection.sendall(line)
            with connection.makefile("rb") as lines:
                return lines.readline()

    def deploy(self, merge: Mapping[str, Any] | None = None, *, wait_s: float = 0.0, **order: Any) -> Json:
        """A deployment, see `gg_bridge.testing.deployments.Order`: `{"deployment", "status", "reason"}`.

        With `wait_s` the answer comes when the deployment is over, or then; without it at once.
        """
        timeout_s = self._timeout_s + wait_s
        return self.request("deploy", timeout_s=timeout_s, merge=dict(merge or {}), wait_s=wait_s, **order)

    def status(self) -> Json:
        """`character, clients, version, configuration, component, deployments`."""
        return self.request("status")

    def environment(self) -> dict[str, str]:
        """What a component needs to connect now."""
        return dict(self.request("environment")["environment"])

    def restart(self) -> dict[str, str]:
        """Restart the nucleus; the environment with the new token."""
        return dict(self.request("restart", timeout_s=60.0)["environment"])

    def drop(self, *, mid_message: bool = False) -> None:
        """Break all connections."""
        self.request("drop", mid_message=mid_message)

    def fault(self, **faults: Any) -> None:
        """Set what goes wrong, see `gg_bridge.testing.Faults`; without arguments nothing does any more."""
        self.request("fault", **faults)

    def published(self) -> list[Json]:
        """Every message to AWS IoT Core: `topic, qos, payload, payload_base64`."""
        return list(self.request("published")["published"])

    def states(self) -> list[str]:
        """Every state that the component reported."""
        return list(self.request("states")["states"])

    def shadows(self) -> list[Json]:
        """Every shadow: `thing, name, document`."""
        return list(self.request("shadows")["shadows"])

    def shutdown(self) -> None:
        """Ask the stand-in to end."""
        self.request("shutdown")
