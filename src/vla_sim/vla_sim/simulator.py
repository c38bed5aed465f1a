"""The `simulator` process: an arm on a serial port, cameras on HTTP, a world behind them, in real time.

Threads: the main one runs physics; one serves the servo bus, one draws, one runs the asyncio loop of the cameras'
HTTP server and of the control socket. MuJoCo releases the interpreter lock while it steps and draws.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vla_core.errors import ConfigError, EvergreenError
from vla_core.runtime import run_dir
from vla_sim.control import ControlServer
from vla_sim.drawing import DrawingThread, Schedule
from vla_sim.mjpeg import MjpegServer
from vla_sim.operations import Operations, Simulation
from vla_sim.physics import Physics
from vla_sim.pty_port import BusThread, PtyPort
from vla_sim.realtime import REALTIME_ENOUGH
from vla_sim.scene import CAMERAS
from vla_sim.servo_bus import ServoBus
from vla_sim.servo_map import SERVO_IDS, position_limits
from vla_sim.sts3215 import Sts3215
from vla_sim.world import World

_LOG = logging.getLogger("simulator")

EXIT_CONFIG: Final = 2
_SWITCH_INTERVAL_S: Final = 0.001
"""The default, 5 ms, is longer than a physics batch: a thread that computes in Python would delay the next one."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    seed: int
    port_link: Path
    http_host: str
    http_port: int
    control: Path
    width: int
    height: int
    fps: float
    cameras: tuple[str, ...]
    baud_timing: bool
    report_s: float

    def __post_init__(self) -> None:
        unknown = [name for name in self.cameras if name not in CAMERAS]
        if unknown:
            raise ConfigError(f"--cameras: no camera '{unknown[0]}'; there are {', '.join(CAMERAS)}")
        if not 0.1 <= self.fps <= 60.0:
            raise ConfigError(f"--fps {self.fps:g}: 0.1 to 60 frames a second are possible")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed}: a whole number from 0 is needed")
        if not 0 <= self.http_port <= 65535:
            raise ConfigError(f"--http-port {self.http_port}: a port is 1 to 65535, or 0 for any free one")


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; what follows `--ros-args` is for ROS nodes, and ignored.

    Raises:
        ConfigError: a value is impossible.
        SystemExit: an unknown option, or `--help`.
    """
    own = list(arguments)
    if "--ros-args" in own:
        own = own[: own.index("--ros-args")]
    parser = argparse.ArgumentParser(
        prog="simulator",
        description="A simulated SO-101 on a serial port, with cameras on HTTP. It runs in real time.",
        allow_abbrev=False,
    )
    folder = run_dir()
    parser.add_argument("--seed", type=int, default=0, help="scene: where the cubes lie (default 0)")
    parser.add_argument("--port-link", type=Path, default=folder / "servos", help="serial port (default %(default)s)")
    parser.add_argument("--http-host", default="127.0.0.1", help="address for the cameras (default %(default)s)")
    parser.add_argument("--http-port", type=int, default=8800, help="port for the cameras (default %(default)s)")
    parser.add_argument(
        "--control", type=Path, default=folder / "sim.sock", help="control socket (default %(default)s)"
    )
    parser.add_argument("--width", type=int, default=320, help="of pictures, px (default %(default)s)")
    parser.add_argument("--height", type=int, default=240, help="of pictures, px (default %(default)s)")
    parser.add_argument("--fps", type=float, default=15.0, help="of each camera (default %(default)s)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--cameras", default=",".join(CAMERAS), help="names, with commas (default: all eight)")
    which.add_argument("--no-cameras", action="store_true", help="neither draw nor serve pictures")
    parser.add_argument("--baud-timing", action="store_true", help="delay replies as a 1 Mbaud line does")
    parser.add_argument("--report-s", type=float, default=10.0, help="between reports on stderr; 0: none (default 10)")
    found = parser.parse_args(own)
    cameras = () if found.no_cameras else tuple(name.strip() for name in found.cameras.split(",") if name.strip())
    return Options(
        seed=found.seed,
        port_link=found.port_link.absolute(),
        http_host=found.http_host,
        http_port=found.http_port,
        control=found.control.absolute(),
        width=found.width,
        height=found.height,
        fps=found.fps,
        cameras=cameras,
        baud_timing=found.baud_timing,
        report_s=found.report_s,
    )


def make_folder_of(path: Path, option: str) -> None:
    """Make the folders above `path` that are missing, for this user alone.

    Raises:
        ConfigError: one cannot be made; the message names `option`.
    """
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)  # `parents=True` would give those above it the usual mode
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{option} {path}: folder {error.filename}: {reason}; choose another path") from error


class Services(threading.Thread):
    """The asyncio loop of the two servers. `ready` is done when both listen; else it has the error."""

    def __init__(
        self, start: Callable[[], Awaitable[None]], every: Callable[[], None], period_s: float, close: Closer
    ) -> None:
        super().__init__(name="services", daemon=True)
        self._start_servers = start
        self._every = every
        self._period_s = period_s
        self._close_servers = close
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self.ready: Future[None] = Future()

    def run(self) -> None:
        """The thread."""
        asyncio.run(self._main())

    def stop(self) -> None:
        """Close the servers and end the thread."""
        if self._loop is not None and self._end is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
        self.join()

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self._start_servers()
        except EvergreenError as error:
            await self._close_servers()
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), self._period_s or None)
                break
            self._every()
        await self._close_servers()


Closer = Callable[[], Awaitable[None]]


class Simulator:
    """Composition root: makes the parts, joins them, starts and ends them."""

    def __init__(self, options: Options) -> None:
        """Build everything, and claim the serial port's name.

        Raises:
            ConfigError: something is taken or missing.
        """
        self._options = options
        self._failed = False
        make_folder_of(options.port_link, "--port-link")
        make_folder_of(options.control, "--control")
        world = World(options.cameras, options.width, options.height)
        world.reset(options.seed)
        limits = position_limits()
        servos = [
            Sts3215(i, min_position=low, max_position=high) for i, (low, high) in zip(SERVO_IDS, limits, strict=True)
        ]
        self._bus = ServoBus(servos)
        self.physics = Physics(world, servos, threading.Lock())
        self._port = PtyPort(options.port_link)
        self._bus_thread = BusThread(self._port, self._bus, self.physics.lock, wire_timing=options.baud_timing)
        self._schedule = Schedule(options.cameras, options.fps, time.monotonic_ns())
        self._web = MjpegServer(options.cameras) if options.cameras else None
        self._drawing = self._make_drawing(world, self._web) if self._web else None
        simulation = Simulation(
            self.physics, self._bus, self._bus_thread, self._port, self._schedule, self._web, self._drawing
        )
        self._control = ControlServer(options.control, Operations(simulation).table())
        self._services = Services(self._serve, self._report, options.report_s, self._unserve)

    def run(self) -> int:
        """Run until `physics.stop`; the exit code.

        Raises:
            ConfigError: an address is taken, or there is no OpenGL.
        """
        started: list[Callable[[], None]] = [self._port.close]
        try:
            if self._drawing is not None:
                self._drawing.start()
                started.append(self._drawing.stop)
                self._drawing.ready.result()
            self._services.start()
            started.append(self._services.stop)
            self._services.ready.result()
            self._port.plug()
            self._bus_thread.start()
            started.append(self._bus_thread.stop)
            self._announce()
            self.physics.run()
        finally:
            for stop in reversed(started):
                stop()
        return 1 if self._failed else 0

    def _make_drawing(self, world: World, web: MjpegServer) -> DrawingThread:
        return DrawingThread(
            world.model,
            self._schedule,
            size=(self._options.width, self._options.height),
            newest=lambda: self.physics.newest,
            behind_ns=lambda: self.physics.behind_ns,
            watched=web.watched,
            publish=web.publish,
            failed=self._break_down,
        )

    def _break_down(self) -> None:
        self._failed = True
        self.physics.stop()

    async def _serve(self) -> None:
        if self._web is not None:
            await self._web.start(self._options.http_host, self._options.http_port)
        await self._control.start()

    async def _unserve(self) -> None:
        await self._control.close()
        if self._web is not None:
            await self._web.close()

    def _announce(self) -> None:
        where = [f"servos on {self._port.link}"]
        if self._web is not None:
            where.append(f"cameras on http://{self._options.http_host}:{self._web.port}/")
        where.append(f"control on {self._options.control}")
        print("simulator ready:", ", ".join(where), flush=True)

    def _report(self) -> None:
        meter = self.physics.meter
        cameras = [report for report in self._schedule.report(time.monotonic_ns()).values() if report["fps"]]
        slowest = min((float(report["fps"]) for report in cameras), default=0.0)
        enough = min(meter.recent, meter.total) >= REALTIME_ENOUGH
        _LOG.log(
            logging.INFO if enough else logging.WARNING,
            "real-time factor %.3f (%.3f since the start)%s; %d cameras watched, slowest %.1f fps; %d bus packets",
            meter.recent,
            meter.total,
            "" if enough else ", TOO SLOW: results do not count",
            len(cameras),
            slowest,
            self._bus.counters.packets,
        )


class _StopOnSignal:
    """SIGINT and SIGTERM end the simulation, also when they come while it is being built or were ignored before."""

    def __init__(self) -> None:
        self._action: Callable[[], None] | None = None
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._come())

    def bind(self, action: Callable[[], None]) -> None:
        self._action = action
        if self._came:
            action()

    def _come(self) -> None:
        self._came = True
        if self._action is not None:
            self._action()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s", stream=sys.stderr)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    stop = _StopOnSignal()
    try:
        simulator = Simulator(parse(sys.argv[1:] if arguments is None else arguments))
        stop.bind(simulator.physics.stop)
        return simulator.run()
    except ConfigError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return EXIT_CONFIG


if __name__ == "__main__":
    sys.exit(main())
