"""A camera's thread: what it hands over, what it reports, and that it ends."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue

import pytest

from vla_perception import camera as camera_module
from vla_perception.camera import Camera
from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.frame import Frame
from vla_perception.health import Level, State

WAIT_S = 10.0
CONFIG = CameraConfig("left", "http://user:secret@host/left")


class Script:
    """A source that plays frames and errors in order; each life of the source begins at a `None`."""

    notice = ""

    def __init__(self, play: Queue[Frame | Exception | None]) -> None:
        self._play = play
        self.closed = False

    def start(self) -> None:
        """Opens at once."""

    def read(self) -> Frame:
        step = self._play.get(timeout=WAIT_S)
        if step is None:
            raise SourceError("interrupted")
        if isinstance(step, Exception):
            raise step
        return step

    def interrupt(self) -> None:
        self._play.put(None)

    def close(self) -> None:
        self.closed = True


class Rig:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(camera_module, "Backoff", lambda: self)
        self.play: Queue[Frame | Exception | None] = Queue()
        self.frames: Queue[tuple[str, Frame]] = Queue()
        self.reports: Queue[tuple[Level, str]] = Queue()
        self.sources: list[Script] = []
        self.replaced = 0
        self.camera = Camera(CONFIG, self.open, self.deliver, lambda level, text: self.reports.put((level, text)))

    def delay_s(self, lasted_s: float, random_unit: float) -> float:
        """Stands for Backoff: no waiting in tests."""
        return 0.0

    def open(self, config: CameraConfig) -> Script:
        assert config is CONFIG
        self.sources.append(Script(self.play))
        return self.sources[-1]

    def deliver(self, name: str, frame: Frame) -> int:
        self.frames.put((name, frame))
        return self.replaced

    def frame(self, number: int, **counts: int) -> Frame:
        """Send a frame through and wait for it."""
        sent = Frame(b"%d" % number, number, **counts)
        self.play.put(sent)
        assert self.frames.get(timeout=WAIT_S) == ("left", sent)
        return sent


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(monkeypatch)
    made.camera.start()
    yield made
    made.camera.stop()
    made.camera.join(WAIT_S)
    assert not made.camera._thread.is_alive()
    assert all(source.closed for source in made.sources)


def test_one_report_when_it_goes_and_one_when_it_is_back(rig: Rig) -> None:
    rig.frame(1)
    for attempt in range(20):
        rig.play.put(SourceError(f"unplugged {attempt}; plug it in"))
    rig.frame(2)
    level, text = rig.reports.get(timeout=WAIT_S)
    assert (level, text) == (
        Level.ERROR,
        "camera 'left' is gone (http://***@host/left): unplugged 0; plug it in",
    )
    level, text = rig.reports.get(timeout=WAIT_S)
    assert level is Level.OK
    assert text.startswith("camera 'left' (http://***@host/left) is back after ")
    rig.frame(3)
    assert rig.reports.empty()
    seen = rig.camera.health.snapshot(0, 0)
    assert (seen.state, seen.losses, seen.last_error) == (State.STREAMING, 20, "unplugged 19; plug it in")


def test_drops_of_source_and_mailbox_are_counted(rig: Rig) -> None:
    rig.frame(1, skipped=2, corrupt=3)
    rig.replaced = 1
    rig.frame(2)
    rig.frame(3, skipped=1)
    rig.play.put(SourceError("gone"))
    rig.reports.get(timeout=WAIT_S)
    seen = rig.camera.health.snapshot(0, 0)
    assert (seen.dropped, seen.corrupt) == (5, 3)


def test_a_defect_in_a_source_is_reported_with_its_place_and_tried_again(rig: Rig) -> None:
    rig.play.put(ZeroDivisionError("a defect"))
    level, text = rig.reports.get(timeout=WAIT_S)
    assert level is Level.ERROR
    assert "defect, please report it: ZeroDivisionError('a defect')" in text
    assert "Traceback" in text
    assert "\n" not in rig.camera.health.snapshot(0, 0).last_error
    rig.frame(1)


def test_a_source_that_has_something_to_say_is_heard_once_a_connection(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Script, "notice", "the camera gives 30 fps")
    rig.frame(1)
    rig.frame(2)
    assert rig.reports.get(timeout=WAIT_S)[1].endswith("the camera gives 30 fps")
    assert rig.reports.empty()
    assert rig.camera.health.snapshot(0, 0).notice == "the camera gives 30 fps"


def test_stop_is_no_loss(rig: Rig) -> None:
    rig.frame(1)
    rig.camera.stop()
    rig.camera.join(WAIT_S)
    assert rig.reports.empty()
    assert rig.camera.health.snapshot(0, 0).losses == 0
