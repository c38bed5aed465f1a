"""Six simulated STS3215 on a pty, moved by the simplest plant: joints that go where their motors pull."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vla_core.joints import SO101_JOINTS
from vla_sim.pty_port import BusThread, PtyPort
from vla_sim.servo_bus import ServoBus as SimulatedBus
from vla_sim.sts3215 import Sts3215

RANGE_MIN, RANGE_MAX = 1000, 3096
PLANT_PERIOD_S = 0.005


@dataclass
class Rig:
    """The simulated arm. `blocked` holds ids whose joint does not move; they stall at full load."""

    folder: Path
    servos: list[Sts3215]
    port: PtyPort
    bus: SimulatedBus
    thread: BusThread
    lock: threading.Lock
    blocked: set[int] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def link(self) -> str:
        return str(self.port.link)

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"

    def unplug(self) -> None:
        self.thread.unplug().result(5.0)

    def replug(self) -> None:
        self.thread.replug().result(5.0)

    def move(self) -> None:
        """The plant's thread."""
        while not self._over.wait(PLANT_PERIOD_S):
            with self.lock:
                for servo in self.servos:
                    before = servo.present_raw
                    wanted = servo.advance(PLANT_PERIOD_S)
                    if servo.servo_id in self.blocked:
                        servo.sense(before, 0.0, 1.0 if wanted > before else -1.0)
                    else:
                        servo.sense(wanted, (wanted - before) / PLANT_PERIOD_S, 0.0)

    def finish(self) -> None:
        self._over.set()


def calibration_document() -> dict[str, dict[str, int]]:
    return {
        name: {"id": i, "drive_mode": 0, "homing_offset": 0, "range_min": RANGE_MIN, "range_max": RANGE_MAX}
        for i, name in enumerate(SO101_JOINTS, start=1)
    }


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    servos = [Sts3215(i, min_position=RANGE_MIN, max_position=RANGE_MAX) for i in range(1, 7)]
    port, bus, lock = PtyPort(tmp_path / "servos"), SimulatedBus(servos), threading.Lock()
    port.plug()
    thread = BusThread(port, bus, lock, wire_timing=False)
    made = Rig(tmp_path, servos, port, bus, thread, lock)
    made.calibration.write_text(json.dumps(calibration_document()))
    plant = threading.Thread(target=made.move, daemon=True)
    thread.start()
    plant.start()
    try:
        yield made
    finally:
        made.finish()
        plant.join(5.0)
        thread.stop()
        port.close()
