"""How Evergreen's nodes talk: over UDP, not over Fast DDS's shared memory.

A process that is killed while it takes a message out of its shared-memory port leaves that port looking sound. The
process that comes after it removes the port and makes another of the same name, and whoever wrote to the old one goes
on writing to it: a policy that was killed and started again never sees a picture, until the cameras are started anew
too (Fast DDS 2.14, `SharedMemGlobal::open_port_internal`; eProsima/Fast-DDS 5053, 5469, 4728). docs/adr/0015 has the
figures.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path

PROFILES = Path(__file__).with_name("fastdds")
PROFILES_FILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
CHOSEN_BY_USER = (PROFILES_FILE, "FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS", "ROS_STATIC_PEERS")
"""Whoever sets one of these has chosen. The last is read in a discovery range that `localhost.xml` replaces."""
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
LOCALHOST, SUBNET, SYSTEM_DEFAULT = "LOCALHOST", "SUBNET", "SYSTEM_DEFAULT"


def prefer_udp(middleware: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let participants that this process makes from now on use UDP alone, unless the environment says what to use.

    In the range LOCALHOST, rmw_fastrtps adds shared memory whatever a profile says. So there the profile does what that
    range does, and the range is left to it. Processes that this one starts inherit both.

    Args:
        middleware: as rclpy.get_rmw_implementation_identifier() names it; all but Fast DDS are left alone.
        environment: is changed.
    """
    if not middleware.startswith("rmw_fastrtps") or any(environment.get(name) for name in CHOSEN_BY_USER):
        return
    discovery = environment.get(RANGE) or SUBNET
    if discovery == LOCALHOST:
        environment[RANGE] = SYSTEM_DEFAULT
        environment[PROFILES_FILE] = str(PROFILES / "localhost.xml")
    elif discovery in {SUBNET, SYSTEM_DEFAULT}:
        environment[PROFILES_FILE] = str(PROFILES / "network.xml")
