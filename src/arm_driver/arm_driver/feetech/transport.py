"""Byte streams to the servo bus, behind one small interface.

A device or `socket://` address is driven by its file descriptor (`FdPort`: one system call to send, two to receive);
`rfc2217://` and the other addresses that pyserial knows go through pyserial (`StreamPort`). Both raise PortLostError
only.

A packet is handed to the kernel in one call, and `close` waits until the last byte is on the wire: the bus is never
left in mid-packet when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import termios
import time
from pathlib import Path
from typing import Protocol

import serial

from arm_driver.errors import PortAbsentError, PortLostError, PortUnavailableError

_CHUNK_BYTES = 4096
"""More than any reply: what is in the buffer beyond the reply is noticed, not left for the next one."""
_SEND_TIMEOUT_S = 0.5
"""A packet takes at most 3 ms at 1 Mbaud; a port that accepts nothing for this long is gone."""


_SLICE_S = 0.005
"""Timeout of pyserial's own reads, set once: assigning it to an open RFC 2217 port makes pyserial negotiate all
settings with the far end again, which sleeps 50 ms and more. The deadlines are kept here, to one slice."""


class Port(Protocol):
    """An open byte stream. Not thread-safe: one owner."""

    def send(self, packet: bytes) -> None:
        """Write all of it. Raises PortLostError."""

    def receive(self, size: int, timeout_s: float) -> bytes:
        """Read until `size` bytes are there or the time is over; may return fewer or more. Raises PortLostError."""

    def discard(self, quiet_s: float = 0.0) -> int:
        """Drop what has arrived until nothing came for `quiet_s`; returns how many bytes. Raises PortLostError."""

    def close(self) -> None:
        """Let the last byte out and close; never raises."""


class FdPort:
    """A port with a file descriptor: serial device, pty or TCP socket."""

    def __init__(self, handle: serial.Serial, url: str) -> None:
        self._handle = handle
        self._url = url
        self._fd: int = handle.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def send(self, packet: bytes) -> None:
        """Write all of it, normally in one system call."""
        try:
            sent = os.write(self._fd, packet)
            if sent != len(packet):
                self._send_rest(packet[sent:])
        except BlockingIOError:
            self._send_rest(packet)
        except OSError as error:
            raise self._lost(error) from error

    def _send_rest(self, rest: bytes) -> None:
        """Finish a packet that the kernel took only partly: half a packet would garble the next."""
        deadline_s = time.monotonic() + _SEND_TIMEOUT_S
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        try:
            while rest:
                if time.monotonic() > deadline_s:
                    raise PortLostError(f"serial port {self._url} accepts no bytes; plug the adapter in again")
                if writable.poll(_SEND_TIMEOUT_S * 1e3):
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise self._lost(error) from error

    def receive(self, size: int, timeout_s: float) -> bytes:
        """Read until `size` bytes are there or the time is over."""
        data = b""
        deadline_s = time.monotonic() + timeout_s
        try:
            while self._poll.poll(max(0.0, timeout_s) * 1e3):
                chunk = os.read(self._fd, _CHUNK_BYTES)
                if not chunk:
                    raise self._lost(OSError(errno.ENODEV, "end of stream"))
                data = data + chunk if data else chunk
                if len(data) >= size:
                    break
                timeout_s = deadline_s - time.monotonic()
                if timeout_s <= 0:
                    break
        except BlockingIOError:
            pass  # a spurious wake-up: the caller sees too few bytes and asks again
        except OSError as error:
            raise self._lost(error) from error
        return data

    def discard(self, quiet_s: float = 0.0) -> int:
        """Throw away what has arrived."""
        dropped = 0
        try:
            while self._poll.poll(quiet_s * 1e3):
                chunk = os.read(self._fd, _CHUNK_BYTES)
                if not chunk:
                    raise self._lost(OSError(errno.ENODEV, "end of stream"))
                dropped += len(chunk)
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._lost(error) from error
        return dropped

    def close(self) -> None:
        """Let the last byte out and close."""
        with contextlib.suppress(OSError, termios.error):  # not a terminal, or already gone
            termios.tcdrain(self._fd)
        with contextlib.suppress(OSError, termios.error):
            self._handle.close()

    def _lost(self, error: OSError) -> PortLostError:
        return PortLostError(f"serial port {self._url} went away ({error.strerror}); plug it in again")


class StreamPort:
    """A port that only pyserial can drive, such as `rfc2217://`; opened with `_SLICE_S` as its timeout."""

    def __init__(self, handle: serial.Serial, url: str) -> None:
        self._handle = handle
        self._url = url

    def send(self, packet: bytes) -> None:
        """Write all of it, normally in one system call."""
        try:
            self._handle.write(packet)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def receive(self, size: int, timeout_s: float) -> bytes:
        """Read until `size` bytes are there or the time is over."""
        data = b""
        deadline_s = time.monotonic() + timeout_s
        try:
            while len(data) < size:
                data += self._handle.read(size - len(data))
                if time.monotonic() >= deadline_s:
                    break
            return bytes(data + self._handle.read(waiting) if (waiting := self._handle.in_waiting) else data)
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def discard(self, quiet_s: float = 0.0) -> int:
        """Throw away what has arrived."""
        dropped = 0
        quiet_from_s = time.monotonic()
        try:
            while (waiting := self._handle.in_waiting) or time.monotonic() - quiet_from_s < quiet_s:
                if chunk := self._handle.read(max(1, waiting)):
                    dropped += len(chunk)
                    quiet_from_s = time.monotonic()
        except (OSError, ValueError) as error:
            raise self._lost(error) from error
        return dropped

    def close(self) -> None:
        """Let the last byte out and close."""
        with contextlib.suppress(OSError, ValueError):
            self._handle.flush()
        with contextlib.suppress(OSError, ValueError):
            self._handle.close()

    def _lost(self, error: Exception) -> PortLostError:
        return PortLostError(f"serial port {self._url} went away ({error}); check the far end and the network")


def open_port(url: str, baud: int) -> Port:
    """Open a device path or any address that `serial.serial_for_url` knows.

    Raises:
        PortUnavailableError: names the parameter `port`, what is wrong with it, and the cure.
    """
    is_device = "://" not in url
    has_descriptor = is_device or url.startswith("socket://")
    try:
        # Only a device can be locked; without the lock two drivers would answer each other's servos.
        if is_device:
            handle = serial.serial_for_url(url, baudrate=baud, timeout=0, exclusive=True)
        else:
            handle = serial.serial_for_url(url, baudrate=baud, timeout=0 if has_descriptor else _SLICE_S)
    except (OSError, ValueError, termios.error) as error:
        kind = PortAbsentError if getattr(error, "errno", None) == errno.ENOENT else PortUnavailableError
        raise kind(_why_unavailable(url, baud, error)) from error
    if is_device:
        # FTDI adapters would batch replies for 16 ms; others refuse the request or do not know it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            handle.set_low_latency_mode(True)
    elif not has_descriptor:
        return StreamPort(handle, url)
    else:
        _disable_nagle(handle.fileno())
    return FdPort(handle, url)


def _disable_nagle(fd: int) -> None:
    """A sync write has no reply; with Nagle's algorithm the request behind it would wait 40 ms for an ACK."""
    with socket.socket(fileno=os.dup(fd)) as duplicate:
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _why_unavailable(url: str, baud: int, error: Exception) -> str:
    code = getattr(error, "errno", None)
    prefix = f"parameter port: {url!r}"
    listing = "`python -m arm_driver.ports` lists the ports of this machine"
    if code == errno.ENOENT:
        return f"{prefix} does not exist; plug the adapter in or set `port` ({listing})"
    if code in (errno.EACCES, errno.EPERM):
        return (
            f"{prefix} may not be opened by this user; add the user to group dialout and log in again, or install the"
            " udev rule of docs/arm_driver.md"
        )
    if code in (errno.EAGAIN, errno.EBUSY):
        users = holders(url)
        who = f"process {', '.join(users)}" if users else "another process"
        return f"{prefix} is in use by {who}; stop it or choose another `port`"
    # pyserial wraps the refusal to set a speed without passing its number on.
    if code in (errno.ENOTTY, errno.EISDIR, errno.EINVAL) or isinstance(error.__context__, termios.error):
        return f"{prefix} is no serial port; set `port` to one ({listing})"
    return f"{prefix} cannot be opened at {baud} baud: {error}; {listing}"


def holders(path: str) -> tuple[str, ...]:
    """Processes that hold a device open, as "pid (name)"; those of other users stay invisible without privileges."""
    target = os.path.realpath(path)
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and any(
                os.path.realpath(link) == target for link in (process / "fd").iterdir()
            ):
                found.append(f"{process.name} ({(process / 'comm').read_text().strip()})")
    return tuple(found)
