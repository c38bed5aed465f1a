"""The node `/robot_description`: publishes the arm's URDF where robot_state_publisher, which also does, is not installed."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from rclpy.node import Node
from std_msgs.msg import String

from vla_core.errors import ConfigError
from vla_ros import qos
from vla_ros.main import run
from vla_ros.params import declare, param


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of the node."""

    robot_description: str = param("", "the robot as URDF, the text itself")

    def __post_init__(self) -> None:
        try:
            root = ET.fromstring(self.robot_description)
        except ET.ParseError as error:
            raise ConfigError(f"parameter 'robot_description' is no XML ({error}); give it a URDF's text") from error
        if root.tag != "robot":
            raise ConfigError(f"parameter 'robot_description' is a <{root.tag}>; a URDF begins with <robot>")


class RobotDescription(Node):
    """Publishes once; late subscribers get it as well."""

    def __init__(self) -> None:
        super().__init__("robot_description")
        settings = declare(self, Settings)
        publisher = self.create_publisher(String, "robot_description", qos.STATUS)
        publisher.publish(String(data=settings.robot_description))


def main() -> int:
    """Run it."""
    return run(RobotDescription)


if __name__ == "__main__":
    sys.exit(main())
