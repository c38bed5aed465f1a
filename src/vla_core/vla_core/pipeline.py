"""What an image is here, and which pipeline makes it: apart from `image`, whose codecs take 0.2 s to load.

A policy server gets finished pictures and starts without them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIPELINE_ID = "rgb-cover-area-v1"
"""Decode to RGB, crop the centre to the target's aspect ratio, shrink by area averaging (cv2.INTER_AREA)."""

Image = NDArray[np.uint8]
"""`(height, width, 3)`, uint8, RGB."""
