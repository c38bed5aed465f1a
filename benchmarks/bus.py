"""Read+write cycles a second of the servo bus: Evergreen's against LeRobot's, on one simulated bus.

    python benchmarks/bus.py --json out/bench_bus.json

A cycle reads the present position of six servos (sync read of 2 bytes at 56) and writes their goal position (sync
write of 2 bytes at 42), each side with its own conversion between ticks and joint units. A child process answers on a
pty like six STS3215. The two take turns, several rounds each, in one process; a round's CPU is this process' (client)
and the child's (bus).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from arm_driver.calibration import Calibration, JointCalibration
from arm_driver.feetech import registers
from arm_driver.feetech.bus import ServoBus
from arm_driver.feetech.registers import from_sign_magnitude
from vla_core.joints import SO101_JOINTS

RANGE_MIN, RANGE_MAX = 1000, 3000
START_DEADLINE_S = 20.0
WARM_UP_S = 0.2
BATCH = 20
"""Cycles between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured."""

    hz: float
    client_cpu_us: float
    bus_cpu_us: float


def serve(link: Path) -> None:
    """Child process: answer on a pty until standard input ends."""
    from vla_sim.pty_port import BusThread, PtyPort  # noqa: PLC0415 (only the child needs the simulator)
    from vla_sim.servo_bus import ServoBus as SimulatedBus  # noqa: PLC0415
    from vla_sim.sts3215 import Sts3215  # noqa: PLC0415

    servos = [
        Sts3215(number, min_position=RANGE_MIN, max_position=RANGE_MAX) for number in range(1, len(SO101_JOINTS) + 1)
    ]
    port = PtyPort(link)
    port.plug()
    thread = BusThread(port, SimulatedBus(servos), threading.Lock(), wire_timing=False)
    thread.start()
    sys.stdin.read()
    thread.stop()
    port.close()


@contextlib.contextmanager
def simulated_bus() -> Iterator[tuple[str, psutil.Process]]:
    """A child process with six servos; its port and the process."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "servos"
        command = [sys.executable, __file__, "--serve", str(link)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            try:
                wait_for_port(link, child)
                yield str(link), psutil.Process(child.pid)
            finally:
                child.communicate()


def wait_for_port(link: Path, child: subprocess.Popen[bytes]) -> None:
    """Until a servo answers."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and child.poll() is None:
        if link.exists():
            with ServoBus(str(link)) as bus:
                if bus.ping(1):
                    return
    raise RuntimeError(f"the simulated bus did not answer within {START_DEADLINE_S:g} s")


@contextlib.contextmanager
def ours(port: str) -> Iterator[Callable[[], None]]:
    """Evergreen's cycle, in rad."""
    servos = {name: JointCalibration(i, 0, 0, RANGE_MIN, RANGE_MAX) for i, name in enumerate(SO101_JOINTS, start=1)}
    calibration = Calibration(servos, {})
    with ServoBus(port) as bus:
        present = bus.prepare_read(registers.PRESENT_POSITION.address, "H", calibration.ids)
        goal = bus.prepare_write(registers.GOAL_POSITION.address, "H", calibration.ids)

        def cycle() -> None:
            positions = calibration.to_rad([from_sign_magnitude(raw, 15) for raw in present.read()])
            goal.write(calibration.to_ticks(positions))

        yield cycle


@contextlib.contextmanager
def lerobots(port: str) -> Iterator[Callable[[], None]]:
    """LeRobot's cycle as its SO-101 follower does it: degrees, and 0..100 for the gripper."""
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode  # noqa: PLC0415 (7 s, and only here)
    from lerobot.motors.feetech import FeetechMotorsBus  # noqa: PLC0415

    modes = dict.fromkeys(SO101_JOINTS, MotorNormMode.DEGREES) | {"gripper": MotorNormMode.RANGE_0_100}
    motors = {name: Motor(i, "sts3215", modes[name]) for i, name in enumerate(SO101_JOINTS, start=1)}
    calibration = {name: MotorCalibration(motor.id, 0, 0, RANGE_MIN, RANGE_MAX) for name, motor in motors.items()}
    bus = FeetechMotorsBus(port, motors, calibration)
    bus.connect()
    try:

        def cycle() -> None:
            bus.sync_write("Goal_Position", bus.sync_read("Present_Position"))

        yield cycle
    finally:
        bus.disconnect(disable_torque=False)


def run_round(cycle: Callable[[], None], seconds: float, child: psutil.Process) -> Round:
    """Repeat a cycle for some time."""
    repeat(cycle, WARM_UP_S)
    bus_before = sum(child.cpu_times()[:2])
    cpu_before, start = time.process_time(), time.perf_counter()
    count = repeat(cycle, seconds)
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_before
    bus_cpu = sum(child.cpu_times()[:2]) - bus_before
    return Round(count / elapsed, cpu / count * 1e6, bus_cpu / count * 1e6)


def repeat(cycle: Callable[[], None], seconds: float) -> int:
    """Number of cycles within so many seconds."""
    deadline, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < deadline:
        for _ in range(BATCH):
            cycle()
        count += BATCH
    return count


def summary(rounds: list[Round]) -> dict[str, float | list[float]]:
    """Medians over the rounds, and every round's rate."""
    return {
        "hz": round(statistics.median(r.hz for r in rounds), 1),
        "cpu_us_per_cycle": round(statistics.median(r.client_cpu_us for r in rounds), 1),
        "hz_of_rounds": [round(r.hz, 1) for r in rounds],
    }


def own_us(rounds: list[Round]) -> float:
    """Microseconds of a cycle that are not the simulated bus's computing; median of the rounds."""
    return statistics.median(1e6 / each.hz - each.bus_cpu_us for each in rounds)


def measure(rounds: int, seconds: float) -> dict[str, object]:
    """Alternate the two sides and compare."""
    found: dict[str, list[Round]] = {"ours": [], "lerobot": []}
    sides = {"ours": ours, "lerobot": lerobots}
    with simulated_bus() as (port, child):
        for _ in range(rounds):
            for name, side in sides.items():
                with side(port) as cycle:
                    found[name].append(run_round(cycle, seconds, child))
    mine, theirs = summary(found["ours"]), summary(found["lerobot"])
    return {
        "ours": mine,
        "lerobot": theirs,
        "sim_bus": {
            "cpu_us_per_cycle": round(statistics.median(r.bus_cpu_us for r in found["ours"]), 1),
            "cpu_us_per_cycle_lerobot": round(statistics.median(r.bus_cpu_us for r in found["lerobot"]), 1),
        },
        "ratio_hz": round(mine["hz"] / theirs["hz"], 2),
        "ratio_hz_without_sim_bus": round(own_us(found["lerobot"]) / own_us(found["ours"]), 2),
        "ratio_cpu": round(mine["cpu_us_per_cycle"] / theirs["cpu_us_per_cycle"], 3),
        "rounds": rounds,
        "seconds_per_round": seconds,
        "load_average": os.getloadavg()[0],
    }


def machine() -> str:
    """Processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--rounds", type=int, default=5, help="of each side (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (default 3)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return 0
    result = measure(arguments.rounds, arguments.seconds)
    result |= {
        "machine": machine(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": f"python benchmarks/bus.py --rounds {arguments.rounds} --seconds {arguments.seconds:g}",
    }
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
