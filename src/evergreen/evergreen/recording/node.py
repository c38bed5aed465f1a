"""The recorder's ROS node: subscribes to what is there, passes raw messages on, offers services. Decides nothing."""

from __future__ import annotations

import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from evergreen.recording.recorder import Message
from evergreen.recording.topics import Topics
from vla_ros import qos

LOOK_PERIOD_S = 0.5
"""Between two looks for new topics."""
_CLASSES = {
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/JointState": JointState,
    "trajectory_msgs/msg/JointTrajectory": JointTrajectory,
    "std_msgs/msg/String": String,
    "diagnostic_msgs/msg/DiagnosticStatus": DiagnosticStatus,
}


class RecorderNode(Node):
    """Calls `take` for every message of the topics that `topics` wants."""

    def __init__(
        self, topics: Topics, take: Callable[[Message], None], services: Mapping[str, Callable[[], tuple[bool, str]]]
    ) -> None:
        super().__init__("recorder")
        self._topics = topics
        self._take = take
        self.subscribed: set[str] = set()
        for name, action in services.items():
            self.create_service(Trigger, f"~/{name}", partial(self._serve, action))
        self.create_timer(LOOK_PERIOD_S, self._look)
        self._look()

    def _look(self) -> None:
        """Subscribe to what has appeared."""
        for name, types in self.get_topic_names_and_types():
            relative = self._relative(name)
            if name in self.subscribed or relative is None or self._topics.wanted(relative) not in types:
                continue
            publishers = self.get_publishers_info_by_topic(name)
            if not publishers:
                continue
            datatype = self._topics.wanted(relative)
            profile = qos.recording([publisher.qos_profile for publisher in publishers])
            self.create_subscription(
                _CLASSES[datatype], name, partial(self._on_message, relative, datatype), profile, raw=True
            )
            self.subscribed.add(name)

    def _relative(self, name: str) -> str | None:
        """The topic's name below this node's namespace; None where it lies elsewhere."""
        prefix = self.get_namespace().rstrip("/") + "/"
        return name[len(prefix) :] if name.startswith(prefix) else None

    def _on_message(self, topic: str, datatype: str, data: bytes, info: Mapping[str, Any]) -> None:
        now_ns = time.time_ns()
        sent_ns = int(info.get("source_timestamp") or now_ns)
        received_ns = int(info.get("received_timestamp") or now_ns)
        self._take(Message(topic, datatype, data, received_ns, sent_ns))

    def _serve(
        self, action: Callable[[], tuple[bool, str]], _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = action()
        return response
