"""The servo bus: requests, replies, deadlines, retries and counters. One thread owns a bus.

Requests that are made in every cycle are prepared once (`prepare_read`, `prepare_write`): the bytes are fixed
then, the reply is read in one piece of exactly known size, checked and unpacked by one `struct` call. Whatever
deviates (noise, a servo in alarm, a missing one) takes the slower path through `protocol.Decoder`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from arm_driver.errors import BusError, CorruptReplyError, NoReplyError
from arm_driver.feetech import protocol
from arm_driver.feetech.protocol import OVERHEAD_BYTES, Decoder, Status
from arm_driver.feetech.registers import Register
from arm_driver.feetech.transport import Port, open_port

DEFAULT_BAUD = 1_000_000
BITS_PER_BYTE_ON_WIRE = 10
DEFAULT_REPLY_TIMEOUT_S = 0.02
"""A reply takes about 1 ms; USB adapters and a busy host add up to 16 ms."""
DEFAULT_RETRIES = 2
"""As in LeRobot's follower: corrupt packets come singly, when several joints move at once."""
QUIET_S = 0.003
"""After a failed exchange the line has to be silent for so long before the next request, so that a late reply is not
taken for an answer to it. Two frames of a full-speed USB adapter, and one more."""

T = TypeVar("T")

_BYTES = tuple(bytes((value,)) for value in range(256))


@dataclass(slots=True)
class Counters:
    """What happened on the bus since it was opened first."""

    requests: int = 0
    timeouts: int = 0
    corrupt: int = 0
    retries: int = 0
    stale_bytes: int = 0


class ServoBus:
    """A bus with Feetech servos on it; opens in the constructor.

    Args:
        url: device path, or an address for `serial.serial_for_url`.
        baud: bits a second on the wire.
        reply_timeout_s: how long to wait for a reply beyond its time on the wire.
        retries: further attempts after an exchange that failed.

    Raises:
        PortUnavailableError: the port cannot be opened.

    Attributes:
        counters: since construction.
        alarms: error byte (`protocol.ServoError`) of every servo that reported one in its latest reply.
    """

    def __init__(
        self,
        url: str,
        baud: int = DEFAULT_BAUD,
        reply_timeout_s: float = DEFAULT_REPLY_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        port: Port | None = None,
    ) -> None:
        self.url = url
        self.counters = Counters()
        self.alarms: dict[int, int] = {}
        self._port = port if port is not None else open_port(url, baud)
        self._timeout_s = reply_timeout_s
        self._byte_s = BITS_PER_BYTE_ON_WIRE / baud
        self._retries = retries
        self._unsettled = True  # bytes of an earlier conversation may still be on their way

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the last packet out and close the port; never raises."""
        self._port.close()

    def prepare_read(self, address: int, layout: str, ids: Sequence[int]) -> GroupRead:
        """A sync read for repeated use; `layout` is one servo's block in `struct` letters, such as "HHHBB"."""
        return GroupRead(self, address, layout, ids)

    def prepare_write(self, address: int, layout: str, ids: Sequence[int]) -> GroupWrite:
        """A sync write for repeated use; `layout` is one servo's single value: "B" or "H"."""
        return GroupWrite(self, address, layout, ids)

    def sync_read(self, address: int, length: int, ids: Sequence[int]) -> tuple[bytes, ...]:
        """Registers of several servos, one block each, in the order of `ids`.

        Raises:
            NoReplyError, CorruptReplyError: after the last retry.
            PortLostError: the port went away.
        """
        request = protocol.sync_read(address, length, ids)
        statuses = self.transact(request, tuple(ids), length, lambda reply: self.decode(reply, ids, length))
        return tuple(status.data for status in statuses)

    def sync_write(self, address: int, ids: Sequence[int], data: Sequence[bytes]) -> None:
        """Write registers of several servos; nobody confirms it. Raises PortLostError."""
        self.send(protocol.sync_write(address, ids, data))

    def ping(self, servo_id: int) -> bool:
        """Whether a servo answers; one attempt. Raises PortLostError."""
        try:
            self._attempt(protocol.ping(servo_id), (servo_id,), 0, lambda reply: self.decode(reply, (servo_id,), 0))
        except (NoReplyError, CorruptReplyError):
            return False
        return True

    def read(self, servo_id: int, register: Register) -> int:
        """One register of one servo; errors as of `sync_read`."""
        request = protocol.read(servo_id, register.address, register.size)
        ids = (servo_id,)
        (status,) = self.transact(request, ids, register.size, lambda reply: self.decode(reply, ids, register.size))
        return register.decode(status.data)

    def write(self, servo_id: int, register: Register, value: int) -> None:
        """Write one register of one servo and wait for its confirmation; errors as of `sync_read`.

        Raises:
            ValueError: the register cannot hold the value.
        """
        request = protocol.write(servo_id, register.address, register.encode(value))
        ids = (servo_id,)
        self.transact(request, ids, 0, lambda reply: self.decode(reply, ids, 0))

    def send(self, packet: bytes) -> None:
        """Send a packet that nobody answers. Raises PortLostError."""
        self._port.send(packet)

    def transact(self, request: bytes, ids: Sequence[int], data_bytes: int, parse: Callable[[bytes], T]) -> T:
        """Send a request, take the replies of `ids` in one piece and `parse` them; retry on silence and garbage."""
        for _ in range(self._retries):
            try:
                return self._attempt(request, ids, data_bytes, parse)
            except (NoReplyError, CorruptReplyError):
                self.counters.retries += 1
        return self._attempt(request, ids, data_bytes, parse)

    def _attempt(self, request: bytes, ids: Sequence[int], data_bytes: int, parse: Callable[[bytes], T]) -> T:
        """One exchange. What stands in the way before the request is stale and is dropped."""
        self.counters.requests += 1
        self.counters.stale_bytes += self._port.discard(QUIET_S if self._unsettled else 0.0)
        self._unsettled = True
        self._port.send(request)
        size = len(ids) * (OVERHEAD_BYTES + data_bytes)
        reply = self._port.receive(size, self._timeout_s + (len(request) + size) * self._byte_s)
        value = parse(reply)
        self._unsettled = len(reply) != size
        return value

    def decode(self, reply: bytes, ids: Sequence[int], length: int) -> tuple[Status, ...]:
        """Find one status packet of each of `ids` with `length` bytes of data, among whatever else is in `reply`.

        Raises:
            NoReplyError: a servo is missing and nothing arrived that could have been its packet.
            CorruptReplyError: a servo is missing among garbage.
        """
        decoder = Decoder()
        found = {status.servo_id: status for status in decoder.feed(reply) if len(status.data) == length}
        missing = tuple(servo_id for servo_id in ids if servo_id not in found)
        if missing:
            raise self._missing(missing, reply, damaged=bool(decoder.corrupt or decoder.skipped or decoder.clear()))
        for servo_id in ids:
            if error := found[servo_id].error:
                self.alarms[servo_id] = error
            else:
                self.alarms.pop(servo_id, None)
        return tuple(found[servo_id] for servo_id in ids)

    def _missing(self, missing: tuple[int, ...], reply: bytes, *, damaged: bool) -> BusError:
        names = ", ".join(map(str, missing))
        if damaged:
            self.counters.corrupt += 1
            return CorruptReplyError(
                f"port {self.url}: the reply of servo(s) {names} is damaged ({len(reply)} bytes came); check the cables"
                " and that nothing else uses the bus"
            )
        self.counters.timeouts += 1
        return NoReplyError(
            f"port {self.url}: servo(s) {names} did not answer within {self._timeout_s * 1e3:g} ms; check their power,"
            " cables, ids and baud rate",
            missing,
        )


