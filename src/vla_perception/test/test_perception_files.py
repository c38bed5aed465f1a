"""Films and folders as cameras."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

from vla_core.image import decode_jpeg, encode_jpeg, jpeg_size
from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.sources.files import FolderSource, Pacer, VideoSource

FAST_FPS = 200.0
PERIOD_NS = 100_000_000


def plain(level: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def film(path: Path, frames: int = 3) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for number in range(frames):
        writer.write(plain(number * 100))
    writer.release()
    return path


def test_the_pace_is_kept_and_a_late_reader_does_not_hurry() -> None:
    pacer = Pacer(10.0)
    assert pacer.wait_s(0) == 0
    assert pacer.wait_s(20_000_000) == pytest.approx(0.08)
    assert pacer.wait_s(2 * PERIOD_NS + 50_000_000) == 0, "half a period late: catches up"
    assert pacer.wait_s(2 * PERIOD_NS + 60_000_000) == pytest.approx(0.04)
    assert pacer.wait_s(90 * PERIOD_NS) == 0, "a pause: starts anew"
    assert pacer.wait_s(90 * PERIOD_NS) == pytest.approx(0.1)


def test_a_film_loops(tmp_path: Path) -> None:
    source = VideoSource(CameraConfig("film", f"file:{film(tmp_path / 'film.avi')}", fps=FAST_FPS))
    source.start()
    levels = [round(float(decode_jpeg(source.read().jpeg).mean()), -1) for _ in range(7)]
    assert levels == [0, 100, 200, 0, 100, 200, 0]
    source.close()


def test_a_film_is_cropped_and_resized(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi")
    source = VideoSource(CameraConfig("film", f"file:{path}", width=32, height=16, fps=FAST_FPS))
    source.start()
    assert jpeg_size(source.read().jpeg) == (32, 16)
    source.close()


@pytest.mark.parametrize(("name", "expected"), [("none.mp4", "there is no file"), ("text.mp4", "no film")])
def test_what_is_no_film(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    source = VideoSource(CameraConfig("film", f"file:{tmp_path / name}"))
    with pytest.raises(SourceError, match=expected):
        source.start()
    source.close()


def test_a_folder_in_order_with_jpegs_as_they_are(tmp_path: Path) -> None:
    first = encode_jpeg(plain(200))
    (tmp_path / "a.jpg").write_bytes(first)
    cv2.imwrite(str(tmp_path / "b.png"), plain(100))
    (tmp_path / "c.jpg").write_bytes(first[:100])
    (tmp_path / "notes.txt").write_text("no picture")
    source = FolderSource(CameraConfig("folder", f"folder:{tmp_path}", fps=FAST_FPS))
    source.start()
    frames = [source.read() for _ in range(3)]
    assert frames[0].jpeg == first
    assert decode_jpeg(frames[1].jpeg).mean() == pytest.approx(100, abs=2)
    assert frames[2].jpeg == first
    assert [frame.corrupt for frame in frames] == [0, 0, 1]
    assert frames[0].stamp_ns < frames[1].stamp_ns < frames[2].stamp_ns
    source.close()


def test_a_folder_is_resized_but_never_recoded_without_need(tmp_path: Path) -> None:
    fits, wide = encode_jpeg(plain(200, 32, 16)), encode_jpeg(plain(200))
    (tmp_path / "a.jpg").write_bytes(fits)
    (tmp_path / "b.jpg").write_bytes(wide)
    source = FolderSource(CameraConfig("folder", f"folder:{tmp_path}", width=32, height=16, fps=FAST_FPS))
    source.start()
    assert source.read().jpeg == fits
    assert jpeg_size(source.read().jpeg) == (32, 16)
    source.close()


def test_folders_without_pictures(tmp_path: Path) -> None:
    for path, expected in ((tmp_path / "none", "cannot list"), (tmp_path, "holds no pictures")):
        with pytest.raises(SourceError, match=expected):
            FolderSource(CameraConfig("folder", f"folder:{path}")).start()
    (tmp_path / "a.png").write_bytes(b"no picture")
    source = FolderSource(CameraConfig("folder", f"folder:{tmp_path}"))
    source.start()
    with pytest.raises(SourceError, match="none of the 1 pictures"):
        source.read()


def test_interrupt_ends_the_wait_for_the_next_frame(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(plain(0)))
    source = FolderSource(CameraConfig("folder", f"folder:{tmp_path}", fps=0.001))
    source.start()
    source.read()
    thread = Thread(target=source.interrupt)
    thread.start()
    with pytest.raises(SourceError, match="interrupted"):
        source.read()
    thread.join(10)
