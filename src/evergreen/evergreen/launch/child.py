"""One operating system process: started so that nothing survives the launcher, and ended with all that it started.

Each child leads a process group of its own. So a terminal's Ctrl-C reaches the launcher alone, which passes it on
once; and what a child leaves behind can be found and ended. The kernel sends the child SIGTERM when the thread that
started it dies (`PR_SET_PDEATHSIG`): that thread has to live as long as the child, as the supervisor's event loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, Protocol

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""
MAX_LINE_BYTES = 65536
"""A longer line is handed on in pieces: output without line ends must not fill the memory."""
READ_BYTES = 65536
DRAIN_S = 0.5
"""Time for output that is still in the pipes when the process has ended; more than reading them takes."""
SWEEP_S = 2.0
"""Time for a dead process's own children to end after SIGTERM."""
KILL_S = 1.0
"""Time for them to vanish after SIGKILL; who is left then may not be killed by us."""
SWEEP_POLL_S = 0.05

_libc = ctypes.CDLL(None, use_errno=True)

Stream = Literal["stdout", "stderr"]


class LineSink(Protocol):
    """Takes one line of one stream."""

    def __call__(self, stream: Stream, line: str) -> None:
        """Take the line; without its end."""


def _prepare(launcher: int) -> Callable[[], None]:
    """What runs in the child between fork and exec: prebound, so that nothing is imported or looked up there."""
    prctl, term, getppid = _libc.prctl, int(signal.SIGTERM), os.getppid
    reset = [(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)]

    def prepare() -> None:
        # A background process of a script inherits an ignored SIGINT; with it, Ctrl-C would do nothing.
        for number, action in reset:
            signal.signal(number, action)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        prctl(PR_SET_PDEATHSIG, term, 0, 0, 0)
        if getppid() != launcher:  # it died before prctl
            os._exit(128 + term)

    return prepare


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes; return the lines that they complete."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest
        return [line.rstrip(b"\r").decode(errors="replace") for line in lines]

    def end(self) -> list[str]:
        """Return what the last line end left over."""
        rest, self._rest = self._rest, b""
        return [rest.decode(errors="replace")] if rest else []


class Child:
    """A running process. Make it in the event loop's thread."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: str | None, on_line: LineSink
    ) -> None:
        """Start it.

        Raises:
            OSError: the program or the working directory is missing, or the system refuses.
        """
        self._loop = asyncio.get_running_loop()
        self._popen = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PYTHONUNBUFFERED": "1", **environment},
            cwd=cwd,
            process_group=0,
            preexec_fn=_prepare(os.getpid()),  # noqa: PLW1509  it takes no locks and imports nothing
        )
        self.pid = self._popen.pid
        self._dead: asyncio.Future[None] = self._loop.create_future()
        self._readers = [
            self._loop.create_task(self._read("stdout", self._popen.stdout, on_line)),
            self._loop.create_task(self._read("stderr", self._popen.stderr, on_line)),
        ]
        threading.Thread(target=self._watch, name=f"watch-{self.pid}", daemon=True).start()

    def _watch(self) -> None:
        """Wait for its end without reaping it: until then neither its id nor its group's can be given anew."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            self._loop.call_soon_threadsafe(self._on_death)

    def _on_death(self) -> None:
        if not self._dead.done():
            self._dead.set_result(None)

    async def _read(self, stream: Stream, pipe: IO[bytes] | None, on_line: LineSink) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        lines = Lines()
        try:
            while data := await reader.read(READ_BYTES):
                for line in lines.feed(data):
                    on_line(stream, line)
        finally:
            for line in lines.end():
                on_line(stream, line)
            transport.close()

    async def dead(self) -> None:
        """Return when the process has ended; it can still be waited for, and its output may not be all read."""
        await asyncio.shield(self._dead)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; SIGKILL goes to its whole group.

        Raises:
            OSError: it may not be signalled, because it runs as another user.
        """
        if self._dead.done():
            return
        if number is signal.SIGKILL:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)

    def leftovers(self) -> tuple[int, ...]:
        """Living members of its group other than itself."""
        return tuple(pid for pid in group_members(self.pid) if pid != self.pid)

    async def sweep(self) -> tuple[int, ...]:
        """End what a dead process left in its group: SIGTERM, and after SWEEP_S SIGKILL. Return who is left even so."""
        for number, patience_s in ((signal.SIGTERM, SWEEP_S), (signal.SIGKILL, KILL_S)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            deadline_s = self._loop.time() + patience_s
            while self.leftovers() and self._loop.time() < deadline_s:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(SWEEP_POLL_S)
        return self.leftovers()

    async def abandon(self) -> None:
        """Stop reading its output; it goes on without us."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def collect(self) -> int:
        """Read the rest of its output, reap it, and return its exit code, or minus the signal that killed it."""
        await asyncio.wait(self._readers, timeout=DRAIN_S)
        for task in self._readers:
            task.cancel()
        results = await asyncio.gather(*self._readers, return_exceptions=True)
        code = self._popen.wait()
        for result in results:
            if isinstance(result, Exception):
                raise result
        return code


def group_members(group: int) -> tuple[int, ...]:
    """Ids of the living processes in a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # pid (name) state ppid pgrp …: the name may hold spaces and brackets
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it just ended
        if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
            members.append(int(entry.name))
    return tuple(members)
