"""The cameras file: what is accepted, and what its errors say."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_core.errors import ConfigError
from vla_perception.config import CameraConfig, load, redacted

CALIBRATION = """
image_width: 640
image_height: 480
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [600.0, 0, 320, 0, 600, 240, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [600.0, 0, 320, 0, 0, 600, 240, 0, 0, 0, 1, 0]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cameras.yaml"
    path.write_text(text)
    return path


def failure(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), {})
    return str(caught.value)


def test_all_settings(tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(CALIBRATION)
    path = write(
        tmp_path,
        """
cameras:
  front:
    url: v4l2:/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0
    width: 640
    height: 480
    fps: 15
    frame_id: front_optical
    camera_info: front.yaml
    controls: {auto_exposure: 1, exposure_time_absolute: 150, white_balance_automatic: false}
  left:
    url: http://user:secret@10.0.0.2:8080/stream?extra_headers=1
  film:
    url: file:film.mp4
  pictures:
    url: folder:/pictures
""",
    )
    front, left, film, pictures = load(path)
    assert (front.kind, front.width, front.height, front.fps, front.frame_id) == ("v4l2", 640, 480, 15, "front_optical")
    assert str(front.path) == "/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0"
    assert front.controls == (("auto_exposure", 1), ("exposure_time_absolute", 150), ("white_balance_automatic", 0))
    assert front.calibration is not None
    assert front.calibration.d == (0.1, -0.2, 0, 0, 0)
    assert left.frame_id == "left_optical_frame"
    assert left.shown_url == "http://***@10.0.0.2:8080/stream?extra_headers=1"
    assert film.path == tmp_path / "film.mp4"
    assert str(pictures.path) == "/pictures"


def test_settings_can_be_shared_by_yaml_merge(tmp_path: Path) -> None:
    text = """
cameras:
  left: &webcam
    url: v4l2:/dev/video0
    fps: 15
  right:
    <<: *webcam
    url: v4l2:/dev/video2
"""
    _, right = load(write(tmp_path, text))
    assert (right.url, right.fps) == ("v4l2:/dev/video2", 15)


def test_environment_variables_in_addresses(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras:\n  a: {url: 'http://${HOST}:${PORT:-8080}/a'}\n")
    assert load(path, {"HOST": "pi"})[0].url == "http://pi:8080/a"
    assert load(path, {"HOST": "pi", "PORT": "81"})[0].url == "http://pi:81/a"
    with pytest.raises(ConfigError, match="variable HOST"):
        load(path, {})


@pytest.mark.parametrize(
    ("settings", "line", "key", "allowed"),
    [
        ("url: v4l2:/dev/video0\n    widht: 640", 4, "widht", "width"),
        ("url: v4l2:/dev/video0\n    fps: 0", 4, "fps", "above 0"),
        ("url: v4l2:/dev/video0\n    fps: true", 4, "fps", "number"),
        ("url: v4l2:/dev/video0\n    fps: .nan", 4, "fps", "number"),
        ("url: v4l2:/dev/video0\n    width: 640", 4, "width", "both or neither"),
        ("url: v4l2:/dev/video0\n    width: 8\n    height: 480", 4, "width", "16 to 8192"),
        ("url: v4l2:/dev/video0\n    width: wide\n    height: 480", 4, "width", "whole number"),
        ("url: v4l2:/dev/video0\n    frame_id: /front", 4, "frame_id", "no slash in front"),
        ("url: v4l2:/dev/video0\n    frame_id: 3", 4, "frame_id", "text"),
        ("url: v4l2:/dev/video0\n    controls: 3", 4, "controls", "map"),
        ("url: v4l2:/dev/video0\n    controls: {Exposure: 3}", 4, "controls", "v4l2-ctl"),
        ("url: v4l2:/dev/video0\n    controls: {gain: high}", 4, "controls", "whole numbers"),
        ("url: v4l2:/dev/video0\n    camera_info: none.yaml", 4, "camera_info", "none.yaml"),
        ("url: http://host/a\n    width: 640\n    height: 480", 4, "width", "at the server"),
        ("url: http://host/a\n    controls: {gain: 1}", 4, "controls", "at the server"),
        ("url: folder:/a\n    controls: {gain: 1}", 4, "controls", "leave it out"),
        ("url: rtsp://host/a", 3, "url", "http://"),
        ("url: http:///a", 3, "url", "host"),
        ("url: http://host:99999/a", 3, "url", "range"),
        ("url: http://host/a b", 3, "url", "%20"),
        ("url: v4l2:video0", 3, "url", "path"),
        ("url: 0", 3, "url", "v4l2:/dev"),
        ("fps: 15", 2, "url", "where the pictures come from"),
    ],
)
def test_errors_name_file_line_camera_key_and_cure(
    tmp_path: Path, settings: str, line: int, key: str, allowed: str
) -> None:
    message = failure(tmp_path, f"cameras:\n  front:\n    {settings}\n")
    assert f"{tmp_path / 'cameras.yaml'}: line {line}: camera 'front': {key}" in message
    assert allowed in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "needs the key `cameras`"),
        ("cameras:\n", "needs the key `cameras`"),
        ("cameras: {}\n", "line 1: `cameras` is empty"),
        ("cameras: {a: {url: folder:/a}}\ncamera: 3\n", "line 2: unknown key 'camera'; allowed: cameras"),
        ("cameras:\n  a: {url: folder:/a}\n  a: {url: folder:/b}\n", "line 3: 'a' stands twice, first in line 2"),
        ("cameras:\n  a:\n    url: folder:/a\n    url: folder:/b\n", "line 4: 'url' stands twice"),
        ("cameras:\n  on: {url: folder:/a}\n", "line 2: the key 'on' is not text; put it in quotes"),
        ("cameras:\n  [1]: {url: folder:/a}\n", "not text"),
        ("cameras:\n  a: 3\n", "line 2: camera 'a' needs settings"),
        ("cameras:\n  a:\n", "line 2: camera 'a' needs settings"),
        (
            "cameras:\n  2nd: {url: folder:/a}\n",
            "line 2: camera '2nd': camera name '2nd' cannot be part of a ROS topic",
        ),
        ("cameras:\n  a b: {url: folder:/a}\n", "cannot be part of a ROS topic"),
        ("cameras:\n  a__b: {url: folder:/a}\n", "single underscores"),
        ("cameras: [\n", "line 2: no valid YAML"),
        (
            "cameras:\n  a: {url: 'v4l2:/dev/video0'}\n  b: {url: 'v4l2:/dev/video0'}\n",
            "line 3: cameras 'a' and 'b' both read v4l2:/dev/video0",
        ),
    ],
)
def test_errors_of_the_file_as_a_whole(tmp_path: Path, text: str, expected: str) -> None:
    message = failure(tmp_path, text)
    assert message.startswith(str(tmp_path / "cameras.yaml"))
    assert expected in message


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/cameras\.yaml: cannot be read"):
        load(Path("/nowhere/cameras.yaml"))


