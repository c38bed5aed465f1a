"""The policy's side of the protocol: one observation out, one action chunk back, typed errors, no retries.

Who retries, and when, is `link`'s business.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_core import wire
from vla_core.errors import WireError
from vla_core.prompt_phrases import Match
from vla_policy.serving.address import Address
from vla_policy.serving.channel import Channel, Late, open_socket
from vla_policy.serving.errors import ServerFailedError

CONNECT_TIMEOUT_S = 5.0
"""Covers a handshake over a bad mobile network; on a LAN it takes milliseconds."""
MS_PER_S = 1e3
STAMP_LIMIT_NS = 1 << 62
"""Beyond the year 2116; sums of two such stamps still fit 64 bits."""
TIMING_LIMIT_MS = 1e9
"""Eleven days: beyond any request's time limit, and no NaN or infinity passes."""
_HEALTHY = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a server.

    Attributes:
        actions: `(horizon, dof)`, in the units that the server's metadata name (rad, unless a manifest says otherwise).
        stamp_ns: system time of what the policy looked at, where that was newer than the observation.
        round_trip_ms: from the first byte sent to the last received.
        timing: the server's own account, ms; `infer_ms` among it.
        match: what the prompt was taken for, where the server compares it with known phrases. One that is not
            understood is answered with no actions.
    """

    actions: NDArray[np.float64]
    round_trip_ms: float
    stamp_ns: int | None = None
    timing: Mapping[str, float] = field(default_factory=dict)
    match: Match | None = None

    @property
    def infer_ms(self) -> float:
        """The server's own computing, ms; 0 where it does not say."""
        return min(self.timing.get("infer_ms", 0.0), self.round_trip_ms)


class PolicyClient:
    """A connection to a policy server, and with it a session of its policy. One thread uses it."""

    def __init__(
        self,
        address: Address,
        api_key: str = "",
        timeout_s: float = CONNECT_TIMEOUT_S,
        metadata_timeout_s: float | None = None,
    ) -> None:
        """Connect and read the metadata.

        Args:
            address: where.
            api_key: shown to the server, where there is one.
            timeout_s: for connecting.
            metadata_timeout_s: for the metadata, which an Evergreen server sends once its model is loaded.

        Raises:
            ServerUnavailableError, ServerRefusedError, ServerFailedError, WireError: as they say.
        """
        self.address = address
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._channel = Channel(address, headers, time.monotonic() + timeout_s)
        try:
            deadline = time.monotonic() + (timeout_s if metadata_timeout_s is None else metadata_timeout_s)
            self.metadata: Mapping[str, Any] = self._receive(deadline)
        except BaseException:
            self._channel.close()
            raise

    def infer(
        self,
        observation: Mapping[str, Any],
        timeout_s: float,
        actions_key: str = "actions",
        late: Late | None = None,
    ) -> Answer:
        """Ask for the action chunk that answers `observation` (as on the wire); tell `late` while there is none.

        Raises:
            ServerUnavailableError: the connection ended, or no answer came within `timeout_s`.
            ServerFailedError: the server reported an error; it closes the connection.
            WireError: the answer is not what the protocol says. After any of these this client is of no more use.
        """
        data = wire.pack(observation)
        begun = time.monotonic()
        self._channel.send(data, begun + timeout_s)
        message = self._receive(begun + timeout_s, late)
        round_trip_ms = (time.monotonic() - begun) * MS_PER_S
        return _parse(message, round_trip_ms, actions_key)

    def _receive(self, deadline: float, late: Late | None = None) -> dict[Any, Any]:
        data = self._channel.receive(deadline, late)
        if isinstance(data, str):
            last_line = data.strip().rpartition("\n")[2]
            raise ServerFailedError(f"server {self.address} reported an error: {last_line}", data)
        message = wire.unpack(data)
        if not isinstance(message, dict):
            raise WireError(f"server {self.address} sent {type(message).__name__} where a dictionary is due")
        return message

    def close(self) -> None:
        """End the session; never raises."""
        self._channel.close()

    def abort(self) -> None:
        """Make a pending `infer` fail at once; from any thread."""
        self._channel.abort()


def _parse(message: Mapping[Any, Any], round_trip_ms: float, actions_key: str) -> Answer:
    actions = message.get(actions_key)
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.dtype.kind not in "fiu":
        raise WireError(f"the answer's {actions_key!r} must be an array (horizon, joints), not {_form(actions)}")
    return Answer(
        actions=actions.astype(np.float64),
        round_trip_ms=round_trip_ms,
        stamp_ns=_stamp(message.get("stamp_ns")),
        timing=_timing(message.get("server_timing")),
        match=Match.from_wire(message.get("prompt")),
    )


def _stamp(value: object) -> int | None:
    """The answer's own stamp decides what is past: one that is no time makes the answer useless."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < STAMP_LIMIT_NS:
        raise WireError(f"the answer's 'stamp_ns' must be nanoseconds since 1970, not {reprlib.repr(value)}")
    return int(value)


def _timing(value: object) -> dict[str, float]:
    """What is a duration in the server's account, ms; it is for people, so that anything else is left out."""
    if not isinstance(value, dict):
        return {}
    numbers = {str(key): ms for key, ms in value.items() if isinstance(ms, int | float | np.integer | np.floating)}
    return {key: float(ms) for key, ms in numbers.items() if 0 <= ms < TIMING_LIMIT_MS}


def _form(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def is_healthy(address: Address, timeout_s: float) -> bool:
    """Whether `GET /healthz` answers 200; False while the server loads, or is not there."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with open_socket(address, time.monotonic() + timeout_s) as connection:
            connection.sendall(request)
            return connection.recv(len(_HEALTHY)) == _HEALTHY
    except (OSError, WireError):
        return False
