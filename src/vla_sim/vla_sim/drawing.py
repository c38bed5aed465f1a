"""Draws the cameras that somebody watches, in a thread of its own, and gives frames up before it gives time up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import mujoco

from vla_core.image import encode_jpeg
from vla_sim.realtime import DRAWING_NICENESS, RateMeter, set_niceness
from vla_sim.rig import CameraRig, Snapshot

_LOG = logging.getLogger(__name__)

MAX_PHYSICS_LAG_NS: Final = 30_000_000
"""While physics is later than this, nothing is drawn. A busy machine's scheduler alone causes 10 ms."""
_IDLE_NS: Final = 20_000_000
"""How soon a new viewer is noticed."""
_MAKE_WAY_NS: Final = 5_000_000

Publish = Callable[[str, int, bytes], None]
"""Camera, system time of the physics that it shows (ns), JPEG."""


class CameraState(StrEnum):
    """What is wrong with a camera."""

    OK = "ok"
    STALLED = "stalled"
    """Connected, but no picture comes any more."""
    REPEATING = "repeating"
    """The same picture, with its old stamp, again and again."""
    DROPPED = "dropped"
    """Gone: connections end and new ones are refused."""


@dataclass(slots=True)
class _Slot:
    next_ns: int
    last_ns: int = 0
    shed: int = 0
    state: CameraState = CameraState.OK
    rate: RateMeter = field(default_factory=RateMeter)


class Schedule:
    """Whose turn it is. Cameras start evenly spread over a period, so that drawing is a steady load.

    Under overload the camera that has waited longest comes first: all become slower alike.
    """

    def __init__(self, cameras: Iterable[str], fps: float, now_ns: int) -> None:
        names = tuple(cameras)
        self._period_ns = round(1e9 / fps)
        self._slots = {
            name: _Slot(now_ns + index * self._period_ns // max(1, len(names))) for index, name in enumerate(names)
        }

    def pick(self, now_ns: int, watched: Mapping[str, int]) -> str | None:
        """The camera to draw now, or None."""
        best: str | None = None
        for name, slot in self._slots.items():
            if not self._wanted(name, watched):
                if slot.next_ns <= now_ns:  # keep its phase, and count nothing as lost
                    slot.next_ns += ((now_ns - slot.next_ns) // self._period_ns + 1) * self._period_ns
            elif slot.next_ns <= now_ns and (best is None or slot.last_ns < self._slots[best].last_ns):
                best = name
        return best

    def drew(self, name: str, now_ns: int) -> None:
        """Note a picture, and the ones that came too late to be drawn."""
        slot = self._slots[name]
        missed = (now_ns - slot.next_ns) // self._period_ns
        slot.shed += missed
        slot.next_ns += (missed + 1) * self._period_ns
        slot.last_ns = now_ns
        slot.rate.add(now_ns)

    def wait_ns(self, now_ns: int, watched: Mapping[str, int]) -> int:
        """Time until the next picture is due."""
        due = [slot.next_ns for name, slot in self._slots.items() if self._wanted(name, watched)]
        return min(max(min(due, default=now_ns + _IDLE_NS) - now_ns, 0), _IDLE_NS)

    def state(self, name: str) -> CameraState:
        """What is wrong with a camera."""
        return self._slots[name].state

    def set_state(self, name: str, state: CameraState) -> None:
        """Break a camera, or mend it."""
        self._slots[name].state = state

    def report(self, now_ns: int) -> dict[str, dict[str, float | int | str]]:
        """Rates and counters of each camera."""
        return {
            name: {
                "fps": round(slot.rate.per_s(now_ns), 2),
                "frames": slot.rate.count,
                "shed": slot.shed,
                "state": slot.state.value,
            }
            for name, slot in self._slots.items()
        }

    def _wanted(self, name: str, watched: Mapping[str, int]) -> bool:
        return watched.get(name, 0) > 0 and self._slots[name].state in {CameraState.OK, CameraState.REPEATING}


class DrawingThread:
    """Draws and encodes; the OpenGL context lives and dies in the thread."""

    def __init__(
        self,
        model: mujoco.MjModel,
        schedule: Schedule,
        *,
        size: tuple[int, int],
        newest: Callable[[], tuple[int, Snapshot]],
        behind_ns: Callable[[], int],
        watched: Mapping[str, int],
        publish: Publish,
        failed: Callable[[], None],
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            model: shared with the physics, only read here.
            schedule: what to draw when.
            size: width and height of the pictures, px.
            newest: the latest physics state, with its system time, ns.
            behind_ns: how late physics is.
            watched: viewers of each camera, changed by somebody else.
            publish: called here with each picture.
            failed: called here if drawing breaks down.
        """
        self._model = model
        self._schedule = schedule
        self._size = size
        self._newest = newest
        self._behind_ns = behind_ns
        self._watched = watched
        self._publish = publish
        self._failed = failed
        self._last: dict[str, tuple[int, bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)
        self.ready: Future[None] = Future()
        """Done when pictures can be drawn; else it has the ConfigError."""
        self.frame_stamp_ns = 0
        """System time of the physics in the newest picture."""
        self.cpu_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and free its context."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        set_niceness(DRAWING_NICENESS)
        try:
            rig = CameraRig(self._model, *self._size)
        except Exception as error:  # noqa: BLE001 (whoever waits for `ready` re-raises it)
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        try:
            while not self._stop.is_set():
                self._wait(self._draw_next(rig))
                self.cpu_s = time.thread_time()
        except Exception:  # noqa: BLE001 (whatever it is, the process must not go on without cameras)
            _LOG.exception("drawing broke down")
            self._failed()
        finally:
            rig.close()

    def _wait(self, pause_ns: int) -> None:
        if pause_ns > 0:
            self._stop.wait(pause_ns * 1e-9)

    def _draw_next(self, rig: CameraRig) -> int:
        """Draw the camera whose turn it is, if any; how long to wait then, ns."""
        now_ns = time.monotonic_ns()
        if self._behind_ns() > MAX_PHYSICS_LAG_NS:
            return _MAKE_WAY_NS
        camera = self._schedule.pick(now_ns, self._watched)
        if camera is None:
            return self._schedule.wait_ns(now_ns, self._watched)
        if self._schedule.state(camera) is CameraState.REPEATING and camera in self._last:
            stamp_ns, jpeg = self._last[camera]
        else:
            stamp_ns, snapshot = self._newest()
            jpeg = encode_jpeg(rig.render(snapshot, camera))
            self._last[camera] = (stamp_ns, jpeg)
            self.frame_stamp_ns = stamp_ns
        self._schedule.drew(camera, now_ns)
        self._publish(camera, stamp_ns, jpeg)
        return 0
