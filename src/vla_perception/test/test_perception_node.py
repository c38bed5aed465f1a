"""The node `/cameras` as a process, fed by real HTTP streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from vla_core.image import encode_jpeg
from vla_perception.sources.http_fake import StreamServer

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from vla_ros import diagnostics  # noqa: E402
from vla_ros.stamps import to_ns  # noqa: E402

pytestmark = pytest.mark.ros

DOMAIN = "44"
WAIT_S = 60.0
EXIT_S = 20.0
WIDTH, HEIGHT = 64, 48
PERIOD_S = 1 / 30

CALIBRATION = """
image_width: 64
image_height: 48
camera_matrix: {rows: 3, cols: 3, data: [60.0, 0, 32, 0, 60, 24, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [60.0, 0, 32, 0, 0, 60, 24, 0, 0, 0, 1, 0]}
"""


def picture(level: int) -> bytes:
    return encode_jpeg(np.full((HEIGHT, WIDTH, 3), level, np.uint8))


class Pump:
    """A server that shows one picture 30 times a second on a few paths."""

    def __init__(self, paths: dict[str, bytes], port: int = 0) -> None:
        self.server = StreamServer(port)
        self._paths = paths
        self._stop = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            stamp = time.time_ns()
            for path, jpeg in self._paths.items():
                headers = {"X-Timestamp": f"{stamp // 10**9}.{stamp % 10**9:09d}"}
                self.server.push(path, jpeg, headers)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()


class CamerasProcess:
    """The node under test."""

    def __init__(self, cameras_file: Path, log: Path, *arguments: str) -> None:
        self.log = log
        environment = os.environ | {"ROS_DOMAIN_ID": DOMAIN, "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        command = [sys.executable, "-m", "vla_perception.node", "--ros-args", "-p", f"cameras_file:={cameras_file}"]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                # pytest in the background of a script inherits an ignored SIGINT
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(EXIT_S)

    def text(self) -> str:
        return self.log.read_text()


class Listener:
    """Subscribes in the test's process; `wait` spins until something is true."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=int(DOMAIN))
        self.node = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.statuses: dict[str, DiagnosticStatus] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.statuses.update({status.name: status for status in message.status})

    def subscribe(self, kind: type, topic: str) -> list:
        messages: list = []
        self.node.create_subscription(kind, topic, messages.append, qos_profile_sensor_data)
        return messages

    def values(self, camera: str) -> dict[str, str]:
        status = self.statuses.get(f"cameras: {camera}")
        return diagnostics.values(status) if status is not None else {}

    def wait(self, what: str, true: Callable[[], object], cameras: CamerasProcess) -> None:
        deadline = time.monotonic() + WAIT_S
        while not true():
            assert cameras.process.poll() is None, f"the node ended:\n{cameras.text()}"
            assert time.monotonic() < deadline, f"no {what} within {WAIT_S} s:\n{cameras.text()}"
            self._executor.spin_once(timeout_sec=0.1)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., CamerasProcess]]:
    started: list[CamerasProcess] = []

    def run(text: str, *arguments: str) -> CamerasProcess:
        (tmp_path / "cameras.yaml").write_text(text)
        started.append(CamerasProcess(tmp_path / "cameras.yaml", tmp_path / "log.txt", *arguments))
        return started[-1]

    yield run
    for cameras in started:
        if cameras.process.poll() is None:
            cameras.process.kill()
        cameras.process.wait(EXIT_S)


