"""A half-duplex bus of STS3215 servos: request bytes in, reply bytes out. No I/O and no clock.

Protocol: Feetech FT-SCS (doc.feetech.cn, FT-SCS-Protocol), the Dynamixel protocol 1.0 with sync read added:

    request  FF FF id length instruction parameter… checksum
    reply    FF FF id length error       parameter… checksum

`length` counts what follows it; the checksum is ~(everything between the header and it) & 255.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from vla_sim.sts3215 import CENTRE_TICK, Address, Sts3215

BROADCAST_ID: Final = 254
_MIN_LENGTH: Final = 2  # instruction and checksum
_MAX_LENGTH: Final = 250  # the servos' receive buffer
_BITS_PER_BYTE: Final = 10  # start, eight data, stop
_MAX_PLANS: Final = 64  # a client repeats a handful of sync reads for ever
_KEPT_WRITES: Final = 1 << 16  # ten minutes at 100 Hz


class Instruction(IntEnum):
    """Third byte of a request after the header."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    RESTORE = 0x06
    REBOOT = 0x08
    BACK_UP = 0x09
    RESET = 0x0A
    SET_MIDDLE = 0x0B
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


def packet(servo_id: int, code: int, parameters: bytes = b"") -> bytes:
    """A request (`code` an instruction) or a reply (`code` the error byte), framed."""
    body = bytes((servo_id, len(parameters) + 2, code)) + parameters
    return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))


class Answer(NamedTuple):
    """What goes back on the line."""

    data: bytes
    """Replies one after the other; empty if nobody answers."""
    wire_time_ns: int
    """From the first byte of the request to the last of the reply, on a line that nothing else delays."""


@dataclass(slots=True)
class BusCounters:
    """Totals since the start."""

    packets: int = 0
    replies: int = 0
    sync_reads: int = 0
    sync_writes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    checksum_errors: int = 0
    skipped_bytes: int = 0
    wrong_baud_bytes: int = 0
    bytes_dropped: int = 0
    bytes_corrupted: int = 0

    def as_dict(self) -> dict[str, int]:
        """For the status reply."""
        return asdict(self)


@dataclass(slots=True)
class LineFaults:
    """A bad cable. `rate`s are chances per byte; `next_` ones take so many bytes for certain, then end."""

    drop_rate: float = 0.0
    corrupt_rate: float = 0.0
    drop_next: int = 0
    corrupt_next: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 (noise, no secret)

    @property
    def active(self) -> bool:
        """Whether `apply` would do anything."""
        return bool(self.drop_rate or self.corrupt_rate or self.drop_next or self.corrupt_next)

    def clear(self) -> None:
        """A new cable."""
        self.drop_rate = self.corrupt_rate = 0.0
        self.drop_next = self.corrupt_next = 0

    def apply(self, data: bytes, counters: BusCounters) -> bytes:
        """What of `data` arrives."""
        kept = bytearray()
        for byte in data:
            if self.drop_next > 0 or self.rng.random() < self.drop_rate:
                self.drop_next -= self.drop_next > 0
                counters.bytes_dropped += 1
            elif self.corrupt_next > 0 or self.rng.random() < self.corrupt_rate:
                self.corrupt_next -= self.corrupt_next > 0
                counters.bytes_corrupted += 1
                kept.append(byte ^ (1 << self.rng.randrange(8)))
            else:
                kept.append(byte)
        return bytes(kept)


class _SyncRead(NamedTuple):
    address: int
    length: int
    servos: tuple[Sts3215, ...]
    return_delay_ns: int


_PLAIN: Final[Mapping[int, Callable[[Sts3215], None]]] = MappingProxyType(
    {
        Instruction.ACTION: Sts3215.action,
        Instruction.RESTORE: Sts3215.restore,
        Instruction.BACK_UP: Sts3215.back_up,
        Instruction.RESET: Sts3215.reset_turns,
    }
)
"""Instructions without parameters."""


