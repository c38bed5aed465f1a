"""What a demo leaves to look at: a video, a contact sheet of all cameras, a plot of the latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from evergreen.demo.asked import Turn
from evergreen.demo.results import ChunkLatency
from vla_core.chunk import NS_PER_S
from vla_core.errors import ImageError
from vla_core.image import Image, decode_jpeg
from vla_core.latency import LINE_MS, STAGES, summarise

VIDEO_FPS = 12
"""Above what eight cameras reach beside the graph on two cores; more would repeat frames."""
BANNER_PX = 28
STRIP_COLUMNS = 4
_INK = (235, 235, 235)
_PAPER = (24, 28, 32)
_STAGE_COLOURS = ("#4c72b0", "#64b5cd", "#55a868", "#ccb974", "#c44e52", "#8172b2", "#937860", "#8c8c8c")


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame for the video: camera, capture time in ns, JPEG, and the words for the banner."""

    camera: str
    stamp_ns: int
    jpeg: bytes
    caption: str


def _label(picture: Image, text: str) -> None:
    cv2.putText(picture, text, (7, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _PAPER, 3, cv2.LINE_AA)
    cv2.putText(picture, text, (7, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)


def contact_sheet(jpegs: Iterable[tuple[str, bytes]], path: Path, columns: int = 4) -> None:
    """Write one PNG with pictures, each with its caption, row by row.

    What never came has an empty JPEG and appears as a dark tile that says so.
    """
    pictures = [(caption, _decode(jpeg)) for caption, jpeg in jpegs]
    shapes = [picture.shape[:2] for _, picture in pictures if picture is not None]
    height, width = max(shapes, default=(240, 320))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * height, columns * width, 3), _PAPER, np.uint8)
    for index, (caption, picture) in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        tile = sheet[top : top + height, left : left + width]
        if picture is not None:
            tile[: picture.shape[0], : picture.shape[1]] = picture
        _label(tile, caption if picture is not None else f"{caption}: no picture")
    _write_png(path, sheet)


def prompt_strip(shots: Sequence[Shot], told: Sequence[Turn], ended_ns: int, path: Path) -> None:
    """Write one PNG with a row for each prompt: `STRIP_COLUMNS` moments from when it came into force on.

    Args:
        shots: of one camera, at least one.
        told: the prompts of an episode.
        ended_ns: when the episode ended.
        path: of the PNG.
    """
    ends = [turn.stamp_ns for turn in told[1:]] + [ended_ns]
    tiles: list[tuple[str, bytes]] = []
    for turn, end_ns in zip(told, ends, strict=True):
        last = turn is told[-1]  # the others end where the next row begins
        for column, moment in enumerate(np.linspace(turn.stamp_ns, end_ns, STRIP_COLUMNS, endpoint=last)):
            shot = min(shots, key=lambda each: abs(each.stamp_ns - moment))
            time_s = (moment - told[0].stamp_ns) / NS_PER_S
            words = f'  "{turn.request.prompt}"' if column == 0 else ""
            tiles.append((f"{time_s:.1f} s{words}", shot.jpeg))
    contact_sheet(tiles, path, columns=STRIP_COLUMNS)


def _decode(jpeg: bytes) -> Image | None:
    try:
        return decode_jpeg(jpeg)
    except ImageError:
        return None


def _write_png(path: Path, rgb: Image) -> None:
    ok, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ImageError(f"{path} could not be encoded")
    path.write_bytes(data.tobytes())


def video(shots: Sequence[Shot], path: Path, progress: Callable[[float], None] = lambda _: None) -> bool:
    """Write the shots' cameras side by side as H.264, paced by their stamps.

    Returns:
        False when there was nothing to write.

    Raises:
        ImageError: ffmpeg, whose exit code nobody hands on, wrote nothing.
    """
    cameras = list(dict.fromkeys(shot.camera for shot in shots))
    ordered = sorted(shots, key=lambda shot: shot.stamp_ns)
    if not ordered:
        return False
    height, width = decode_jpeg(ordered[0].jpeg).shape[:2]
    size = (width * len(cameras), height + BANNER_PX)
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=VIDEO_FPS, codec="libx264", quality=7, macro_block_size=4, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        step_ns = 1_000_000_000 // VIDEO_FPS
        newest: dict[str, NDArray[np.uint8]] = {}
        caption, cursor, index = "", ordered[0].stamp_ns, 0
        total = ordered[-1].stamp_ns - cursor or 1
        while cursor <= ordered[-1].stamp_ns:
            while index < len(ordered) and ordered[index].stamp_ns <= cursor:
                shot = ordered[index]
                newest[shot.camera], caption = np.frombuffer(shot.jpeg, np.uint8), shot.caption
                index += 1
            writer.send(_compose(cameras, newest, caption, (height, width)))
            progress(1 - (ordered[-1].stamp_ns - cursor) / total)
            cursor += step_ns
    finally:
        writer.close()
    if not path.stat().st_size:
        raise ImageError(f"{path} is empty: ffmpeg could not write it; is the disk full?")
    return True


def _compose(
    cameras: Sequence[str], newest: Mapping[str, NDArray[np.uint8]], caption: str, shape: tuple[int, int]
) -> bytes:
    height, width = shape
    frame = np.full((height + BANNER_PX, width * len(cameras), 3), _PAPER, np.uint8)
    for column, camera in enumerate(cameras):
        picture = _decode(newest[camera].tobytes()) if camera in newest else None
        if picture is not None and picture.shape[:2] == shape:
            frame[BANNER_PX:, column * width : (column + 1) * width] = picture
    cv2.putText(frame, caption, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return frame.tobytes()


def latency_plot(latencies: Sequence[ChunkLatency], path: Path, title: str) -> None:
    """Write a PNG: stages stacked chunk by chunk, the whole's distribution beside them, the 100 ms line in both."""
    import matplotlib as mpl  # noqa: PLC0415  slow to import, and only wanted here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.2), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    totals = np.array([chunk.total_ms for chunk in latencies])
    index = np.arange(len(totals))
    floor = np.zeros(len(totals))
    for stage, colour in zip(STAGES, _STAGE_COLOURS, strict=True):
        part = np.array([chunk.stages_ms.get(stage, 0.0) for chunk in latencies])
        left.bar(index, part, bottom=floor, width=1.0, color=colour, label=stage)
        floor = floor + part
    left.plot(index, totals, ".", color="black", markersize=3, label="photon to servo")
    for axis in (left, right):
        axis.axhline(LINE_MS, color="crimson", linestyle="--", linewidth=1)
    left.set(xlabel="action chunk", ylabel="ms", title=title)
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, ncols=len(STAGES) + 1, loc="outside lower center")
    if totals.size:
        summary = summarise(totals)
        right.hist(totals, bins=30, orientation="horizontal", color="#55a868")
        right.set(xlabel="chunks", title=f"p50 {summary.p50:.0f}  p95 {summary.p95:.0f}  n {summary.n}")
        left.set_ylim(0, max(LINE_MS * 1.2, float(np.percentile(totals, 99)) * 1.3))
    figure.savefig(path, dpi=110)
    plt.close(figure)
