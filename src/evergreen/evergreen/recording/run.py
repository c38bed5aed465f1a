"""`evergreen record` without --expert: wires node, recorder, keys and screen together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from evergreen.launch.packages import with_workspace
from evergreen.recording import definitions, keys
from evergreen.recording.keys import Key
from evergreen.recording.recorder import Message, Recorder, RecordingError, State
from evergreen.recording.screen import Screen
from evergreen.recording.topics import JOINT_STATES, LASTING, TRAJECTORY, Topics, camera_of, camera_topic
from evergreen.recording.watch import Watch

TICK_S = 0.1
PATIENCE_S = 5.0
"""A graph that runs is discovered within a second or two."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to record.

    Attributes:
        out: folder of the episodes.
        cameras: their names; none means all that there are.
        duration_s: of one episode; None until somebody ends it.
        reset_s: from the end of an episode to the beginning of the next; None until somebody begins it.
        episodes: end after so many kept ones; None for no limit.
        wait: begin with the first key or service call, not at once.
        keep_free_bytes: end when the disk has less.
        namespace: of the robot.
    """

    out: Path
    cameras: tuple[str, ...] = ()
    duration_s: float | None = None
    reset_s: float | None = None
    episodes: int | None = None
    wait: bool = False
    keep_free_bytes: int = 100_000_000
    namespace: str = ""
    json: bool = False


@dataclass(slots=True)
class _Session:
    """One run. Asked by keys, services, time and signals; all in the main thread but the services."""

    options: Options
    recorder: Recorder
    screen: Screen
    ended: threading.Event
    watch: Watch = field(default_factory=Watch)
    began_s: float = 0.0
    over_s: float = 0.0

    def take(self, message: Message) -> None:
        """From the executor's thread."""
        self.watch.heard(message.topic, time.monotonic())
        self.recorder.message(message)

    def start(self) -> tuple[bool, str]:
        sentence = self.recorder.start()
        self.began_s = time.monotonic()
        return self._said(sentence, lambda: self.recorder.progress.state is State.RECORDING)

    def keep(self) -> tuple[bool, str]:
        before = len(self.recorder.kept)
        answer = self._said(self.recorder.keep(), lambda: len(self.recorder.kept) > before)
        self.over_s = time.monotonic()
        if self.options.episodes is not None and len(self.recorder.kept) >= self.options.episodes:
            self.ended.set()
        return answer

    def discard(self) -> tuple[bool, str]:
        self.over_s = time.monotonic()
        was = self.recorder.progress.state
        return self._said(self.recorder.discard(), lambda: was is State.RECORDING)

    def end(self) -> tuple[bool, str]:
        self.ended.set()
        return True, "ending"

    def press(self, key: Key | None) -> None:
        """Do what a key asks for."""
        recording = self.recorder.progress.state is State.RECORDING
        if key is Key.END:
            self.end()
        elif key is Key.NEXT and recording:
            self.keep()
        elif key is Key.NEXT or (key is Key.DISCARD and not recording):
            self.start()
        elif key is Key.DISCARD:
            self.discard()

    def tick(self) -> None:
        """Look at the time and at what came."""
        now_s = time.monotonic()
        steady = frozenset(name for name in list(self.watch.topics) if camera_of(name) or name == JOINT_STATES)
        for sentence in self.watch.check(now_s, steady):
            self.screen.say(f"warning: {sentence}")
        progress = self.recorder.progress
        if progress.state is State.ENDED:
            self.ended.set()
        limit_s = self.options.duration_s
        if progress.state is State.RECORDING and limit_s is not None and now_s - self.began_s >= limit_s:
            self.keep()
            if self.options.episodes is None and self.options.reset_s is None:
                self.ended.set()
        reset_s = self.options.reset_s
        if progress.state is State.WAITING and reset_s is not None and now_s - self.over_s >= reset_s and self.began_s:
            self.start()
        names = [name for name in list(self.watch.topics) if name == TRAJECTORY or name in steady]
        rates_hz = {camera_of(name) or name: self.watch.rate_hz(name, now_s) for name in sorted(names)}
        self.screen.show(progress, rates_hz, now_s - self.began_s if self.began_s else 0.0)

    def missing(self) -> list[str]:
        """What was asked for and never heard."""
        heard = self.watch.topics
        missing = [f"camera {name}" for name in self.options.cameras if camera_topic(name) not in heard]
        if not self.options.cameras and not any(map(camera_of, list(heard))):
            missing.append("a camera")
        if JOINT_STATES not in heard:
            missing.append(JOINT_STATES)
        return missing

    def _said(self, sentence: str, done: Callable[[], bool]) -> tuple[bool, str]:
        """Show what happened; whether it was what was asked for."""
        self.screen.say(sentence)
        return done(), sentence


def record(options: Options, console: Console) -> int:
    """Record until somebody ends it; 0 when at least one episode was kept.

    Raises:
        RecordingError: the disk failed or ran full, or nothing was there to record; the message says what is saved.
    """
    from evergreen.recording.node import RecorderNode  # noqa: PLC0415  slow to import, and `--help` needs none of it
    from vla_ros.spinning import spinning  # noqa: PLC0415  as above

    define = partial(definitions.definition, where=definitions.prefixes(with_workspace(os.environ)))
    recorder = Recorder(
        options.out,
        _cached(define),
        LASTING.__contains__,
        namespace=options.namespace,
        keep_free=options.keep_free_bytes,
    )
    ended = threading.Event()
    with _signals(ended.set), keys.pressed() as descriptor:
        hints = ("→ keep / begin", "← discard", "Esc end") if descriptor is not None else ()
        with Screen(console, hints) as screen:
            session = _Session(options, recorder, screen, ended)
            services = {
                "start": session.start,
                "keep": session.keep,
                "discard": session.discard,
                "end": session.end,
            }
            make = partial(RecorderNode, Topics(options.cameras), session.take, services)
            with spinning(make, options.namespace):
                _play(session, descriptor)
            if recorder.progress.state is State.RECORDING:
                session.keep()
            recorder.close()
    return _result(options, session)


def _play(session: _Session, descriptor: int | None) -> None:
    """Wait for the graph, then tick until the end."""
    deadline_s = time.monotonic() + PATIENCE_S
    while session.missing() and time.monotonic() < deadline_s and not session.ended.wait(TICK_S):
        pass
    for name in session.missing():
        session.screen.say(f"warning: {name} is missing: does the robot run, in this ROS domain and namespace?")
    if not session.options.wait:
        session.start()
    while not session.ended.is_set():
        if descriptor is None:
            session.ended.wait(TICK_S)
        else:
            session.press(keys.read(descriptor, TICK_S))
        session.tick()


def _result(options: Options, session: _Session) -> int:
    progress, kept = session.recorder.progress, session.recorder.kept
    if options.json:
        print(json.dumps({"kept": [str(path) for path in kept], "failure": progress.failure}))
    if progress.failure:
        raise RecordingError(progress.failure)
    if not session.watch.topics:
        raise RecordingError("nothing was heard: is the robot running in this ROS domain (ROS_DOMAIN_ID)?")
    if not options.json:
        print(
            f"{len(kept)} episodes in {options.out}; make a dataset: evergreen dataset convert {options.out} --out DIR"
        )
    return 0 if kept else 1


def _cached(define: Callable[[str], str]) -> Callable[[str], str]:
    known: dict[str, str] = {}

    def cached(datatype: str) -> str:
        if datatype not in known:
            known[datatype] = define(datatype)
        return known[datatype]

    return cached


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, `docker stop` and a closed terminal end the recording in good order."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