class ServoBus:
    """Servos on one line. `feed` takes whatever bytes arrived; requests may be split or run together."""

    def __init__(self, servos: Iterable[Sts3215]) -> None:
        self.servos = tuple(servos)
        self.counters = BusCounters()
        self.faults = LineFaults()
        self.goal_writes_ns: deque[int] = deque(maxlen=_KEPT_WRITES)
        """When each sync write of goals came, newest last: what the arm really got."""
        self._silent: set[Sts3215] = set()
        self._baud = self.servos[0].baud_rate if self.servos else 0
        self._buffer = bytearray()
        self._plans: dict[bytes, _SyncRead] = {}
        self._by_id: dict[int, Sts3215] = {}
        self._connect()

    def set_baud_rate(self, baud_rate: int) -> None:
        """Speed at which the client's port sends, bits/s. A servo set to another one understands nothing."""
        if baud_rate != self._baud:
            self._baud = baud_rate
            self._connect()

    def silence(self, servo_id: int, *, on: bool) -> bool:
        """Cut one servo's data wire, or mend it. It keeps its power and its goal. False: no such servo."""
        found = [servo for servo in self.servos if servo.servo_id == servo_id]
        for servo in found:
            if on:
                self._silent.add(servo)
            else:
                self._silent.discard(servo)
        self._connect()
        return bool(found)

    def power_cycle(self) -> None:
        """The servos' supply goes off and on."""
        for servo in self.servos:
            servo.power_cycle()
        self._buffer.clear()
        self._connect()

    def mend(self) -> None:
        """End every fault on the line."""
        self._silent.clear()
        self.faults.clear()
        self._connect()

    def drop_partial_request(self) -> None:
        """The client went away in the middle of a packet."""
        self._buffer.clear()

    def feed(self, data: bytes, now_ns: int) -> Answer:
        """Take bytes of the client's, and answer.

        Args:
            data: as they arrived, in pieces of any size.
            now_ns: monotonic time, for a rebooting servo.
        """
        counters = self.counters
        counters.bytes_in += len(data)
        if not self._by_id:
            counters.wrong_baud_bytes += len(data)
            return Answer(b"", 0)
        if self.faults.active:
            data = self.faults.apply(data, counters)
        plan = self._plans.get(data) if not self._buffer else None
        if plan is not None:
            counters.packets += 1
            reply, delay_ns = self._sync_read(plan, now_ns)
        else:
            self._buffer += data
            reply, delay_ns = self._parse(now_ns)
        if self.faults.active:
            reply = self.faults.apply(reply, counters)
        counters.bytes_out += len(reply)
        wire_ns = (len(data) + len(reply)) * _BITS_PER_BYTE * 1_000_000_000 // self._baud
        return Answer(reply, wire_ns + delay_ns)

    def _connect(self) -> None:
        """Who hears the line now, by id. Two servos of one id would answer over each other: the last one is heard."""
        self._plans.clear()
        self._by_id = {
            servo.servo_id: servo
            for servo in self.servos
            if servo not in self._silent and servo.baud_rate == self._baud
        }

    def _parse(self, now_ns: int) -> tuple[bytes, int]:
        """Serve every complete packet in the buffer."""
        replies = bytearray()
        delay_ns = 0
        for request in self._requests():
            self.counters.packets += 1
            reply, pause_ns = self._serve(request, now_ns)
            replies += reply
            delay_ns += pause_ns
        return bytes(replies), delay_ns

    def _requests(self) -> Iterator[bytes]:
        """Cut whole packets out of the buffer; after anything wrong, look for the next header."""
        buffer, counters = self._buffer, self.counters
        while True:
            self._seek_header()
            if len(buffer) < 4:
                return
            length = buffer[3]
            if _MIN_LENGTH <= length <= _MAX_LENGTH:
                if len(buffer) < length + 4:
                    return
                if ~sum(buffer[2 : length + 3]) & 0xFF == buffer[length + 3]:
                    request = bytes(buffer[: length + 4])
                    del buffer[: length + 4]
                    yield request
                    continue
                counters.checksum_errors += 1
            counters.skipped_bytes += 2
            del buffer[:2]

    def _seek_header(self) -> None:
        """Drop what stands before the next FF FF; of a longer run of FF only the last two, since no id is 255."""
        buffer = self._buffer
        start = buffer.find(b"\xff\xff")
        if start < 0:
            start = len(buffer) - buffer.endswith(b"\xff")
        while buffer[start + 2 : start + 3] == b"\xff":
            start += 1
        self.counters.skipped_bytes += start
        del buffer[:start]

    def _serve(self, request: bytes, now_ns: int) -> tuple[bytes, int]:
        """One whole packet."""
        servo_id, code, parameters = request[2], request[4], request[5:-1]
        if code == Instruction.SYNC_READ and len(parameters) >= 2:
            return self._sync_read(self._plan(request), now_ns)
        if code == Instruction.SYNC_WRITE and len(parameters) >= 2:
            self._sync_write(parameters, now_ns)
        elif servo_id == BROADCAST_ID:
            return self._broadcast(code, parameters, now_ns)
        else:
            servo = self._by_id.get(servo_id)
            if servo is not None and now_ns >= servo.deaf_until_ns:
                return self._single(servo, code, parameters, now_ns)
        return b"", 0

    def _single(self, servo: Sts3215, code: int, parameters: bytes, now_ns: int) -> tuple[bytes, int]:
        if code == Instruction.READ and len(parameters) >= 2:
            return self._reply(servo, servo.read(parameters[0], parameters[1]))
        answers = servo.replies_to_writes or code == Instruction.PING
        if self._execute(servo, code, parameters, now_ns) and answers:
            return self._reply(servo)
        return b"", 0

    def _reply(self, servo: Sts3215, data: bytes = b"") -> tuple[bytes, int]:
        self.counters.replies += 1
        return packet(servo.servo_id, servo.status, data), servo.return_delay_ns

    def _broadcast(self, code: int, parameters: bytes, now_ns: int) -> tuple[bytes, int]:
        """Everybody obeys; only a ping is answered, by all in turn, lowest id first."""
        replies: list[bytes] = []
        delay_ns = 0
        for _, servo in sorted(self._by_id.items()):
            if now_ns < servo.deaf_until_ns or code == Instruction.READ:
                continue
            if self._execute(servo, code, parameters, now_ns) and code == Instruction.PING:
                reply, pause_ns = self._reply(servo)
                replies.append(reply)
                delay_ns += pause_ns
        return b"".join(replies), delay_ns

    def _execute(self, servo: Sts3215, code: int, parameters: bytes, now_ns: int) -> bool:
        """Everything but reading. False: the servo does not answer this."""
        if code in {Instruction.WRITE, Instruction.REG_WRITE}:
            if len(parameters) < 2:
                return False
            write = self._write if code == Instruction.WRITE else Sts3215.stage
            write(servo, parameters[0], parameters[1:])
            return True
        if code == Instruction.SET_MIDDLE:
            servo.set_middle(int.from_bytes(parameters[:2], "little") if len(parameters) >= 2 else CENTRE_TICK)
            return True
        if code == Instruction.REBOOT:
            servo.reboot(now_ns)
            self._connect()
            return False
        action = _PLAIN.get(code)
        if action is not None:
            action(servo)
            self._connect()
        return action is not None or code == Instruction.PING

    def _write(self, servo: Sts3215, address: int, data: bytes) -> None:
        servo.write(address, data)
        if address <= Address.RETURN_DELAY and address + len(data) > Address.ID:
            self._connect()  # id or speed may be new, and the delay is part of the plans

    def _sync_write(self, parameters: bytes, now_ns: int) -> None:
        if len(parameters) < 2:
            return
        self.counters.sync_writes += 1
        address, length = parameters[0], parameters[1]
        if address <= Address.GOAL_POSITION < address + length:
            self.goal_writes_ns.append(now_ns)
        for start in range(2, len(parameters) - length, length + 1):
            servo = self._by_id.get(parameters[start])
            if servo is not None and now_ns >= servo.deaf_until_ns:
                self._write(servo, address, parameters[start + 1 : start + 1 + length])

    def _plan(self, request: bytes) -> _SyncRead:
        """Who answers a sync read with what; remembered, since clients repeat it at 50 Hz and more."""
        address, length, ids = request[5], request[6], request[7:-1]
        servos = tuple(self._by_id[servo_id] for servo_id in ids if servo_id in self._by_id)
        plan = _SyncRead(address, length, servos, sum(servo.return_delay_ns for servo in servos))
        if len(self._plans) < _MAX_PLANS:
            self._plans[request] = plan
        return plan

    def _sync_read(self, plan: _SyncRead, now_ns: int) -> tuple[bytes, int]:
        self.counters.sync_reads += 1
        self.counters.replies += len(plan.servos)
        address, length = plan.address, plan.length
        reply = bytearray()
        for servo in plan.servos:
            if now_ns < servo.deaf_until_ns:
                continue
            data = servo.read(address, length)
            servo_id, status = servo.servo_id, servo.status
            reply += b"\xff\xff%c%c%c%b%c" % (
                servo_id,
                length + 2,
                status,
                data,
                ~(servo_id + length + 2 + status + sum(data)) & 0xFF,
            )
        return bytes(reply), plan.return_delay_ns