class GroupRead:
    """A prepared sync read."""

    def __init__(self, bus: ServoBus, address: int, layout: str, ids: Sequence[int]) -> None:
        self._bus = bus
        self._ids = tuple(ids)
        self._length = struct.calcsize(f"<{layout}")
        self._request = protocol.sync_read(address, self._length, ids)
        self._packet_bytes = OVERHEAD_BYTES + self._length
        self._size = self._packet_bytes * len(self._ids)
        self._unpack = struct.Struct("<" + f"5x{layout}x" * len(self._ids)).unpack
        self._unpack_blocks = struct.Struct("<" + layout * len(self._ids)).unpack
        # What a faultless packet of each servo begins with: header, id, length and no error.
        self._heads = tuple(
            (index * self._packet_bytes, protocol.status(servo_id, 0, bytes(self._length))[:5])
            for index, servo_id in enumerate(self._ids)
        )

    def read(self) -> tuple[int, ...]:
        """Raw unsigned register values, servo by servo in the order of the ids.

        Raises:
            NoReplyError, CorruptReplyError: after the last retry.
            PortLostError: the port went away.
        """
        return self._bus.transact(self._request, self._ids, self._length, self._parse)

    def _parse(self, reply: bytes) -> tuple[int, ...]:
        if len(reply) == self._size:
            for start, head in self._heads:
                # The checksum makes the sum of everything behind the header 0xFF.
                body = reply[start + 2 : start + self._packet_bytes]
                if not reply.startswith(head, start) or sum(body) & 0xFF != 0xFF:
                    break
            else:
                if self._bus.alarms:
                    for servo_id in self._ids:
                        self._bus.alarms.pop(servo_id, None)
                return self._unpack(reply)
        statuses = self._bus.decode(reply, self._ids, self._length)
        return self._unpack_blocks(b"".join(status.data for status in statuses))


class GroupWrite:
    """A prepared sync write of one value a servo."""

    def __init__(self, bus: ServoBus, address: int, layout: str, ids: Sequence[int]) -> None:
        length = struct.calcsize(f"<{layout}")
        empty = protocol.sync_write(address, ids, [bytes(length)] * len(ids))
        self._bus = bus
        self._head = empty[:7]
        self._head_sum = sum(self._head[2:])
        self._pack = struct.Struct("<" + f"B{layout}" * len(ids)).pack
        self._interleaved = [number for servo_id in ids for number in (servo_id, 0)]

    def write(self, values: Sequence[int]) -> None:
        """Send one raw unsigned value for each id. Raises PortLostError; ValueError when their number differs."""
        interleaved = self._interleaved
        interleaved[1::2] = values
        body = self._pack(*interleaved)
        self._bus.send(self._head + body + _BYTES[~(self._head_sum + sum(body)) & 0xFF])
