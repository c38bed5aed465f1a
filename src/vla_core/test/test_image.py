"""The one decode-and-resize function."""

import numpy as np
import pytest

from vla_core import image
from vla_core.errors import ImageError


def gradient(width: int, height: int) -> np.ndarray:
    x = np.linspace(0, 255, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 255, height, dtype=np.float32)[:, None]
    return np.stack([np.broadcast_to(x, (height, width)), np.broadcast_to(y, (height, width)), (x + y) / 2], 2).astype(
        np.uint8
    )


def test_jpeg_keeps_size_and_roughly_the_picture() -> None:
    rgb = gradient(320, 240)
    jpeg = image.encode_jpeg(rgb)
    assert image.jpeg_size(jpeg) == (320, 240)
    assert np.abs(image.decode_jpeg(jpeg).astype(int) - rgb.astype(int)).mean() < 3


def test_a_wider_target_crops_top_and_bottom_and_stretches_nothing() -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[40:200] = 255  # exactly the part that 128x64 keeps
    small = image.cover_resize(rgb, 128, 64)
    assert small.shape == (64, 128, 3)
    assert small.min() == 255


def test_a_taller_target_crops_the_sides() -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[:, 40:280] = 255
    assert image.cover_resize(rgb, 96, 96).min() == 255


def test_area_averaging_keeps_the_mean() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (160, 320, 3), dtype=np.uint8)
    assert image.cover_resize(rgb, 128, 64).mean() == pytest.approx(rgb.mean(), abs=0.5)


@pytest.mark.parametrize("data", [b"", b"no picture", image.encode_jpeg(gradient(64, 48))[:200]])
def test_bad_bytes_are_image_errors(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a JPEG"):
        image.decode_resize(data, 32, 32)
