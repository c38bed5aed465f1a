"""The one path from a camera's JPEG to the picture that a policy sees.

Recording, training, evaluation and serving all call `decode_resize`; its identity, `PIPELINE_ID`, is in every manifest.
A difference between those four is the commonest reason why a policy that was good in training fails on the robot.
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from vla_core.errors import ImageError
from vla_core.pipeline import PIPELINE_ID, Image

__all__ = ["PIPELINE_ID", "Image", "cover_resize", "decode_jpeg", "decode_resize", "encode_jpeg", "jpeg_size"]

JPEG_QUALITY = 90
"""What webcams deliver in MJPG mode lies between 80 and 95."""


def jpeg_size(jpeg: bytes | memoryview) -> tuple[int, int]:
    """Width and height of a JPEG in px, read from its header alone.

    Raises:
        ImageError: the bytes are no JPEG.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise ImageError(f"not a JPEG picture ({len(jpeg)} bytes): {error}") from error
    return int(width), int(height)


def decode_jpeg(jpeg: bytes | memoryview) -> Image:
    """Decode a JPEG to `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: the bytes are no JPEG, or they are cut short.
    """
    try:
        rgb: Image = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        raise ImageError(f"not a JPEG picture ({len(jpeg)} bytes): {error}") from error
    return rgb


def encode_jpeg(rgb: Image, quality: int = JPEG_QUALITY) -> bytes:
    """Encode `(height, width, 3)` uint8 RGB to a baseline JPEG with 4:2:0 chroma, as webcams send it."""
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return jpeg


def cover_resize(rgb: Image, width: int, height: int) -> Image:
    """Crop the centre of `rgb` to the aspect of `width` x `height` (px), then resize by area averaging.

    Nothing is stretched: a policy sees square pixels whatever the camera's aspect ratio.
    """
    rows, columns = rgb.shape[:2]
    if rows * width > columns * height:  # too tall
        keep = max(1, round(columns * height / width))
        top = (rows - keep) // 2
        rgb = rgb[top : top + keep]
    elif rows * width < columns * height:  # too wide
        keep = max(1, round(rows * width / height))
        left = (columns - keep) // 2
        rgb = rgb[:, left : left + keep]
    if rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(rgb)
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def decode_resize(jpeg: bytes | memoryview, width: int, height: int) -> Image:
    """Decode a camera's JPEG and bring it to the size that a policy wants: `(height, width, 3)` uint8 RGB.

    Raises:
        ImageError: the bytes are no JPEG.
    """
    return cover_resize(decode_jpeg(jpeg), width, height)