def test_one_absent_camera_stops_no_other_and_returns(
    listener: Listener, start: Callable[..., CamerasProcess], tmp_path: Path
) -> None:
    (tmp_path / "front.yaml").write_text(CALIBRATION)
    present, late = Pump({"/front": picture(200)}), StreamServer()
    late_url, late_port = late.url("/left"), late.port
    late.close()  # its port is free now, and nobody answers
    cameras = start(
        f"""
cameras:
  front: {{url: '{present.server.url("/front")}', fps: 30, camera_info: front.yaml}}
  left: {{url: '{late_url}', frame_id: left_eye}}
"""
    )
    compressed = listener.subscribe(CompressedImage, "camera/front/image_raw/compressed")
    raw = listener.subscribe(Image, "camera/front/image_raw")
    info = listener.subscribe(CameraInfo, "camera/front/camera_info")
    left = listener.subscribe(CompressedImage, "camera/left/image_raw/compressed")
    left_info = listener.subscribe(CameraInfo, "camera/left/camera_info")

    listener.wait("frames", lambda: len(compressed) > 5 and raw and info, cameras)
    listener.wait("lost left", lambda: listener.values("left").get("state") == "lost", cameras)
    listener.wait("two more tries", lambda: int(listener.values("left")["losses"]) >= 3, cameras)

    frame = compressed[-1]
    assert (frame.format, frame.header.frame_id) == ("jpeg", "front_optical_frame")
    assert bytes(frame.data) == picture(200), "passed through undecoded"
    assert 0 <= time.time_ns() - to_ns(compressed[-1].header.stamp) < WAIT_S * 1e9
    assert len({to_ns(each.header.stamp) for each in compressed}) == len(compressed)
    assert (raw[-1].encoding, raw[-1].width, raw[-1].height, raw[-1].step) == ("rgb8", WIDTH, HEIGHT, 3 * WIDTH)
    assert set(raw[-1].data[:300]) <= {199, 200, 201}
    assert (info[-1].width, info[-1].k[0], info[-1].distortion_model) == (WIDTH, 60.0, "plumb_bob")
    stamps = {to_ns(each.header.stamp) for each in compressed}
    assert to_ns(info[0].header.stamp) in stamps
    assert to_ns(raw[0].header.stamp) in stamps

    front = listener.values("front")
    assert front["state"] == "streaming"
    assert {"fps", "dropped", "frames", "age_ms", "url", "capture_p50_ms", "capture_p95_ms"} <= set(front)
    assert listener.statuses["cameras: left"].level == DiagnosticStatus.ERROR
    assert "Connection refused" in listener.values("left")["last_error"]

    back = Pump({"/left": picture(50)}, late_port)
    listener.wait("left back", lambda: left and left_info, cameras)
    listener.wait("left streaming", lambda: listener.values("left")["state"] == "streaming", cameras)
    assert left[-1].header.frame_id == "left_eye"
    assert (left_info[-1].width, left_info[-1].k[0]) == (WIDTH, 0.0), "uncalibrated is all zeros (REP-104)"

    assert cameras.stop() == 0, cameras.text()
    log = cameras.text()
    assert log.count("camera 'left' is gone") == 1, log
    assert "is the camera server running?" in log
    assert log.count("is back after") == 1, log
    assert "Traceback" not in log
    present.close()
    back.close()


def test_names_follow_the_namespace_and_sigterm_ends_well(
    listener: Listener, start: Callable[..., CamerasProcess], tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.jpg").write_bytes(picture(100))
    cameras = start("cameras: {wrist: {url: 'folder:pictures', fps: 30}}", "-r", "__ns:=/second_arm")
    frames = listener.subscribe(CompressedImage, "/second_arm/camera/wrist/image_raw/compressed")
    statuses = listener.subscribe(DiagnosticArray, "/diagnostics")  # where diagnostic_aggregator listens
    listener.wait("frames in the namespace and diagnostics", lambda: frames and statuses, cameras)
    assert statuses[-1].status[0].name == "second_arm/cameras: wrist"
    assert cameras.stop(signal.SIGTERM) == 0, cameras.text()


def test_a_wrong_cameras_file_is_one_line_and_exit_code_2(start: Callable[..., CamerasProcess]) -> None:
    cameras = start("cameras: {front: {url: 'http://host/a', widht: 640}}")
    assert cameras.process.wait(EXIT_S) == 2
    (line,) = [each for each in cameras.text().splitlines() if each.startswith("error: ")]
    assert "line 1: camera 'front': widht is an unknown key" in line
    assert "Traceback" not in cameras.text()
