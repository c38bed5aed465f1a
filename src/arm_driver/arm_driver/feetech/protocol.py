"""Packets of the Feetech servo bus, protocol 0 (STS and SMS series). Pure: bytes in, bytes out.

An instruction packet is ``FF FF id length instruction parameters... checksum``, a status packet is
``FF FF id length error data... checksum``, where `length` counts everything behind itself and `checksum` is the
inverted low byte of the sum from `id` on. Two-byte values travel low byte first.

Source: Feetech "Communication Protocol Manual" for magnetic-encoder servos (STS/SMS), sections 1 to 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

HEADER = b"\xff\xff"
BROADCAST_ID = 0xFE
MAX_ID = 0xFD
OVERHEAD_BYTES = 6
"""Header, id, length, error or instruction, checksum."""
MAX_DATA_BYTES = 0xFF - 2
"""The length byte counts two more than the data."""
_MAX_PARAMETERS = 0xFF - 2


class Instruction(IntEnum):
    """What an instruction packet asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class ServoError(IntFlag):
    """Bits of a status packet's error byte (and of register 65)."""

    VOLTAGE = 0x01
    ANGLE = 0x02
    OVERHEAT = 0x04
    OVERCURRENT = 0x08
    OVERLOAD = 0x20


_ERROR_TEXT = {
    ServoError.VOLTAGE: "supply voltage out of range",
    ServoError.ANGLE: "angle sensor fault",
    ServoError.OVERHEAT: "too hot",
    ServoError.OVERCURRENT: "too much current",
    ServoError.OVERLOAD: "overloaded",
}


def error_names(bits: int) -> tuple[str, ...]:
    """Plain words for an error byte; bits without a name appear in hex."""
    names = [text for bit, text in _ERROR_TEXT.items() if bits & bit]
    unknown = bits & ~sum(_ERROR_TEXT)
    return (*names, f"unknown error {unknown:#04x}") if unknown else tuple(names)


@dataclass(frozen=True, slots=True)
class Status:
    """One reply of one servo."""

    servo_id: int
    error: int
    data: bytes


def checksum(body: bytes) -> int:
    """Checksum of everything between header and checksum."""
    return ~sum(body) & 0xFF


def instruction(servo_id: int, code: Instruction, parameters: bytes = b"") -> bytes:
    """Any instruction packet.

    Raises:
        ValueError: the id is above 254 or the parameters do not fit into one packet.
    """
    if not 0 <= servo_id <= BROADCAST_ID:
        raise ValueError(f"servo id must be in 0..{BROADCAST_ID}, not {servo_id}")
    if len(parameters) > _MAX_PARAMETERS:
        raise ValueError(f"{len(parameters)} bytes of parameters do not fit into one packet of {_MAX_PARAMETERS}")
    body = bytes((servo_id, len(parameters) + 2, code)) + parameters
    return HEADER + body + bytes((checksum(body),))


def ping(servo_id: int) -> bytes:
    """Ask one servo whether it is there."""
    return instruction(servo_id, Instruction.PING)


def read(servo_id: int, address: int, length: int) -> bytes:
    """Ask one servo for `length` bytes from `address` on."""
    return instruction(servo_id, Instruction.READ, bytes((address, length)))


def write(servo_id: int, address: int, data: bytes) -> bytes:
    """Write registers of one servo, at once."""
    return instruction(servo_id, Instruction.WRITE, bytes((address,)) + data)


def reg_write(servo_id: int, address: int, data: bytes) -> bytes:
    """Write registers of one servo when the next `action` packet comes."""
    return instruction(servo_id, Instruction.REG_WRITE, bytes((address,)) + data)


def action(servo_id: int = BROADCAST_ID) -> bytes:
    """Carry out what `reg_write` prepared."""
    return instruction(servo_id, Instruction.ACTION)


def sync_read(address: int, length: int, ids: Sequence[int]) -> bytes:
    """Ask several servos for the same registers; each answers with a packet of its own, in the order of `ids`."""
    return instruction(BROADCAST_ID, Instruction.SYNC_READ, bytes((address, length, *_distinct(ids))))


def sync_write(address: int, ids: Sequence[int], data: Sequence[bytes]) -> bytes:
    """Write the same registers of several servos, `data[k]` to `ids[k]`; nobody answers.

    Raises:
        ValueError: ids repeat, or the data differ in number or length.
    """
    lengths = {len(block) for block in data}
    if len(data) != len(ids) or len(lengths) != 1:
        raise ValueError(f"sync write needs one block of one length for each of {len(ids)} servos")
    blocks = b"".join(bytes((servo_id,)) + block for servo_id, block in zip(_distinct(ids), data, strict=True))
    return instruction(BROADCAST_ID, Instruction.SYNC_WRITE, bytes((address, lengths.pop())) + blocks)


def status(servo_id: int, error: int = 0, data: bytes = b"") -> bytes:
    """A status packet, as a servo sends it."""
    body = bytes((servo_id, len(data) + 2, error)) + data
    return HEADER + body + bytes((checksum(body),))


def _distinct(ids: Sequence[int]) -> Sequence[int]:
    if not ids or len(set(ids)) != len(ids) or not all(0 <= servo_id <= MAX_ID for servo_id in ids):
        raise ValueError(f"servo ids must be distinct and in 0..{MAX_ID}, not {list(ids)}")
    return ids


class Decoder:
    """Finds status packets in a stream that may hold noise, torn packets and packets with broken checksums.

    Attributes:
        skipped: bytes thrown away so far while looking for a packet.
        corrupt: packets thrown away so far because their checksum was wrong.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped = 0
        self.corrupt = 0

    def feed(self, data: bytes) -> list[Status]:
        """Add bytes and return the packets that are now complete."""
        self._buffer += data
        found: list[Status] = []
        while self._align():
            end = self._buffer[3] + 4
            if len(self._buffer) < end:
                break
            packet = bytes(self._buffer[:end])
            if sum(packet[2:]) & 0xFF == 0xFF:
                found.append(Status(packet[2], packet[4], packet[5:-1]))
                del self._buffer[:end]
            else:
                self.corrupt += 1
                self._skip(1)
        return found

    def clear(self) -> int:
        """Forget what is buffered; returns how many bytes that were."""
        dropped = len(self._buffer)
        self._buffer.clear()
        return dropped

    def _align(self) -> bool:
        """Drop bytes until the buffer begins with a plausible packet; False when more bytes are needed to tell."""
        while True:
            start = self._buffer.find(HEADER)
            if start < 0:
                self._skip(len(self._buffer) - (1 if self._buffer.endswith(HEADER[:1]) else 0))
                return False
            self._skip(start)
            if len(self._buffer) < 4:
                return False
            if self._buffer[2] <= MAX_ID and self._buffer[3] >= 2:
                return True
            self._skip(1)

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self.skipped += count
