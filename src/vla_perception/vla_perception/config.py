"""The cameras file: which cameras there are, and where their pictures come from.

    cameras:
      front:                                     # topics camera/front/...
        url: v4l2:/dev/v4l/by-path/...-index0    # or http://…, https://…, file:/film.mp4, folder:/pictures
        width: 640
        height: 480
        fps: 15
        frame_id: front_optical_frame            # this is the default
        camera_info: calibration/front.yaml      # beside this file
        controls: {auto_exposure: 1, exposure_time_absolute: 150}

In `url`, `${NAME}` and `${NAME:-default}` stand for environment variables, which keeps passwords out of the file.
Everything is checked when it is read; a key that no one knows is an error, because a misspelt one would otherwise pass.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vla_core.errors import ConfigError
from vla_perception import calibration, located_yaml
from vla_perception.calibration import Calibration

CAMERA_NAME = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*_?")
"""ROS 2 topic tokens: letters, digits, single underscores, starting with a letter."""

FRAME_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/.-]*")
"""tf2 refuses frames that start with a slash."""

CONTROL_NAME = re.compile(r"[a-z0-9_]+")
"""As `v4l2-ctl --list-ctrls` prints them."""

SCHEMES: dict[str, str] = {"v4l2": "v4l2", "http": "http", "https": "http", "file": "file", "folder": "folder"}
"""Scheme of an address to kind of source."""

KEYS_OF_KIND: dict[str, frozenset[str]] = {
    "v4l2": frozenset({"width", "height", "fps", "controls"}),
    "http": frozenset({"fps"}),
    "file": frozenset({"width", "height", "fps"}),
    "folder": frozenset({"width", "height", "fps"}),
}
COMMON_KEYS = frozenset({"url", "frame_id", "camera_info"})

CREDENTIALS = re.compile(r"//[^/]*@")

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
"""`${NAME}` or `${NAME:-default}`, as in compose files."""

MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192
MAX_FPS = 240.0
"""Above what any webcam delivers."""


class KeyConfigError(ConfigError):
    """A ConfigError about one key, so that the loader can name its line."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key} {text}")
        self.key = key


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """One camera.

    Attributes:
        name: part of its topics' names.
        url: where its pictures come from; paths are absolute.
        width, height: px, asked of a V4L2 device; pictures of files are cropped and resized to it. None: as they are.
        fps: frames a second, asked of a V4L2 device; the pace of a folder or film; what is expected of a stream.
        frame_id: of the optical frame (REP-103), in headers.
        calibration: from the file under `camera_info`, or None.
        controls: V4L2 controls by v4l2-ctl's name, set in this order.
    """

    name: str
    url: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    frame_id: str = ""
    calibration: Calibration | None = None
    controls: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not CAMERA_NAME.fullmatch(self.name):
            raise ConfigError(
                f"camera name {self.name!r} cannot be part of a ROS topic; allowed: letters, digits and single "
                "underscores, starting with a letter"
            )
        _check_url(self.url)
        _check_size(self.width, self.height)
        if self.fps is not None and not (_is_number(self.fps) and 0 < self.fps <= MAX_FPS):
            raise KeyConfigError("fps", f"is {self.fps!r}; allowed: a number above 0, up to {MAX_FPS:g}")
        if not self.frame_id:
            object.__setattr__(self, "frame_id", f"{self.name}_optical_frame")
        if not FRAME_ID.fullmatch(self.frame_id):
            raise KeyConfigError(
                "frame_id", f"is {self.frame_id!r}; allowed: letters, digits, _ / . -, no slash in front"
            )
        self._check_keys_of_kind()

    def _check_keys_of_kind(self) -> None:
        allowed = KEYS_OF_KIND[self.kind]
        for key in ("width", "height", "controls"):
            if getattr(self, key) and key not in allowed:
                cure = "set it at the server that sends the stream" if self.kind == "http" else "leave it out"
                raise KeyConfigError(key, f"has no effect on a {self.kind}: source; {cure}")

    @property
    def kind(self) -> str:
        """v4l2, http, file or folder."""
        return SCHEMES[self.url.split(":", 1)[0]]

    @property
    def path(self) -> Path:
        """What stands behind the scheme of a v4l2, file or folder address."""
        return _path_of(self.url)

    @property
    def shown_url(self) -> str:
        """The address without its password, for logs and diagnostics."""
        return redacted(self.url)


def redacted(url: str) -> str:
    """An address without the user's name and password."""
    return CREDENTIALS.sub("//***@", url)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _path_of(url: str) -> Path:
    rest = url.split(":", 1)[1]
    return Path(rest.removeprefix("//"))


def _check_url(url: object) -> None:
    allowed = "v4l2:/dev/…, http://…, https://…, file:/film.mp4, folder:/pictures"
    if not isinstance(url, str):
        raise KeyConfigError("url", f"is {url!r}; allowed: {allowed}")
    shown = redacted(url)
    if url.split(":", 1)[0] not in SCHEMES or ":" not in url:
        raise KeyConfigError("url", f"is {shown!r}; allowed: {allowed}")
    if SCHEMES[url.split(":", 1)[0]] != "http":
        if not _path_of(url).is_absolute():
            raise KeyConfigError("url", f"is {shown!r}, without a path; allowed: {allowed}")
        return
    if any(character.isspace() or not character.isprintable() for character in url):
        raise KeyConfigError("url", f"is {shown!r}; it must not hold blanks (write %20)")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise KeyConfigError("url", f"is {shown!r}: {error}") from error
    if not usable:
        raise KeyConfigError("url", f"is {shown!r}, without a host; write http://host:port/path")


