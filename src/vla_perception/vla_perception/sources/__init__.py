"""Where frames come from, one module a kind."""

from __future__ import annotations

from vla_perception.config import CameraConfig
from vla_perception.source import Source
from vla_perception.sources.files import FolderSource, VideoSource
from vla_perception.sources.http import HttpSource
from vla_perception.sources.v4l2 import V4l2Source


def make_source(config: CameraConfig) -> Source:
    """The source of one camera, not yet started."""
    match config.kind:
        case "v4l2":
            return V4l2Source(config)
        case "http":
            return HttpSource(config)
        case "file":
            return VideoSource(config)
        case _:
            return FolderSource(config)
