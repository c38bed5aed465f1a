"""The node `/cameras`: wires camera threads to topics. What it decides stands in the modules that it imports."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vla_core.errors import ConfigError, ImageError
from vla_core.image import decode_jpeg, jpeg_size
from vla_perception import config
from vla_perception.calibration import Calibration
from vla_perception.camera import Camera
from vla_perception.config import CameraConfig
from vla_perception.frame import Frame
from vla_perception.health import Level, judge
from vla_perception.mailbox import Mailbox
from vla_perception.sources import make_source
from vla_ros import diagnostics
from vla_ros.main import run
from vla_ros.params import declare, param
from vla_ros.qos import CAMERA_PUB, DIAGNOSTICS
from vla_ros.stamps import to_msg

try:
    from cv_bridge import CvBridge
except ImportError:  # the wheel does not exist for aarch64, and Debian's builds of it break under numpy 2
    CvBridge = None

DIAGNOSTICS_PERIOD_S = 1.0

END_TIMEOUT_S = 1.0
"""For all cameras together. An interrupted source returns at once; only a name server or a connect may hold its thread
longer, and those threads are daemons."""

LEVELS = {Level.OK: diagnostics.OK, Level.WARN: diagnostics.WARN, Level.ERROR: diagnostics.ERROR}


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of the node."""

    cameras_file: str = param("", "YAML file that names the cameras and where their pictures come from")

    def __post_init__(self) -> None:
        if not self.cameras_file:
            raise ConfigError("parameter 'cameras_file' is empty; give the path of a cameras file")


class Channel:
    """The three topics of one camera. Decoding and camera_info cost nothing while nobody subscribes to them."""

    def __init__(self, node: Node, camera: Camera) -> None:
        self._config: CameraConfig = camera.config
        self._health = camera.health
        self._bridge = CvBridge() if CvBridge is not None else None

        def publisher(kind: type, name: str):
            topic = f"camera/{self._config.name}/{name}"
            overridable = QoSOverridingOptions.with_default_policies()
            return node.create_publisher(kind, topic, CAMERA_PUB, qos_overriding_options=overridable)

        self._compressed = publisher(CompressedImage, "image_raw/compressed")
        self._raw = publisher(Image, "image_raw")
        self._info = publisher(CameraInfo, "camera_info")
        self._message = CompressedImage(format="jpeg")
        self._message.header.frame_id = self._config.frame_id

    def publish(self, frame: Frame) -> None:
        """Send one frame to whoever listens."""
        message = self._message
        message.header.stamp = to_msg(frame.stamp_ns)
        message.data = frame.jpeg  # bytes: rclpy copies a numpy array element by element, sixty times slower
        self._compressed.publish(message)
        self._health.published(frame.stamp_ns, time.time_ns(), time.monotonic_ns())
        try:
            if self._info.get_subscription_count():
                self._publish_info(frame)
            if self._raw.get_subscription_count():
                self._publish_raw(frame)
        except ImageError:
            self._health.count(dropped=0, corrupt=1)  # a JPEG with both ends, but nonsense in between

    def _publish_info(self, frame: Frame) -> None:
        width, height = jpeg_size(frame.jpeg)
        message = CameraInfo(header=self._message.header, width=width, height=height)
        calibration = self._config.calibration
        if calibration is not None and (calibration.width, calibration.height) != (width, height):
            self._health.notice(
                f"camera_info is for {calibration.width}x{calibration.height}, the pictures are {width}x{height}: sent "
                "as uncalibrated; calibrate at this size"
            )
        elif calibration is not None:
            _fill(message, calibration)
        self._info.publish(message)  # without calibration: zeros and the size, as REP-104 has it

    def _publish_raw(self, frame: Frame) -> None:
        rgb = decode_jpeg(frame.jpeg)
        message = _image(rgb) if self._bridge is None else self._bridge.cv2_to_imgmsg(rgb, encoding="rgb8")
        message.header = self._message.header
        self._raw.publish(message)


def _image(rgb: np.ndarray) -> Image:
    """What cv_bridge makes of `(height, width, 3)` uint8 RGB."""
    height, width, channels = rgb.shape
    return Image(height=height, width=width, encoding="rgb8", step=width * channels, data=rgb.tobytes())


def _fill(message: CameraInfo, calibration: Calibration) -> None:
    message.distortion_model = calibration.distortion_model
    message.d = list(calibration.d)
    message.k, message.r, message.p = (np.array(values) for values in (calibration.k, calibration.r, calibration.p))


class CamerasNode(Node):
    """One thread a camera, one that publishes, and the executor's for diagnostics."""

    def __init__(self) -> None:
        super().__init__("cameras")
        settings = declare(self, Settings)
        configs = config.load(Path(settings.cameras_file).expanduser())
        self._mailbox = Mailbox()
        self._cameras = [Camera(each, make_source, self._mailbox.put, self._log) for each in configs]
        self._channels = {camera.config.name: Channel(self, camera) for camera in self._cameras}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)
        self._publishing = Thread(target=self._publish_frames, name="publish", daemon=True)
        self._publishing.start()
        for camera in self._cameras:
            camera.start()
        self.get_logger().info(f"{len(configs)} cameras: {', '.join(self._channels)}")

    def destroy_node(self) -> None:
        """Stop the threads before what they publish with goes away."""
        for camera in self._cameras:
            camera.stop()
        self._mailbox.close()
        deadline = time.monotonic() + END_TIMEOUT_S
        for camera in self._cameras:
            camera.join(max(0.0, deadline - time.monotonic()))
        self._publishing.join()
        super().destroy_node()

    def _publish_frames(self) -> None:
        while (frames := self._mailbox.take()) is not None:
            for name, frame in frames:
                try:
                    self._channels[name].publish(frame)
                except rclpy_implementation.RCLError:
                    if self.context.ok():
                        raise
                    return  # a signal has shut ROS down; destroy_node follows

    def _publish_diagnostics(self) -> None:
        if not self._publishing.is_alive() and self.context.ok():
            raise RuntimeError("the publishing thread died; its traceback stands above")
        now_system_ns, now_ns = time.time_ns(), time.monotonic_ns()
        statuses = [self._status(camera, now_system_ns, now_ns) for camera in self._cameras]
        self._diagnostics.publish(diagnostics.array(to_msg(now_system_ns), statuses))

    def _status(self, camera: Camera, now_system_ns: int, now_ns: int) -> DiagnosticStatus:
        health = camera.health.snapshot(now_system_ns, now_ns)
        level, message = judge(health, camera.config.fps)
        values = {
            "fps": health.fps,
            "dropped": health.dropped,
            "frames": health.frames,
            "corrupt": health.corrupt,
            "losses": health.losses,
            "age_ms": health.age_ms,
            "capture_p50_ms": health.capture_p50_ms,
            "capture_p95_ms": health.capture_p95_ms,
            "state": health.state.value,
            "last_error": health.last_error,
            "url": camera.config.shown_url,
        }
        name = f"{self.get_fully_qualified_name().lstrip('/')}: {camera.config.name}"
        return diagnostics.status(name, LEVELS[level], message, values, hardware_id=camera.config.shown_url)

    def _log(self, level: Level, text: str) -> None:
        logger = self.get_logger()
        if level is Level.OK:
            logger.info(text)
        elif level is Level.WARN:
            logger.warning(text)
        else:
            logger.error(text)


def main() -> None:
    """Entry point of `ros2 run vla_perception cameras`."""
    sys.exit(run(CamerasNode))


if __name__ == "__main__":
    main()
