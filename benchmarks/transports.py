"""Fast DDS's shared memory beside UDP: deaf nodes after a kill, and raw pictures of eight cameras lost on the way.

    python benchmarks/transports.py --json out/transports.json

Two processes publish pictures far more often than cameras do, and two more keep the processors busy, so that many kills
come in the middle of a message. Another hears both, is killed as soon as it has, and is started again. For the raw
pictures, nothing else runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import selectors
import signal
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import rclpy
from report import machine, publish
from sensor_msgs.msg import CompressedImage, Image

from evergreen.demo.resources import free_domain
from vla_ros.qos import CAMERA_PUB, CAMERA_SUB
from vla_ros.transport import CHOSEN_BY_USER, prefer_udp

SHARED_MEMORY, UDP = "shared memory", "UDP"
PICTURE = bytes(60_000)
PERIOD_S = 0.002
DEAF_S = 20.0
"""A node that starts on a busy machine hears its first message within a few seconds."""
LISTENING_S = 0.2
TALKERS = ("front", "wrist")
TOPICS = ("picture", "preview")
"""Of each talker."""
BUSY = 2
RAW, CAMERAS, FPS, STREAM_S = bytes(640 * 480 * 3), 8, 15.0, 8.0
MEETING_S = 3.0


def talk(camera: str) -> None:
    """Publish until killed."""
    rclpy.init()
    node = rclpy.create_node(camera)
    publishers = [node.create_publisher(CompressedImage, f"{camera}/{topic}", CAMERA_PUB) for topic in TOPICS]
    message = CompressedImage(data=PICTURE)
    node.create_timer(PERIOD_S, lambda: [publisher.publish(message) for publisher in publishers])
    rclpy.spin(node)


def hear() -> None:
    """Say so once something was heard on every topic, and listen on until killed."""
    rclpy.init()
    node = rclpy.create_node("policy")
    missing = {f"{camera}/{topic}" for camera in TALKERS for topic in TOPICS}

    def on_picture(topic: str) -> None:
        if topic in missing:
            missing.remove(topic)
            if not missing:
                print("heard", flush=True)

    for topic in tuple(missing):
        node.create_subscription(CompressedImage, topic, lambda _, topic=topic: on_picture(topic), CAMERA_SUB)
    rclpy.spin(node)


def stream() -> None:
    """Publish raw pictures of all cameras for a while, and say how many."""
    rclpy.init()
    node = rclpy.create_node("raw")
    publishers = [node.create_publisher(Image, f"raw{number}", CAMERA_PUB) for number in range(CAMERAS)]
    message = Image(data=RAW)
    time.sleep(MEETING_S)
    rounds = int(STREAM_S * FPS)
    for _ in range(rounds):
        for publisher in publishers:
            publisher.publish(message)
        time.sleep(1.0 / FPS)
    print(rounds * CAMERAS, flush=True)


def count() -> None:
    """Count raw pictures for long enough to hear them all, and say how many."""
    rclpy.init()
    node = rclpy.create_node("count")
    heard: list[None] = []
    for number in range(CAMERAS):
        node.create_subscription(Image, f"raw{number}", lambda _: heard.append(None), CAMERA_SUB)
    deadline = time.monotonic() + 2 * MEETING_S + 2 * STREAM_S
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(len(heard), flush=True)


def compute() -> None:
    """Keep a processor busy until killed."""
    while True:
        pass


ROLES = {"hear": hear, "compute": compute, "stream": stream, "count": count} | {
    camera: partial(talk, camera) for camera in TALKERS
}


@contextlib.contextmanager
def process(role: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """This file in another role, ended by SIGKILL."""
    command = [sys.executable, __file__, "--role", role]
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()


def hears(environment: dict[str, str]) -> bool:
    """Whether a node started now hears every topic; it is killed afterwards."""
    with process("hear", environment) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # a pipe
        heard = bool(selector.select(DEAF_S))
        time.sleep(random.uniform(0.0, LISTENING_S))  # noqa: S311  not a secret
    return heard


def environment_of(transport: str, domain: int) -> dict[str, str]:
    """Of a process that uses this transport."""
    environment = {name: text for name, text in os.environ.items() if name not in CHOSEN_BY_USER}
    environment |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if transport == UDP:
        prefer_udp(rclpy.get_rmw_implementation_identifier(), environment)
    return environment


def raw_pictures(transport: str) -> dict[str, int]:
    """How many were sent, and how many heard."""
    with free_domain() as domain:
        environment = environment_of(transport, domain)
        with process("count", environment) as counting, process("stream", environment) as streaming:
            sent, heard = (int(started.communicate()[0]) for started in (streaming, counting))
    return {"sent": sent, "heard": heard}


def deaf_after(transport: str, restarts: int) -> int:
    """How many of so many restarts left a node deaf; after each, the talkers are started anew as well."""
    deaf = done = 0
    while done < restarts:
        with contextlib.ExitStack() as stack:
            domain = stack.enter_context(free_domain())
            environment = environment_of(transport, domain)
            for role in (*TALKERS, *["compute"] * BUSY):
                stack.enter_context(process(role, environment))
            if not hears(environment):
                raise SystemExit("a first node heard nothing")
            heard = True
            while heard and done < restarts:
                heard = hears(environment)
                done += 1
                deaf += not heard
                print(f"{transport}: {deaf} of {done} deaf", file=sys.stderr, flush=True)
    return deaf


def main() -> None:
    """Measure both transports, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--restarts", type=int, default=40, help="for each transport (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        ROLES[options.role]()
        return
    raw = {transport: raw_pictures(transport) for transport in (SHARED_MEMORY, UDP)}
    deaf = {transport: deaf_after(transport, options.restarts) for transport in (SHARED_MEMORY, UDP)}
    publish(machine() | {"raw_pictures": raw, "restarts": options.restarts, "deaf": deaf}, options.json)


if __name__ == "__main__":
    main()
