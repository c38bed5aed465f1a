"""One websocket connection to a server, blocking, with a deadline on every step.

The protocol is websockets' own, driven without its threads or event loop: `websockets.sync` hands every message from a
second thread to the caller's, which costs more than the rest of a local round trip.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from vla_policy.serving.address import Address
from vla_policy.serving.errors import ServerRefusedError, ServerTimeoutError, ServerUnavailableError

READ_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 64 << 20
"""As much as our server takes; a hostile server cannot fill the memory."""
CLOSE_TIMEOUT_S = 0.2
"""Goodbyes are a courtesy: the server drops the session either way."""
MIN_TIMEOUT_S = 0.001
"""A socket timeout of 0 would mean «do not block» instead of «time is up»."""


@dataclass(frozen=True, slots=True)
class Late:
    """Whom to tell when an answer is late, without giving up on it.

    Attributes:
        at_s: when it is late, monotonic.
        tell: called in the waiting thread; may be called again for the same answer.
    """

    at_s: float
    tell: Callable[[], None]


class Channel:
    """Sends and receives whole messages. One thread uses it; `abort` may be called from any."""

    def __init__(self, address: Address, headers: Mapping[str, str], deadline: float) -> None:
        """Connect and shake hands before `deadline` (monotonic, seconds).

        Raises:
            ServerUnavailableError: nobody listens, or not in time.
            ServerRefusedError: it answered the handshake with another HTTP status.
        """
        self._address = address
        self._socket = open_socket(address, deadline)
        self._protocol = ClientProtocol(parse_uri(address.uri), max_size=MAX_MESSAGE_BYTES)
        self._frames: list[Frame] = []
        try:
            self._shake_hands(headers, deadline)
        except BaseException:
            self._socket.close()
            raise

    def _shake_hands(self, headers: Mapping[str, str], deadline: float) -> None:
        request = self._protocol.connect()
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._flush(deadline)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._pump(deadline)
        error = self._protocol.handshake_exc
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            cure = "check the API key" if status in (401, 403) else "is it a policy server?"
            raise ServerRefusedError(f"server {self._address} answered HTTP status {status}; {cure}") from error
        if error is not None:
            raise ServerRefusedError(f"server {self._address} does not speak the policy protocol: {error}") from error

    def send(self, data: bytes, deadline: float) -> None:
        """Send one binary message.

        Raises:
            ServerUnavailableError: the connection is gone, or it does not take the message in time.
        """
        if self._protocol.state is not State.OPEN:
            raise ServerUnavailableError(f"server {self._address} closed the connection{self._why()}")
        self._protocol.send_binary(data)
        self._flush(deadline)

    def receive(self, deadline: float, late: Late | None = None) -> bytes | str:
        """Wait for one message: bytes, or text where the server reports an error.

        Raises:
            ServerUnavailableError: the connection ended, or nothing came in time.
        """
        kind: Opcode | None = None
        parts: list[bytes] = []
        while True:
            while not self._frames:
                if self._protocol.state is State.CLOSED:
                    raise ServerUnavailableError(f"server {self._address} closed the connection{self._why()}")
                self._pump(deadline, late)
            frame = self._frames.pop(0)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                kind, parts = frame.opcode, []
            elif frame.opcode is not Opcode.CONT:
                continue  # pings are answered by the protocol itself
            parts.append(bytes(frame.data))
            if frame.fin:
                data = b"".join(parts)
                return data.decode(errors="replace") if kind is Opcode.TEXT else data

    def close(self) -> None:
        """Say goodbye and release the socket; never raises."""
        with contextlib.suppress(ServerUnavailableError):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                self._flush(time.monotonic() + CLOSE_TIMEOUT_S)
        self._socket.close()

    def abort(self) -> None:
        """Make whoever waits in `receive` give up; from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _pump(self, deadline: float, late: Late | None = None) -> None:
        """Read what there is, answer what the protocol wants answered."""
        data = self._read_or_tell(deadline, late)
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._frames.extend(event for event in self._protocol.events_received() if isinstance(event, Frame))
        with contextlib.suppress(ServerUnavailableError):  # a broken connection shows at the next read, with its reason
            self._flush(deadline)

    def _read_or_tell(self, deadline: float, late: Late | None) -> bytes:
        if late is not None and late.at_s < deadline:
            with contextlib.suppress(ServerTimeoutError):
                return self._read(late.at_s)
            late.tell()
        return self._read(deadline)

    def _read(self, deadline: float) -> bytes:
        try:
            self._socket.settimeout(max(deadline - time.monotonic(), MIN_TIMEOUT_S))
            return self._socket.recv(READ_BYTES)
        except TimeoutError as error:
            raise ServerTimeoutError(f"server {self._address} did not answer in time") from error
        except OSError as error:
            raise ServerUnavailableError(f"connection to server {self._address} broke: {error}") from error

    def _flush(self, deadline: float) -> None:
        try:
            for data in self._protocol.data_to_send():
                self._socket.settimeout(max(deadline - time.monotonic(), MIN_TIMEOUT_S))
                if data:
                    self._socket.sendall(data)
                else:  # the protocol's sign that nothing more will be sent
                    self._socket.shutdown(socket.SHUT_WR)
        except TimeoutError as error:
            raise ServerTimeoutError(f"server {self._address} takes no more data") from error
        except OSError as error:
            raise ServerUnavailableError(f"connection to server {self._address} broke: {error}") from error

    def _why(self) -> str:
        """What the server said in its goodbye, for a message."""
        received = self._protocol.close_rcvd
        return f" with code {received.code}: {received.reason}".rstrip(": ") if received else ""


def open_socket(address: Address, deadline: float) -> socket.socket:
    """A connected socket, before `deadline` (monotonic, seconds).

    Raises:
        ServerUnavailableError: nobody listens, or not in time.
        ServerRefusedError: its certificate is not trusted.
    """
    timeout_s = max(deadline - time.monotonic(), MIN_TIMEOUT_S)
    try:
        if address.socket_path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(timeout_s)
            plain.connect(str(address.socket_path))
            return plain
        plain = socket.create_connection((address.host, address.port), timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not address.secure:
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)
    except TimeoutError as error:
        raise ServerTimeoutError(f"server {address} cannot be reached within {timeout_s:.1f} s") from error
    except ssl.SSLCertVerificationError as error:
        raise ServerRefusedError(f"server {address} has no certificate that this machine trusts: {error}") from error
    except OSError as error:
        raise ServerUnavailableError(f"server {address} cannot be reached: {error}") from error
