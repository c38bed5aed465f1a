"""Films and folders of pictures as cameras: for demonstrations, tests, and replays of what a robot saw."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import cv2
import numpy as np

from vla_core.image import Image, cover_resize, encode_jpeg, jpeg_size
from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.frame import Frame, whole_jpeg

DEFAULT_FPS = 15.0
"""What the cameras of this robot are asked for."""

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
PICTURE_SUFFIXES = JPEG_SUFFIXES | {".png", ".bmp", ".webp", ".ppm"}


class Pacer:
    """When the next frame is due. A reader that falls behind by more than a period starts anew, it does not hurry."""

    def __init__(self, fps: float) -> None:
        self._period_ns = round(1e9 / fps)
        self._due_ns: int | None = None

    def wait_s(self, now_ns: int) -> float:
        """Seconds from `now_ns` (monotonic) until the next frame is due, at least 0."""
        if self._due_ns is None or now_ns > self._due_ns + 2 * self._period_ns:
            self._due_ns = now_ns
        else:
            self._due_ns += self._period_ns
        return max(0, self._due_ns - now_ns) / 1e9


class _PacedSource:
    """What films and folders share: a pace, a size, an interrupt."""

    def __init__(self, config: CameraConfig) -> None:
        self.notice = ""
        self._path = config.path
        self._fps = config.fps
        self._size = None if config.width is None or config.height is None else (config.width, config.height)
        self._stop = Event()

    def _release(self, pacer: Pacer, jpeg: bytes, corrupt: int = 0) -> Frame:
        """Hold a frame back until it is due; the stamp is the moment of release."""
        if self._stop.wait(pacer.wait_s(time.monotonic_ns())):
            raise SourceError("interrupted")
        return Frame(jpeg, time.time_ns(), corrupt=corrupt)

    def _encode(self, bgr: Image) -> bytes:
        rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        return encode_jpeg(rgb if self._size is None else cover_resize(rgb, *self._size))

    def interrupt(self) -> None:
        """Wake a thread that waits for the next frame's time."""
        self._stop.set()


class VideoSource(_PacedSource):
    """A film, again and again, at the film's own pace unless `fps` is set."""

    def __init__(self, config: CameraConfig) -> None:
        super().__init__(config)
        self._film = cv2.VideoCapture()
        self._pacer = Pacer(config.fps or DEFAULT_FPS)

    def start(self) -> None:
        """Open the film."""
        if not self._path.is_file():
            raise SourceError(f"there is no file {self._path}; check the path in the cameras file")
        opened = self._film.open(str(self._path))
        fps = self._fps or self._film.get(cv2.CAP_PROP_FPS)
        if not opened or not math.isfinite(fps) or fps <= 0:
            raise SourceError(f"{self._path} is no film that OpenCV reads, or states no rate; convert it, or set fps")
        self._pacer = Pacer(fps)

    def read(self) -> Frame:
        """The next frame of the film when it is due."""
        ok, bgr = self._film.read()
        if not ok:
            self._film.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, bgr = self._film.read()
            if not ok:
                raise SourceError(f"{self._path} has no frame that OpenCV can decode; convert it to H.264 or MJPEG")
        return self._release(self._pacer, self._encode(bgr))

    def close(self) -> None:
        """Release the decoder."""
        self._film.release()


class FolderSource(_PacedSource):
    """The pictures of a folder in order of their names, again and again. JPEGs of the right size pass undecoded."""

    def __init__(self, config: CameraConfig) -> None:
        super().__init__(config)
        self._pacer = Pacer(config.fps or DEFAULT_FPS)
        self._pictures = self._cycle()

    def start(self) -> None:
        """Find out early whether there is anything to show."""
        self._listed()

    def read(self) -> Frame:
        """The next picture when it is due."""
        jpeg, corrupt = next(self._pictures)
        return self._release(self._pacer, jpeg, corrupt)

    def close(self) -> None:
        """Nothing is held open."""

    def _cycle(self) -> Iterator[tuple[bytes, int]]:
        """JPEGs without end, each with the number of unreadable pictures before it."""
        corrupt = 0
        while True:
            paths = self._listed()
            usable = 0
            for path in paths:
                jpeg = self._load(path)
                if jpeg is None:
                    corrupt += 1
                    continue
                usable += 1
                yield jpeg, corrupt
                corrupt = 0
            if not usable:
                raise SourceError(f"none of the {len(paths)} pictures in {self._path} can be decoded; replace them")

    def _listed(self) -> list[Path]:
        """Anew in each round, so that pictures may be added."""
        try:
            paths = sorted(path for path in self._path.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        except OSError as error:
            raise SourceError(f"cannot list {self._path} ({error.strerror}); check the cameras file") from error
        if not paths:
            raise SourceError(f"{self._path} holds no pictures; put {', '.join(sorted(PICTURE_SUFFIXES))} files there")
        return paths

    def _load(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if path.suffix.lower() in JPEG_SUFFIXES:
            jpeg = whole_jpeg(data)
            if jpeg is None or self._size is None or jpeg_size(jpeg) == self._size:
                return jpeg
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        return None if bgr is None else self._encode(bgr)
