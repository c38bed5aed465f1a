"""Episodes of a recording: begun, kept, discarded, and cut short by a full disk. No ROS; one thread writes.

Files are `episode-0000.mcap` and so on; numbers go on where a folder has some. A discarded episode's file is removed.
What tells the state of things, such as the prompt, is repeated at the beginning of every file.
"""

from __future__ import annotations

import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from evergreen.recording.episode_file import EpisodeFile
from evergreen.recording.sink import Store
from vla_core.errors import ConfigError, EvergreenError

SYNC_PERIOD_S = 1.0
"""What a power cut costs; a kill costs no more either."""
KEEP_FREE_BYTES = 100_000_000
"""Recording ends when less is left: a root file system that is full takes the robot's other processes down."""
QUEUE_BYTES = 64_000_000
"""Messages may wait for a slow disk up to this; then new ones are dropped and counted."""
_ALIVE_S = 1.0
NOTHING = "no episode is being recorded"
_NAME = re.compile(r"episode-(\d+)\.mcap")


class RecordingError(EvergreenError):
    """The recording ended by itself; the message says why, and what is saved."""


class State(StrEnum):
    """What happens to messages."""

    RECORDING = "recording"
    WAITING = "waiting"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: `topic` below the robot's namespace, `data` in CDR; times are system ns."""

    topic: str
    datatype: str
    data: bytes
    log_ns: int
    publish_ns: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the recording is, for showing.

    Attributes:
        kept: episodes that are whole.
        messages, size: of the present episode.
        dropped: messages that a slow disk cost, since the start.
        free: bytes on the disk.
        failure: why it ended by itself, or "".
    """

    state: State
    kept: int
    number: int
    messages: int
    size: int
    dropped: int
    free: int
    failure: str


class Recorder:
    """Thread-safe; a thread of its own writes. `lasting` are topics whose last message each file begins with."""

    def __init__(
        self,
        folder: Path,
        define: Callable[[str], str],
        lasting: Callable[[str], bool],
        *,
        namespace: str = "",
        keep_free: int = KEEP_FREE_BYTES,
        system: Store | None = None,
        free: Callable[[Path], int] | None = None,
    ) -> None:
        """Use `folder`, which is made if need be.

        Raises:
            ConfigError: it cannot be written, or the disk is full already.
        """
        self._folder = folder
        self._define = define
        self._lasting = lasting
        self._prefix = "".join(f"{part}/" for part in ("", *filter(None, namespace.split("/"))))
        self._keep_free = keep_free
        self._system = system
        self._free = free or _free
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._next = 1 + max((int(found[1]) for found in map(_named, folder.iterdir()) if found), default=-1)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be used for recordings: {error.strerror}") from error
        if self._free(folder) < keep_free:
            raise ConfigError(
                f"{folder}: only {self._free(folder) / 1e6:.0f} MB are free on this disk, and {keep_free / 1e6:.0f} MB"
                " are to stay free; make room or name another --out"
            )
        self.kept: list[Path] = []
        self._state = State.WAITING
        self._failure = ""
        self._dropped = 0
        self._waiting_bytes = 0
        self._last: dict[str, Message] = {}
        self._file: EpisodeFile | None = None
        self._queue: queue.SimpleQueue[Message | Callable[[], str | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="recorder", daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """See `Progress`."""
        file = self._file
        return Progress(
            self._state,
            len(self.kept),
            self._next,
            file.messages if file else 0,
            file.size if file else 0,
            self._dropped,
            self._free(self._folder),
            self._failure,
        )

    def message(self, message: Message) -> None:
        """Take a message that has arrived."""
        if self._waiting_bytes > QUEUE_BYTES:
            self._dropped += 1
            return
        self._waiting_bytes += len(message.data)
        self._queue.put(message)

    def start(self) -> str:
        """Begin an episode; returns a sentence about what happened."""
        return self._call(self._start)

    def keep(self) -> str:
        """End the present episode and keep it."""
        return self._call(self._keep)

    def discard(self) -> str:
        """Remove the present episode."""
        return self._call(self._discard)

    def close(self) -> None:
        """Keep the present episode, and end."""
        if self._thread.is_alive():
            self._call(self._keep)
            self._queue.put(lambda: None)
            self._thread.join()

    def _call(self, action: Callable[[], str]) -> str:
        """Let the writing thread do it, after all messages that came before, and wait."""
        answer: queue.SimpleQueue[str] = queue.SimpleQueue()

        def run() -> str:
            try:
                sentence = action()
            except (OSError, EvergreenError) as error:
                self._fail(error)
                sentence = self._failure
            answer.put(sentence)
            return sentence

        self._queue.put(run)
        while self._thread.is_alive():
            with suppress(queue.Empty):
                return answer.get(timeout=_ALIVE_S)
        return self._failure or "the recorder has ended"

    def _main(self) -> None:
        sync_s = time.monotonic()
        while True:
            try:
                item = self._queue.get(timeout=SYNC_PERIOD_S)
            except queue.Empty:
                item = None
            try:
                if isinstance(item, Message):
                    self._waiting_bytes -= len(item.data)
                    self._take(item)
                elif item is not None and item() is None:
                    return
                if time.monotonic() - sync_s >= SYNC_PERIOD_S:
                    sync_s = time.monotonic()
                    self._sync()
            except (OSError, EvergreenError) as error:
                self._fail(error)

    def _take(self, message: Message) -> None:
        if self._lasting(message.topic):
            self._last[message.topic] = message
        if self._file is not None:
            self._add(message)

    def _add(self, message: Message) -> None:
        if self._file is not None:
            self._file.add(
                self._prefix + message.topic, message.datatype, message.data, message.log_ns, message.publish_ns
            )

    def _sync(self) -> None:
        if self._file is None:
            return
        self._file.sync()
        free = self._free(self._folder)
        if free < self._keep_free:
            file = self._end_file()
            file.finish()
            cut = file.path.with_suffix(".cut.mcap")
            file.path.rename(cut)
            self._next += 1
            self._ended(
                f"the disk is nearly full ({free / 1e6:.0f} MB are left): recording ended. {self._saved()}"
                f" {cut.name} was cut short: it is readable, and ends early"
            )

    def _start(self) -> str:
        if self._state is State.ENDED:
            return self._failure
        if self._file is not None:
            return f"episode {self._next} is being recorded already"
        self._file = EpisodeFile(self._folder / f"episode-{self._next:04d}.mcap", self._define, self._system)
        self._state = State.RECORDING
        for message in sorted(self._last.values(), key=lambda each: each.log_ns):
            self._add(message)
        self._file.sync()
        return f"episode {self._next}: recording"

    def _keep(self) -> str:
        if self._file is None:
            return self._failure or NOTHING
        if not self._file.messages:
            self._discard()
            return "nothing was heard, so nothing is kept"
        file = self._end_file()
        file.finish()
        self.kept.append(file.path)
        self._next += 1
        return f"kept {file.path.name}: {file.messages} messages, {file.size / 1e6:.1f} MB"

    def _discard(self) -> str:
        if self._file is None:
            return self._failure or NOTHING
        file = self._end_file()
        file.abandon()
        file.path.unlink()
        return f"discarded {file.path.name}"

    def _end_file(self) -> EpisodeFile:
        if self._file is None:
            raise RecordingError(NOTHING)
        file, self._file = self._file, None
        self._state = State.WAITING
        return file

    def _fail(self, error: OSError | EvergreenError) -> None:
        """Whatever the trouble is, recording is over; the records before it are whole."""
        file, self._file = self._file, None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        text = f"{self._folder} cannot be written ({reason}): recording ended. {self._saved()}"
        if file is not None:
            file.abandon()
            text += f" {file.path.name} was cut short: it is readable up to there"
            self._next += 1
        self._ended(text)

    def _ended(self, failure: str) -> None:
        self._failure = failure
        self._state = State.ENDED  # last: who sees it may read the reason

    def _saved(self) -> str:
        return f"{len(self.kept)} episodes are saved and whole."


def _named(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name.replace(".cut", ""))


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
