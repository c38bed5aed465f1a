"""The loop that runs the world in real time, with the servos between the bus and the joints."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from vla_core.errors import ConfigError
from vla_sim.hand import Path as HandPath
from vla_sim.layout import PLAIN
from vla_sim.realtime import HARDWARE_NICENESS, Pacer, RealTimeMeter, set_niceness
from vla_sim.rig import Snapshot
from vla_sim.scene import CUBES, JOINTS, MAX_TORQUE_NM, TIMESTEP_S
from vla_sim.servo_map import TICKS_PER_RAD, to_rad, to_ticks
from vla_sim.sts3215 import Sts3215
from vla_sim.world import World

_T = TypeVar("_T")

STEP_NS: Final = round(TIMESTEP_S * 1e9)
BATCH_STEPS: Final = 2
"""Servos are sensed and driven every 4 ms, as often as their bus can be read in practice."""
_MAX_BATCH_STEPS: Final = 5
"""When late, 10 ms at a time: servo targets would turn into coarse stairs otherwise."""


class Physics:
    """Owns the world: everybody else hands in functions with `call`.

    `lock` guards the servos, which the bus thread shares.
    """

    def __init__(self, world: World, servos: Sequence[Sts3215], lock: threading.Lock) -> None:
        self.world = world
        self._servos = tuple(servos)
        self.lock = lock
        self._torque: tuple[bool, ...] = ()
        self._hand: HandPath | None = None
        self._hand_start_s = 0.0
        self._hand_done: Future[None] | None = None
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._running = True
        now_ns = time.monotonic_ns()
        self.meter = RealTimeMeter(now_ns)
        self._pacer = Pacer(STEP_NS, now_ns)
        self.behind_ns = 0
        """How late physics was at its last tick; drawing makes way for it."""
        for servo, raw in zip(self._servos, to_ticks(world.joint_positions()).tolist(), strict=True):
            servo.jump(raw)
        self.newest: tuple[int, Snapshot] = (time.time_ns(), world.snapshot())
        """The latest state, with the system time at which it was reached, ns."""

    def run(self) -> None:
        """Run until `stop`."""
        set_niceness(HARDWARE_NICENESS)
        now_ns = time.monotonic_ns()
        self._pacer = Pacer(STEP_NS, now_ns)
        self.meter = RealTimeMeter(now_ns)
        while self._running:
            wait_s = self._pacer.wait_ns(time.monotonic_ns(), BATCH_STEPS) * 1e-9
            ready, _, _ = select.select([self.wake_read], (), (), wait_s)
            if ready:
                self._run_commands()
            now_ns = time.monotonic_ns()
            due = self._pacer.due(now_ns)
            self.behind_ns = due * STEP_NS
            while due >= BATCH_STEPS and self._running:
                steps = min(due, _MAX_BATCH_STEPS)
                self.tick(steps)
                self._pacer.took(steps)
                due -= steps
            self.meter.add(now_ns, self._pacer.done * STEP_NS)
        self._cancel_commands()

    def stop(self) -> None:
        """End `run`; safe in a signal handler and in any thread."""
        self._running = False
        self._wake()

    def call(self, function: Callable[[], _T]) -> Future[_T]:
        """Let the physics thread run `function` between two ticks."""
        done: Future[_T] = Future()
        self._commands.append((function, done))
        self._wake()
        return done

    def tick(self, steps: int) -> None:
        """Servos drive, the world moves, servos sense."""
        dt_s = steps * TIMESTEP_S
        with self.lock:
            targets = [servo.advance(dt_s) for servo in self._servos]
            torque = tuple(servo.torque_on for servo in self._servos)
        world = self.world
        if torque != self._torque:
            self._torque = torque
            world.set_torque(torque)
        if self._hand is not None:
            self._lead(self._hand)
        world.step(to_rad(targets), steps)
        self._sense()
        self.newest = (time.time_ns(), world.snapshot())

    def reset(
        self,
        seed: int,
        *,
        keep_arm: bool,
        variety: str = PLAIN,
        target: str = CUBES[0],
        names: Sequence[str] | None = None,
    ) -> int:
        """Begin an episode; its number. An arm that is put back holds there until the bus says otherwise."""
        self.world.reset(seed, keep_arm=keep_arm, variety=variety, target=target, names=names)
        if not keep_arm:
            with self.lock:
                for servo, raw in zip(self._servos, to_ticks(self.world.joint_positions()).tolist(), strict=True):
                    servo.jump(raw)
        self._sense()
        self.newest = (time.time_ns(), self.world.snapshot())
        return self.world.truth().episode

    def lead(self, path: HandPath, joints: Sequence[str]) -> Future[None]:
        """Let a hand lead the arm along `path`, and hold on at its end. Done when it has arrived, or let go.

        Raises:
            ConfigError: one of `joints` is not limp, so a hand cannot move it.
        """
        stiff = [name for name in joints if self._servos[JOINTS.index(name)].torque_on]
        if stiff:
            raise ConfigError(f"{', '.join(stiff)}: torque is on; switch it off before a hand can move the joint")
        self.let_go()
        self._hand, self._hand_start_s = path, self.world.time_s
        self._hand_done = Future()
        return self._hand_done

    def let_go(self) -> None:
        """Take the hand away."""
        self._hand = None
        self.world.guide(None)
        if self._hand_done is not None and not self._hand_done.done():
            self._hand_done.set_result(None)

    def _lead(self, hand: HandPath) -> None:
        elapsed_s = self.world.time_s - self._hand_start_s
        self.world.guide(hand.at(elapsed_s))
        if elapsed_s >= hand.duration_s and self._hand_done is not None and not self._hand_done.done():
            self._hand_done.set_result(None)

    def _sense(self) -> None:
        world = self.world
        raw = to_ticks(world.joint_positions()).tolist()
        speeds = (world.joint_velocities() * TICKS_PER_RAD).tolist()
        loads = (world.joint_loads() / MAX_TORQUE_NM).tolist()
        with self.lock:
            for servo, ticks, speed, load in zip(self._servos, raw, speeds, loads, strict=True):
                servo.sense(ticks, speed, load)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self.wake_write, b"\0")

    def _run_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_read, 4096)
        while self._commands:
            function, done = self._commands.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(function())
            except Exception as error:  # noqa: BLE001 (the caller's thread re-raises it)
                done.set_exception(error)

    def _cancel_commands(self) -> None:
        while self._commands:
            self._commands.popleft()[1].cancel()
        if self._hand_done is not None:
            self._hand_done.cancel()
