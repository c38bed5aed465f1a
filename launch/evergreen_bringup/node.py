"""The node `/robot_description`: publishes the arm's URDF where robot_state_publisher is not there to do it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rclpy.node import Node
from std_msgs.msg import String

from vla_core.errors import ConfigError
from vla_ros import qos
from vla_ros.main import run
from vla_ros.params import declare, param

SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of the node."""

    robot_description: str = param("", "the robot as URDF, the text itself")

    def __post_init__(self) -> None:
        if "<robot" not in self.robot_description:
            start = self.robot_description[:SHOWN_CHARACTERS]
            raise ConfigError(f"parameter 'robot_description' is no URDF (no <robot> in it); it begins with {start!r}")


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
