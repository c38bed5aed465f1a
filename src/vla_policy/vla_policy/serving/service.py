"""openpi's websocket protocol, served: metadata on connect, then an observation for an action chunk, for ever.

Messages are MessagePack with numpy arrays (`vla_core.wire`), one request under way for each connection. An answer
carries `server_timing`: `queue_ms` (waiting for other clients' requests), `unpack_ms`, `infer_ms`, and
`prev_total_ms` of the request before. A failure sends its traceback as text and closes with code 1011.
`GET /healthz` answers 200 `OK` once the model is ready and 503 until then; a client that connects early gets its
metadata when the model is ready.
Source of the protocol: openpi, `websocket_policy_server.py` (Apache-2.0).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import logging
import socket
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from vla_core import wire
from vla_core.errors import EvergreenError, WireError
from vla_policy.serving.backends import Backend, Session

HEALTH_PATH = "/healthz"
KEY_SCHEME = "Api-Key"
MAX_MESSAGE_BYTES = 64 << 20
"""Eight raw pictures of 1080p fit; a hostile peer cannot fill the memory."""
CLOSE_TIMEOUT_S = 0.5
"""A client that does not read, because it is between two requests, must not hold up a shutdown."""
CLOSE_REASON = "Internal server error. Traceback included in previous frame."

logger = logging.getLogger("policy_server")


class PolicyService:
    """Serves one backend to any number of clients; inference runs in one worker, one request after the other."""

    def __init__(self, loading: Future[Backend], worker: ThreadPoolExecutor, api_key: str = "") -> None:
        """Take what serves.

        Args:
            loading: gives the backend once it is loaded.
            worker: one thread; the loop itself stays free for health checks and keepalives.
            api_key: what clients must present; empty lets everybody in.
        """
        self._loading = loading
        self._worker = worker
        self._expected = f"{KEY_SCHEME} {api_key}".encode() if api_key else b""

    async def run(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve on `listener` until `stop` is set.

        Raises:
            EvergreenError: the model could not be loaded.
        """
        self._ready = asyncio.wrap_future(self._loading)
        stopping = asyncio.ensure_future(stop.wait())
        either: list[asyncio.Future[Any]] = [stopping, self._ready]
        async with serve(
            self._converse,
            sock=listener,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_timeout=None,  # a client that holds a session in reserve reads nothing, maybe for minutes
            process_request=self._admit,
            logger=logging.getLogger("policy_server.websockets"),
        ):
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._ready.done():
                self._ready.result()
                await stopping
            self._ready.cancel()  # lets go of clients that wait for the model

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer health checks, and turn away clients without the key."""
        if request.path == HEALTH_PATH:
            if self._loading.done() and self._loading.exception() is None:
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "loading\n")
        if self._expected:
            shown = ", ".join(request.headers.get_all("Authorization")).encode()
            if not hmac.compare_digest(shown, self._expected):
                logger.warning("turned away a client without the right API key")
                response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong or missing API key\n")
                response.headers["WWW-Authenticate"] = KEY_SCHEME
                return response
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        """One client, from metadata to goodbye."""
        try:
            backend = await asyncio.shield(self._ready)
            session = backend.open_session()
            await connection.send(wire.pack(backend.metadata()))
            await self._answer_all(connection, session)
        except ConnectionClosed:
            logger.debug("a client left")
        except Exception as error:  # noqa: BLE001  whatever a backend raises goes to its client, as the protocol wants
            text = "".join(traceback.format_exception(error))
            logger.warning("refused: %s", error if isinstance(error, EvergreenError) else text)
            with contextlib.suppress(ConnectionClosed):
                await connection.send(text)
            await connection.close(CloseCode.INTERNAL_ERROR, CLOSE_REASON)

    async def _answer_all(self, connection: ServerConnection, session: Session) -> None:
        loop = asyncio.get_running_loop()
        timing: dict[str, float] = {}
        while True:
            message = await connection.recv()
            arrived = time.monotonic()
            if isinstance(message, str):
                raise WireError("observations travel as MessagePack in binary messages, not as text")
            await connection.send(await loop.run_in_executor(self._worker, _answer, session, message, arrived, timing))
            timing = {"prev_total_ms": _ms_since(arrived)}


def _answer(session: Session, message: bytes, arrived: float, timing: Mapping[str, float]) -> bytes:
    """Unpack, infer, pack; runs in the worker. `arrived` is monotonic, seconds."""
    queue_ms = _ms_since(arrived)
    begun = time.monotonic()
    observation = wire.unpack(message)
    if not isinstance(observation, dict):
        raise WireError(f"an observation is a dictionary, not {type(observation).__name__}")
    unpack_ms = _ms_since(begun)
    begun = time.monotonic()
    answer: dict[str, Any] = dict(session.infer(observation))
    infer_ms = _ms_since(begun)
    answer["server_timing"] = {"queue_ms": queue_ms, "unpack_ms": unpack_ms, "infer_ms": infer_ms, **timing}
    return wire.pack(answer)


def _ms_since(begun: float) -> float:
    return (time.monotonic() - begun) * 1e3
