"""What the control socket can do to a running simulation: the methods of `Operations`, by name.

Kinds of `fault`, with their arguments (defaults in brackets):

    drop_bytes, corrupt_bytes   `rate`, a chance per byte on the line, or `count`, the next so many bytes
    silence_servo               `id`, `on` [true]: its data wire is cut; it holds its goal
    servo                       `id`, `temperature_c`, `voltage_v`: what it measures from now on
    unplug                      the serial port hangs up and its link vanishes; the arm holds
    replug                      `power_cycle` [false]: the port is back; or the servos lost power, and are limp
    freeze_camera               `camera`, `repeat` [false]: no more pictures, or the same one with its old stamp
    drop_camera                 `camera`: its streams break, new ones are refused
    restore_camera              `camera`
    clear                       everything is mended
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from vla_core.errors import ConfigError
from vla_sim import hand, layout
from vla_sim.control import Json, Operation
from vla_sim.drawing import CameraState, DrawingThread, Schedule
from vla_sim.mjpeg import MjpegServer
from vla_sim.physics import Physics
from vla_sim.pty_port import BusThread, PtyPort
from vla_sim.realtime import REALTIME_ENOUGH
from vla_sim.scene import CUBES, HOME_RAD, JOINTS
from vla_sim.servo_bus import ServoBus

DEFAULT_LEAD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Simulation:
    """The running parts. `drawing` and `web` are None without cameras; they come together."""

    physics: Physics
    bus: ServoBus
    bus_thread: BusThread
    port: PtyPort
    schedule: Schedule
    web: MjpegServer | None
    drawing: DrawingThread | None


class Operations:
    """Each method is an operation of the control socket; all run on its event loop."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._faults: dict[str, Callable[[Json], object]] = {
            "drop_bytes": lambda request: self._line_fault("drop", request),
            "corrupt_bytes": lambda request: self._line_fault("corrupt", request),
            "silence_servo": self._silence,
            "servo": self._servo,
            "freeze_camera": self._freeze,
            "drop_camera": lambda request: self._camera(request, CameraState.DROPPED),
            "restore_camera": lambda request: self._camera(request, CameraState.OK),
        }

    def table(self) -> Mapping[str, Operation]:
        """Operations by name."""
        return {
            "reset": self.reset,
            "truth": self.truth,
            "outcome": self.outcome,
            "status": self.status,
            "write_times": self.write_times,
            "fault": self.fault,
            "hand_guide": self.hand_guide,
            "shutdown": self.shutdown,
        }

    async def reset(self, request: Json) -> Json:
        """`seed`, `keep_arm` (false), `variety` (plain), `target` (black), `names`: begin an episode.

        See `vla_sim.layout`; `names` are the cubes on the table, without it a black and a white one.
        """
        seed = request.get("seed")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seed {seed!r}: a whole number from 0 is needed")
        keep_arm = _flag(request, "keep_arm", default=False)
        variety, target = request.get("variety", layout.PLAIN), request.get("target", CUBES[0])
        names = request.get("names")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ConfigError(f"names {names!r}: a list of cubes is needed")
        physics = self._sim.physics
        episode = await asyncio.wrap_future(
            physics.call(lambda: physics.reset(seed, keep_arm=keep_arm, variety=variety, target=target, names=names))
        )
        return {"episode": episode, "seed": seed}

    async def truth(self, request: Json) -> Json:  # noqa: ARG002
        """Where everything is, now; `frame_stamp_ns` is when the newest picture was taken."""
        physics = self._sim.physics

        def ask() -> Json:
            return {"stamp_ns": physics.newest[0], **physics.world.truth().to_json()}

        answer = await asyncio.wrap_future(physics.call(ask))
        drawing = self._sim.drawing
        return {**answer, "frame_stamp_ns": drawing.frame_stamp_ns if drawing else 0}

    async def outcome(self, request: Json) -> Json:
        """`target` (black), `excused` (none), colours that were asked for before: how the task stands."""
        target, excused = request.get("target", "black"), request.get("excused", [])
        if not (isinstance(excused, list) and all(isinstance(colour, str) for colour in excused)):
            raise ConfigError(f"excused {excused!r}: a list of colours is needed")
        physics = self._sim.physics
        return await asyncio.wrap_future(physics.call(lambda: physics.world.outcome(target, excused).to_json()))

    async def status(self, request: Json) -> Json:  # noqa: ARG002
        """How well the simulation keeps up, and what has gone over the wires."""
        sim = self._sim
        now_ns = time.monotonic_ns()
        meter = sim.physics.meter
        cameras: dict[str, Json] = {name: dict(report) for name, report in sim.schedule.report(now_ns).items()}
        if sim.web is not None:
            for name, report in cameras.items():
                report["viewers"] = sim.web.watched[name]
                report["slow"] = sim.web.slow_frames(name)
        return {
            "realtime_factor": round(meter.recent, 4),
            "realtime_factor_total": round(meter.total, 4),
            "realtime_ok": min(meter.recent, meter.total) >= REALTIME_ENOUGH,
            "time_s": sim.physics.newest[1].time_s,
            "episode": sim.physics.newest[1].episode,
            "home": [float(angle) for angle in HOME_RAD],
            "cameras": cameras,
            "http_port": sim.web.port if sim.web else 0,
            "port": str(sim.port.link),
            "device": sim.port.device,
            "bus": {**sim.bus.counters.as_dict(), "lost_bytes": sim.bus_thread.lost_bytes},
            "bus_cpu_s": sim.bus_thread.cpu_s,
            "drawing_cpu_s": sim.drawing.cpu_s if sim.drawing else 0.0,
            "process_cpu_s": time.process_time(),
            "torque": {name: servo.torque_on for name, servo in zip(JOINTS, sim.bus.servos, strict=True)},
        }

    async def write_times(self, request: Json) -> Json:  # noqa: ARG002
        """Monotonic times of the sync writes of goals since the last request, at most the newest 65536."""
        with self._sim.physics.lock:
            stamps_ns = list(self._sim.bus.goal_writes_ns)
            self._sim.bus.goal_writes_ns.clear()
        return {"stamps_ns": stamps_ns}

    async def hand_guide(self, request: Json) -> Json:
        """`joints` {name: rad} or `sweep` [names], `duration_s` (1), `wait` (false); or `release`."""
        physics = self._sim.physics
        if _flag(request, "release", default=False):
            await asyncio.wrap_future(physics.call(physics.let_go))
            return {}
        duration_s = _number(request, "duration_s", 0.0, hand.MAX_DURATION_S, DEFAULT_LEAD_S)
        targets, sweep = request.get("joints", {}), request.get("sweep", [])
        names = list(sweep or targets)
        if not names or not set(names) <= set(JOINTS) or (sweep and targets):
            raise ConfigError(f"give 'joints' (name: rad) or 'sweep' (names), of {', '.join(JOINTS)}")

        def lead() -> tuple[float, Future[None]]:
            start = physics.world.joint_positions()
            if sweep:
                path = hand.sweep(start, names, duration_s)
            else:
                goal = hand.pose_with({name: _number(targets, name, -math.pi, math.pi) for name in names}, start)
                path = hand.reach(start, goal, duration_s)
            return path.duration_s, physics.lead(path, names)

        total_s, arrived = await asyncio.wrap_future(physics.call(lead))
        if _flag(request, "wait", default=False):
            await asyncio.wrap_future(arrived)
        return {"duration_s": total_s}

    async def shutdown(self, request: Json) -> Json:  # noqa: ARG002
        """End the process, after this answer."""
        asyncio.get_running_loop().call_later(0.05, self._sim.physics.stop)
        return {}

    async def fault(self, request: Json) -> Json:
        """`kind` and what belongs to it, see above."""
        kind = request.get("kind")
        if kind == "unplug":
            await asyncio.wrap_future(self._sim.bus_thread.unplug())
        elif kind == "replug":
            await self._replug(request)
        elif kind == "clear":
            await self._clear()
        elif kind in self._faults:
            self._faults[kind](request)
        else:
            known = ", ".join(sorted([*self._faults, "unplug", "replug", "clear"]))
            raise ConfigError(f"no fault {kind!r}: there are {known}")
        return {}

    async def _replug(self, request: Json) -> None:
        """`power_cycle` (false): the servos lost their supply too."""
        if _flag(request, "power_cycle", default=False):
            with self._sim.physics.lock:
                self._sim.bus.power_cycle()
        await asyncio.wrap_future(self._sim.bus_thread.replug())

    async def _clear(self) -> None:
        sim = self._sim
        with sim.physics.lock:
            sim.bus.mend()
            for servo in sim.bus.servos:
                servo.forced_temperature_c = servo.forced_voltage_v = None
        for name in sim.schedule.report(0):
            self._camera({"camera": name}, CameraState.OK)
        await asyncio.wrap_future(sim.bus_thread.replug())

    def _line_fault(self, effect: str, request: Json) -> None:
        """`rate` (chance per byte) or `count` (the next so many bytes)."""
        if ("rate" in request) == ("count" in request):
            raise ConfigError("give either 'rate', a chance per byte from 0 to 1, or 'count', a number of bytes")
        with self._sim.physics.lock:
            if "rate" in request:
                setattr(self._sim.bus.faults, f"{effect}_rate", _number(request, "rate", 0.0, 1.0))
            else:
                setattr(self._sim.bus.faults, f"{effect}_next", int(_number(request, "count", 0, 1e6)))

    def _silence(self, request: Json) -> None:
        """`id`, `on` (true)."""
        servo_id = int(_number(request, "id", 0, 253))
        with self._sim.physics.lock:
            if not self._sim.bus.silence(servo_id, on=_flag(request, "on", default=True)):
                raise ConfigError(f"no servo {servo_id} on the bus")

    def _servo(self, request: Json) -> None:
        """`id`, and `temperature_c` and/or `voltage_v`, which it then has until `clear`."""
        servo_id = int(_number(request, "id", 0, 253))
        for servo in self._sim.bus.servos:
            if servo.servo_id == servo_id:
                with self._sim.physics.lock:
                    if "temperature_c" in request:
                        servo.forced_temperature_c = _number(request, "temperature_c", -20.0, 150.0)
                    if "voltage_v" in request:
                        servo.forced_voltage_v = _number(request, "voltage_v", 0.0, 25.0)
                return
        raise ConfigError(f"no servo {servo_id} on the bus")

    def _freeze(self, request: Json) -> None:
        """`camera`, `repeat` (false): nothing comes any more, or the same old picture for ever."""
        repeat = _flag(request, "repeat", default=False)
        self._camera(request, CameraState.REPEATING if repeat else CameraState.STALLED)

    def _camera(self, request: Json, state: CameraState) -> None:
        name = request.get("camera")
        web = self._sim.web
        if web is None or name not in web.watched:
            known = ", ".join(web.watched) if web else "none, it was started with --no-cameras"
            raise ConfigError(f"no camera {name!r}: this simulation has {known}")
        self._sim.schedule.set_state(name, state)
        if state is CameraState.DROPPED:
            web.drop(name)
        else:
            web.restore(name)


def _number(request: Mapping[str, object], key: str, low: float, high: float, default: float | None = None) -> float:
    value = request.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{key} {value!r}: a number from {low:g} to {high:g} is needed")
    return float(value)


def _flag(request: Mapping[str, object], key: str, *, default: bool) -> bool:
    value = request.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} {value!r}: true or false is needed")
    return value