def _check_size(width: object, height: object) -> None:
    for key, value in (("width", width), ("height", height)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not MIN_SIDE_PX <= value <= MAX_SIDE_PX:
            raise KeyConfigError(key, f"is {value!r}; allowed: a whole number of px, {MIN_SIDE_PX} to {MAX_SIDE_PX}")
    if (width is None) != (height is None):
        missing, other = ("width", "height") if width is None else ("height", "width")
        raise KeyConfigError(other, f"is given without {missing}; give both or neither")


def load(path: Path, environment: Mapping[str, str] = os.environ) -> tuple[CameraConfig, ...]:
    """Read and check a cameras file, and the calibration files that it names.

    Raises:
        ConfigError: names the file, the line, the camera, the key, its value, and what is allowed.
    """
    data = located_yaml.load(path)
    if not isinstance(data, located_yaml.Mapping) or not isinstance(data.get("cameras"), located_yaml.Mapping):
        raise ConfigError(f"{path}: needs the key `cameras`, a mapping of camera names to their settings")
    for key in data:
        if key != "cameras":
            raise ConfigError(f"{path}: line {data.lines[key]}: unknown key {key!r}; allowed: cameras")
    cameras = data["cameras"]
    if not cameras:
        raise ConfigError(f"{path}: line {data.lines['cameras']}: `cameras` is empty; it must name at least one camera")
    configs = tuple(
        _camera(path, name, settings, cameras.lines[name], environment) for name, settings in cameras.items()
    )
    _refuse_shared_devices(path, configs, cameras.lines)
    return configs


def _camera(path: Path, name: str, settings: object, line: int, environment: Mapping[str, str]) -> CameraConfig:
    if not isinstance(settings, located_yaml.Mapping):
        raise ConfigError(f"{path}: line {line}: camera {name!r} needs settings, at least `url`, not {settings!r}")
    try:
        return _build(path.parent, name, settings, environment)
    except KeyConfigError as error:
        where = settings.lines.get(error.key, line)
        raise ConfigError(f"{path}: line {where}: camera {name!r}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: line {line}: camera {name!r}: {error}") from error


def _build(folder: Path, name: str, settings: located_yaml.Mapping, environment: Mapping[str, str]) -> CameraConfig:
    if "url" not in settings:
        raise ConfigError("url is missing; it says where the pictures come from")
    values: dict[str, Any] = dict(settings)
    values["url"] = _absolute(folder, _expanded(values["url"], environment))
    allowed = COMMON_KEYS | KEYS_OF_KIND.get(SCHEMES.get(str(values["url"]).split(":", 1)[0], ""), _all_keys())
    for key in settings:
        if key not in COMMON_KEYS | _all_keys():
            raise KeyConfigError(key, f"is an unknown key; allowed: {', '.join(sorted(allowed))}")
    values["controls"] = _controls(values.get("controls"))
    if "frame_id" in values and not isinstance(values["frame_id"], str):
        raise KeyConfigError("frame_id", f"is {values['frame_id']!r}; it must be text")
    if "camera_info" in values:
        values["calibration"] = _calibration(folder, values.pop("camera_info"))
    return CameraConfig(name=name, **values)


def _all_keys() -> frozenset[str]:
    return frozenset(field.name for field in fields(CameraConfig)) - {"name", "calibration", *COMMON_KEYS}


def _expanded(url: object, environment: Mapping[str, str]) -> object:
    if not isinstance(url, str):
        return url

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name not in environment and default is None:
            raise KeyConfigError(
                "url", f"needs the environment variable {name}, which is not set; set it, or a default"
            )
        return environment.get(name, default or "")

    return VARIABLE.sub(value, url)


def _absolute(folder: Path, url: object) -> object:
    """Paths of files and folders may be relative to the cameras file."""
    if not isinstance(url, str) or url.split(":", 1)[0] not in ("file", "folder") or ":" not in url:
        return url
    scheme = url.split(":", 1)[0]
    return f"{scheme}:{(folder / _path_of(url).expanduser()).absolute()}" if url != f"{scheme}:" else url


def _calibration(folder: Path, name: object) -> Calibration:
    if not isinstance(name, str) or not name:
        raise KeyConfigError("camera_info", f"is {name!r}; it must be the path of a calibration file")
    try:
        return calibration.load(folder / Path(name).expanduser())
    except ConfigError as error:
        raise KeyConfigError("camera_info", str(error)) from error


def _controls(controls: object) -> tuple[tuple[str, int], ...]:
    if controls is None:
        return ()
    if not isinstance(controls, dict):
        raise KeyConfigError("controls", f"is {controls!r}; it must map V4L2 control names to whole numbers")
    for name, value in controls.items():
        if not CONTROL_NAME.fullmatch(name):
            raise KeyConfigError("controls", f"names {name!r}; names are those of `v4l2-ctl --list-ctrls`")
        if not isinstance(value, int):
            raise KeyConfigError("controls", f"sets {name} to {value!r}; allowed: whole numbers and true or false")
    return tuple((name, int(value)) for name, value in controls.items())


def _refuse_shared_devices(path: Path, configs: tuple[CameraConfig, ...], lines: dict[str, int]) -> None:
    owner: dict[str, str] = {}
    for config in configs:
        if config.kind != "v4l2":
            continue
        if config.url in owner:
            raise ConfigError(
                f"{path}: line {lines[config.name]}: cameras {owner[config.url]!r} and {config.name!r} both read "
                f"{config.url}; a V4L2 device serves one reader, give each its own"
            )
        owner[config.url] = config.name