def test_no_message_shows_a_password(tmp_path: Path) -> None:
    message = failure(tmp_path, "cameras: {a: {url: 'http://user:secret@host/a b'}}")
    assert "secret" not in message
    assert redacted("http://user:p@ss@host/x@y") == "http://***@host/x@y"
    assert redacted("http://host/x@y") == "http://host/x@y"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("image_width: 640", "image_width: wide"), "image_width"),
        (("image_height: 480\n", ""), "image_height is missing"),
        (("plumb_bob", "plum_bob"), "rational_polynomial"),
        (("data: [0.1, -0.2, 0, 0, 0]", "data: [0.1]"), "plumb_bob takes 4 or 5"),
        (("data: [600.0, 0, 320, 0, 600, 240, 0, 0, 1]", "data: [600.0]"), "camera_matrix needs `data`, a list of 9"),
        (("[600.0, 0, 320, 0, 600, 240, 0, 0, 1]", "[0.0, 0, 320, 0, 600, 240, 0, 0, 1]"), "focal lengths"),
        (("[0.1, -0.2", "[.inf, -0.2"), "no finite number"),
    ],
)
def test_errors_of_a_calibration_name_its_file(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    (tmp_path / "front.yaml").write_text(CALIBRATION.replace(*change))
    message = failure(tmp_path, "cameras:\n  front:\n    url: folder:/a\n    camera_info: front.yaml\n")
    assert f"line 4: camera 'front': camera_info {tmp_path / 'front.yaml'}: " in message
    assert expected in message


def test_a_config_cannot_be_built_wrong() -> None:
    with pytest.raises(ConfigError, match="fps"):
        CameraConfig("front", "folder:/a", fps=-1)


@pytest.mark.parametrize("name", ["cameras_sim.yaml", "cameras_usb.yaml"])
def test_the_shipped_files_name_the_eight_cameras(name: str) -> None:
    folder = Path(__file__).parents[3] / "launch" / "config"
    cameras = load(folder / name, {})
    assert {camera.name for camera in cameras} == {
        "overhead", "front", "front_left", "front_right", "left", "right", "rear", "wrist",
    }  # fmt: skip
    assert {camera.fps for camera in cameras} == {15}
    assert len({camera.url for camera in cameras}) == 8
