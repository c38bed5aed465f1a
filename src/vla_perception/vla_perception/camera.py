"""The thread of one camera: open, read, hand over, and try again after a loss."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from threading import Event, Lock, Thread

from vla_perception.backoff import Backoff
from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.frame import Frame
from vla_perception.health import CameraHealth, Level
from vla_perception.source import Source

Deliver = Callable[[str, Frame], int]
"""Takes a frame of the named camera, returns how many earlier ones it pushed out."""

Report = Callable[[Level, str], None]


class Camera:
    """Owns one source at a time. A loss is reported once, and once more when the camera is back."""

    def __init__(
        self,
        config: CameraConfig,
        make_source: Callable[[CameraConfig], Source],
        deliver: Deliver,
        report: Report,
    ) -> None:
        self.config = config
        self.health = CameraHealth()
        self._make_source = make_source
        self._deliver = deliver
        self._report = report
        self._backoff = Backoff()
        self._stop = Event()
        self._lock = Lock()
        self._source: Source | None = None
        self._lost_since_ns: int | None = None
        self._thread = Thread(target=self._run, name=f"camera {config.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wake it."""
        self._stop.set()
        with self._lock:
            if self._source is not None:
                self._source.interrupt()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has closed its source."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            lasted_s = self._read_until_lost()
            self._stop.wait(self._backoff.delay_s(lasted_s, random.random()))  # noqa: S311  spreads knocks, keeps no secret

    def _read_until_lost(self) -> float:
        """Seconds from the first frame to the loss; 0 where no frame came."""
        first_ns: int | None = None
        try:
            source = self._opened()
            while not self._stop.is_set():
                frame = source.read()
                if first_ns is None:
                    first_ns = time.monotonic_ns()
                    self._found(source, first_ns)
                replaced = self._deliver(self.config.name, frame)
                if replaced or frame.skipped or frame.corrupt:
                    self.health.count(frame.skipped + replaced, frame.corrupt)
        except SourceError as error:
            self._lost(str(error))
        except Exception as error:  # noqa: BLE001  a defect in one source must neither stop the others nor look alive
            self._lost(f"defect, please report it: {error!r}\n{traceback.format_exc()}")
        finally:
            self._closed()
        return 0.0 if first_ns is None else (time.monotonic_ns() - first_ns) / 1e9

    def _opened(self) -> Source:
        source = self._make_source(self.config)
        with self._lock:
            self._source = source
            if self._stop.is_set():
                source.interrupt()
        source.start()
        return source

    def _closed(self) -> None:
        with self._lock:
            source, self._source = self._source, None
        if source is not None:
            source.close()

    def _found(self, source: Source, now_ns: int) -> None:
        self.health.streaming(source.notice)
        if source.notice:
            self._report(Level.WARN, f"camera {self.config.name!r} ({self.config.shown_url}): {source.notice}")
        if self._lost_since_ns is not None:
            away_s = (now_ns - self._lost_since_ns) / 1e9
            where = f"camera {self.config.name!r} ({self.config.shown_url})"
            self._report(Level.OK, f"{where} is back after {away_s:.1f} s")
            self._lost_since_ns = None

    def _lost(self, reason: str) -> None:
        if self._stop.is_set():
            return
        self.health.lost(reason.split("\n", 1)[0])
        if self._lost_since_ns is None:
            self._lost_since_ns = time.monotonic_ns()
            self._report(Level.ERROR, f"camera {self.config.name!r} is gone ({self.config.shown_url}): {reason}")
