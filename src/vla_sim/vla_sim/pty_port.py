"""A pseudo terminal that looks like a USB serial adapter: a stable link to a device that can be pulled out.

`PtyPort` owns the pty, the link and the claim to the link's name; `BusThread` serves a `ServoBus` on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from vla_core.errors import ConfigError
from vla_sim.realtime import HARDWARE_NICENESS, set_niceness
from vla_sim.servo_bus import ServoBus

_TCGETS2: Final = 0x802C542A  # asm-generic/ioctls.h; the same on x86-64 and arm64
_TERMIOS2: Final = struct.Struct("@4IB19B2I")
_READ_BYTES: Final = 4096


class PtyPort:
    """One pty at a time behind the link `link`.

    The name is claimed with a lock on `<link>.lock`, which the kernel drops with the process: a link left by a dead
    simulator is replaced, that of a living one is not.
    """

    def __init__(self, link: Path) -> None:
        """Claim `link`; nothing is plugged in yet.

        Raises:
            ConfigError: another simulator has it, it is something else than a link, or its folder is missing.
        """
        self.link = link
        self.device: str | None = None
        self._master: int | None = None
        self._slave: int | None = None
        self._lock_path = link.with_name(link.name + ".lock")
        self._lock = _claim(self._lock_path, link)
        if link.exists() and not link.is_symlink():
            self.close()
            raise ConfigError(f"--port-link {link} exists and is no symbolic link; choose another path")

    def plug(self) -> None:
        """Make a new pty and let the link point to it."""
        if self._master is not None:
            return
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        # Our own hold on the slave keeps its settings between clients and the master free of hang-ups.
        self._master, self._slave = master, slave
        self.device = os.ttyname(slave)
        fresh = self.link.with_name(self.link.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.device)
        fresh.replace(self.link)

    def unplug(self) -> None:
        """Remove the link and hang up: clients get EIO."""
        if self._master is None or self._slave is None:
            return
        self.link.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = self.device = None

    def close(self) -> None:
        """Unplug, and give the name up."""
        self.unplug()
        if self._lock >= 0:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    @property
    def master(self) -> int | None:
        """File descriptor on the servos' side; None while unplugged."""
        return self._master

    def baud_rate(self) -> int:
        """Output speed that the client set, bits/s (38,400 until somebody sets one)."""
        if self._master is None:
            return 0
        raw = fcntl.ioctl(self._master, _TCGETS2, bytes(_TERMIOS2.size))
        return int(_TERMIOS2.unpack(raw)[-1])

    def read(self) -> bytes:
        """What has arrived; empty if nothing has."""
        if self._master is None:
            return b""
        try:
            return os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> int:
        """Bytes taken; a client that never reads loses the rest, as behind a real adapter."""
        if self._master is None:
            return 0
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0


def _claim(lock_path: Path, link: Path) -> int:
    """An exclusive lock on `lock_path`; the open descriptor."""
    while True:
        try:
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"--port-link {link}: {error.strerror}; choose a path in a writable folder") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            message = f"another simulator has the serial port {link}; stop it, or choose another --port-link"
            raise ConfigError(message) from None
        # The owner before us may have deleted the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(lock_path).st_ino == os.fstat(lock).st_ino:  # noqa: PTH116 (both sides alike)
                return lock
        os.close(lock)


class BusThread:
    """Serves the bus on the port: waits in `select`, answers each request with one write.

    `lock` guards the servos against the physics. With `wire_timing` a reply waits until it would have crossed a real
    line; the wait is a timeout of `select`, so it is as coarse as the kernel's timers (about 0.1 ms).
    """

    def __init__(self, port: PtyPort, bus: ServoBus, lock: threading.Lock, *, wire_timing: bool) -> None:
        self._port = port
        self._bus = bus
        self._lock = lock
        self._wire_timing = wire_timing
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._due: deque[tuple[int, bytes]] = deque()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="servo bus", daemon=True)
        self.cpu_s = 0.0
        """CPU time of this thread so far."""
        self.lost_bytes = 0
        """Reply bytes that a client did not fetch in time."""

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the port stays as it is."""
        self._running = False
        self._wake()
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def unplug(self) -> Future[None]:
        """Pull the adapter out."""
        return self._do(self._pull)

    def replug(self) -> Future[None]:
        """Put it back, on a new device."""
        return self._do(self._port.plug)

    def _pull(self) -> None:
        self._port.unplug()
        self._due.clear()
        self._bus.drop_partial_request()

    def _do(self, action: Callable[[], None]) -> Future[None]:
        done: Future[None] = Future()
        self._commands.append((action, done))
        self._wake()
        return done

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        set_niceness(HARDWARE_NICENESS)
        while self._running:
            self._serve_once()
            self.cpu_s = time.thread_time()

    def _serve_once(self) -> None:
        master = self._port.master
        inputs = [self._wake_read] if master is None else [master, self._wake_read]
        ready, _, _ = select.select(inputs, (), (), self._wait_s())
        if self._wake_read in ready:
            self._run_commands()
        elif ready:
            self._answer()
        self._send_due()

    def _wait_s(self) -> float | None:
        if not self._due:
            return None
        return max(0.0, (self._due[0][0] - time.monotonic_ns()) * 1e-9)

    def _run_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, _READ_BYTES)
        while self._commands:
            action, done = self._commands.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                action()
            except OSError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _answer(self) -> None:
        data = self._port.read()
        now_ns = time.monotonic_ns()
        baud_rate = self._port.baud_rate()
        with self._lock:
            self._bus.set_baud_rate(baud_rate)
            answer = self._bus.feed(data, now_ns)
        if not answer.data:
            return
        if self._wire_timing:
            self._due.append((now_ns + answer.wire_time_ns, answer.data))
        else:
            self._send(answer.data)

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic_ns():
            self._send(self._due.popleft()[1])

    def _send(self, data: bytes) -> None:
        self.lost_bytes += len(data) - self._port.write(data)
