"""Frames a second, drops, delay and CPU of the node `/cameras`, counted at a subscriber.

    python benchmarks/cameras.py --json out/cameras.json                       # the simulator's eight cameras
    python benchmarks/cameras.py --cameras-file my_cameras.yaml --json out/usb.json   # your own

Exit code 0 when every camera reached `--least-fps`, 1 when one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import ssl  # noqa: F401  before rclpy: otherwise two versions of OpenSSL may clash
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from report import machine, publish
from sensor_msgs.msg import CompressedImage

from vla_core.latency import LatencyWindow
from vla_perception import config
from vla_ros import diagnostics
from vla_ros.qos import CAMERA_SUB, DIAGNOSTICS
from vla_ros.stamps import to_ns

SIM_CAMERAS = Path(__file__).parents[1] / "launch" / "config" / "cameras_sim.yaml"
READY_TIMEOUT_S = 120.0
"""Compiling the simulator's scene for the first time takes most of a minute on a Raspberry Pi."""

EXIT_TIMEOUT_S = 20.0
LEAST_FPS = 10.0
MS = 1e6


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    cameras_file: Path | None
    seconds: float
    fps: float
    least_fps: float
    json: Path | None


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cameras-file", type=Path, help="measure these instead of the simulator's")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to count (default %(default)s)")
    parser.add_argument("--fps", type=float, default=15.0, help="asked of the simulator (default %(default)s)")
    parser.add_argument("--least-fps", type=float, default=LEAST_FPS, help="that every camera must reach")
    parser.add_argument("--json", type=Path, help="write the result here too")
    return Options(**vars(parser.parse_args()))


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended politely; what it says goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  a script's background ignores it
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def simulator_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the simulator says where its cameras are."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("simulator ready") and "http://" in line:
                return int(line.split("http://", 1)[1].split("/", 1)[0].rsplit(":", 1)[1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise SystemExit(f"the simulator did not start within {READY_TIMEOUT_S:g} s:\n{log.read_text()}")


class Counter(Node):
    """Subscribes as a policy does, and counts."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("camera_benchmark")
        self.frames = dict.fromkeys(names, 0)
        self.delays = {name: LatencyWindow() for name in names}
        self.statuses: dict[str, dict[str, str]] = {}
        for name in names:
            topic = f"camera/{name}/image_raw/compressed"
            self.create_subscription(
                CompressedImage, topic, lambda message, name=name: self._count(name, message), CAMERA_SUB
            )
        self.create_subscription(DiagnosticArray, "diagnostics", self._diagnose, DIAGNOSTICS)

    def reset(self) -> None:
        """Forget what was counted."""
        self.frames = dict.fromkeys(self.frames, 0)
        self.delays = {name: LatencyWindow() for name in self.frames}

    def _count(self, name: str, message: CompressedImage) -> None:
        self.frames[name] += 1
        self.delays[name].add((time.time_ns() - to_ns(message.header.stamp)) / MS)

    def _diagnose(self, message: DiagnosticArray) -> None:
        self.statuses.update({status.name: diagnostics.values(status) for status in message.status})


def measure(counter: Counter, node: subprocess.Popen[bytes], log: Path, seconds: float) -> dict[str, Any]:
    """Wait for all cameras, then count for `seconds`."""
    executor = SingleThreadedExecutor()
    executor.add_node(counter)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while min(counter.frames.values()) == 0 or len(counter.statuses) < len(counter.frames):
        if time.monotonic() > deadline or node.poll() is not None:
            missing = ", ".join(name for name, frames in counter.frames.items() if not frames)
            raise SystemExit(f"no frame from {missing} within {READY_TIMEOUT_S:g} s:\n{log.read_text()}")
        executor.spin_once(timeout_sec=0.1)
    process = psutil.Process(node.pid)
    counter.reset()
    dropped = {name: int(counter.statuses[f"cameras: {name}"]["dropped"]) for name in counter.frames}
    began, used = time.monotonic(), process.cpu_times()
    while (lasted := time.monotonic() - began) < seconds:
        executor.spin_once(timeout_sec=0.1)
    now = process.cpu_times()
    return {
        "seconds": round(lasted, 2),
        "node_cpu_percent_of_a_core": round(100 * (now.user + now.system - used.user - used.system) / lasted, 1),
        "node_rss_mb": round(process.memory_info().rss / 2**20, 1),
        "cameras": {name: _camera(counter, name, lasted, dropped[name]) for name in counter.frames},
    }


def _camera(counter: Counter, name: str, lasted: float, dropped_before: int) -> dict[str, Any]:
    status = counter.statuses[f"cameras: {name}"]
    return {
        "fps": round(counter.frames[name] / lasted, 2),
        "dropped": int(status["dropped"]) - dropped_before,
        "capture_to_publish_ms": {"p50": float(status["capture_p50_ms"]), "p95": float(status["capture_p95_ms"])},
        "capture_to_subscriber_ms": counter.delays[name].summary().as_dict(),
    }


def main() -> int:
    """Start what is needed, measure, print."""
    options = parse()
    environment = dict(os.environ)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.cameras_file is None:
            command = [sys.executable, "-m", "vla_sim.simulator", "--http-port", "0", "--fps", f"{options.fps:g}"]
            command += ["--port-link", str(folder / "servos"), "--control", str(folder / "sim.sock")]
            simulator = stack.enter_context(running(command, environment, folder / "simulator.log"))
            environment["EVERGREEN_CAMERA_PORT"] = str(simulator_port(simulator, folder / "simulator.log"))
        cameras_file = options.cameras_file or SIM_CAMERAS
        names = [camera.name for camera in config.load(cameras_file, environment)]
        command = [sys.executable, "-m", "vla_perception.node", "--ros-args", "-p", f"cameras_file:={cameras_file}"]
        node = stack.enter_context(running(command, environment, folder / "node.log"))
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        result = machine() | measure(Counter(names), node, folder / "node.log", options.seconds)
    publish(result, options.json)
    slow = [name for name, camera in result["cameras"].items() if camera["fps"] < options.least_fps]
    if slow:
        print(f"below {options.least_fps:g} fps: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
