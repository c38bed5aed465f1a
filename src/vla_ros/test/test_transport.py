"""Over what participants of this process talk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_ros.transport import CHOSEN_BY_USER, PROFILES_FILE, RANGE, prefer_udp

FAST_DDS = "rmw_fastrtps_cpp"
BUILTIN = "FASTDDS_BUILTIN_TRANSPORTS"


@pytest.mark.parametrize(
    ("before", "after", "profile"),
    [
        ({}, {}, "network.xml"),
        ({RANGE: "", BUILTIN: ""}, {RANGE: "", BUILTIN: ""}, "network.xml"),
        ({RANGE: "SUBNET"}, {RANGE: "SUBNET"}, "network.xml"),
        ({RANGE: "LOCALHOST"}, {RANGE: "SYSTEM_DEFAULT"}, "localhost.xml"),
    ],
)
def test_nodes_talk_over_udp(before: dict[str, str], after: dict[str, str], profile: str) -> None:
    prefer_udp(FAST_DDS, before)
    path = Path(before.pop(PROFILES_FILE))
    assert (before, path.name) == (after, profile)
    assert path.is_file()


@pytest.mark.parametrize("name", CHOSEN_BY_USER)
def test_what_the_user_chose_stands(name: str) -> None:
    environment = {name: "mine", RANGE: "LOCALHOST"}
    prefer_udp(FAST_DDS, environment)
    assert environment == {name: "mine", RANGE: "LOCALHOST"}


@pytest.mark.parametrize(("middleware", "discovery"), [("rmw_cyclonedds_cpp", "LOCALHOST"), (FAST_DDS, "OFF")])
def test_what_has_no_shared_memory_is_left_alone(middleware: str, discovery: str) -> None:
    environment = {RANGE: discovery}
    prefer_udp(middleware, environment)
    assert environment == {RANGE: discovery}


SHARED = """
import pathlib
from rclpy.node import Node
from vla_ros.spinning import spinning

with spinning(lambda: Node("quiet")):
    print("fastrtps_port" in pathlib.Path("/proc/self/maps").read_text())
"""


@pytest.mark.ros
@pytest.mark.parametrize("discovery", ["LOCALHOST", "SUBNET"])
@pytest.mark.parametrize(("chosen", "shared"), [({}, "False"), ({BUILTIN: "DEFAULT"}, "True")])
def test_a_node_opens_no_shared_memory_unless_told_to(discovery: str, chosen: dict[str, str], shared: str) -> None:
    kept = {name: text for name, text in os.environ.items() if name not in CHOSEN_BY_USER}
    environment = kept | {RANGE: discovery, "ROS_DOMAIN_ID": "58"} | chosen
    command = [sys.executable, "-c", SHARED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.strip(), done.stderr) == (shared, "")
