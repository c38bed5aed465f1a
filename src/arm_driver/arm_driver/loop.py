"""The control thread: paces the cycles, talks to the arm, and passes on what the controller decides. No ROS.

Each period: read all servos, decide, write all goals. A new trajectory or a stop does not wait for the next period:
the thread wakes, decides and writes at once, at most once a period, and goes on waiting.

`offer`, `heard`, `stop`, `resume` and the attributes may be used from another thread.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from arm_driver.arm import Arm
from arm_driver.control import Controller, Cycle, Event, Measured, State
from arm_driver.errors import BusError, PortAbsentError, PortLostError, ServoMismatchError
from arm_driver.protection import Severity
from arm_driver.trajectory import NS_PER_S, Rejected, Trajectory

NS_PER_MS = 1_000_000
SILENCE_S = 0.5
"""Without a reading for so long the servos count as lost: noise takes single readings, not 50 in a row."""
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
"""Between two attempts to connect: soon enough for a hand that plugs in, too seldom to fill a log."""
BRAKING_S = 0.5
"""Time to come to rest when the process ends; at 4 rad/s and 40 rad/s^2 a tenth of a second is needed."""
CLOCK_PAIR_NS = 100_000
"""Two clock readings that lie further apart (the thread lost the processor between them) are read again."""
RESUME_S = 3.0
"""A resume asks all servos, at worst in vain with all retries; the control thread answers long before."""
KEPT_SAMPLES = 2048
"""Latest timing samples that wait for the diagnostics: several seconds at the highest rate."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One trajectory's way to the servos, ms. `total_ms` begins at the header stamp; None without a stamp."""

    stamp_ns: int
    total_ms: float | None
    transport_ms: float
    write_ms: float


@dataclass(slots=True)
class _Request:
    """A resume or a release that the control thread shall do, and its answer."""

    release: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    answer: tuple[bool, str] = (False, "the control thread did not answer; the arm goes on as it was")


@dataclass(slots=True)
class LoopCounters:
    """Since the start."""

    cycles: int = 0
    late_periods: int = 0
    failed_readings: int = 0
    connections: int = 0


def read_clocks() -> tuple[int, int]:
    """Monotonic time, and system minus monotonic time, ns."""
    for _ in range(5):
        before_ns, system_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after_ns - before_ns < CLOCK_PAIR_NS:
            break
    return after_ns, system_ns - (before_ns + after_ns) // 2


class ControlLoop:
    """Owns the arm and the controller.

    Args:
        arm: not connected yet.
        controller: new.
        rate_hz: of the cycles.
        notify: called in the control thread when `measured`, `events` or `latencies` have something new; must
            return at once.
        notify_every: after so many cycles.
        realtime_priority: SCHED_FIFO priority of the thread; 0 leaves it to the normal scheduler.
        torque_off_on_exit: let the arm go limp at the end.

    Attributes:
        measured: latest reading, None before the first and while disconnected.
        events, latencies, lateness_ms: new entries at the right end; the reader pops at the left.
        counters: see LoopCounters.
        alive: False once the thread has ended.
    """

    def __init__(
        self,
        arm: Arm,
        controller: Controller,
        rate_hz: float,
        notify: Callable[[], None],
        *,
        notify_every: int = 1,
        realtime_priority: int = 0,
        torque_off_on_exit: bool = False,
    ) -> None:
        self.arm = arm
        self.measured: Measured | None = None
        self.events: deque[Event] = deque(maxlen=KEPT_SAMPLES)
        self.latencies: deque[Latency] = deque(maxlen=KEPT_SAMPLES)
        self.lateness_ms: deque[float] = deque(maxlen=KEPT_SAMPLES)
        self.counters = LoopCounters()
        self.alive = True
        self._controller = controller
        self._lock = threading.Lock()
        self._period_ns = round(NS_PER_S / rate_hz)
        self._notify = notify
        self._notify_every = notify_every
        self._realtime_priority = realtime_priority
        self._torque_off_on_exit = torque_off_on_exit
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._request: _Request | None = None
        self._ending = False
        self._read_ns = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._complaint = ""
        self._unplugged = False
        self._thread = threading.Thread(target=self._main, name="control", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def close(self) -> None:
        """Brake, let the arm hold (or go limp), close the port, end the thread."""
        self._ending = True
        self._nudge()
        if self._thread.is_alive():
            self._thread.join(2.0 * BRAKING_S + SILENCE_S)
        if not self._thread.is_alive() and self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    @property
    def state(self) -> tuple[State, str]:
        """State and its reason."""
        with self._lock:
            return self._controller.state, self._controller.reason

    def heard(self, sequence: int | None, publishers: int) -> None:
        """Note that a trajectory message came in; see `SourceWatch.heard`."""
        with self._lock:
            self._controller.heard(time.monotonic_ns(), sequence, publishers)

    def offer(self, trajectory: Trajectory) -> Rejected | None:
        """Play a trajectory from now on; None when accepted."""
        with self._lock:
            rejected = self._controller.offer(time.monotonic_ns(), trajectory)
        if rejected is None:
            self._nudge()
        return rejected

    def stop(self, reason: str) -> None:
        """Latch a stop."""
        with self._lock:
            self._controller.stop(reason)
        self._nudge()

    def resume(self) -> tuple[bool, str]:
        """Clear a latched stop or fault, and switch torque on again where a servo has lost it; waits for that."""
        self._backoff_s, self._complaint = FIRST_BACKOFF_S, ""
        request = _Request()
        with self._lock:
            if self.measured is None:  # connecting sees to the torque
                request.answer = self._controller.resume()
                request.done.set()
            else:
                self._request = request
        return self._answered(request)

    def release(self) -> tuple[bool, str]:
        """Switch all torque off, so that a hand can lead the arm, until `resume`; waits for that."""
        request = _Request(release=True)
        with self._lock:
            if self.measured is None:
                return False, f"not released: the arm is not connected ({self._controller.reason})"
            self._request = request
        return self._answered(request)

    def _answered(self, request: _Request) -> tuple[bool, str]:
        self._nudge()
        request.done.wait(RESUME_S)
        return request.answer

    def _nudge(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _main(self) -> None:
        """An exception here is a defect: its traceback is printed, the arm holds, and the node ends."""
        try:
            self._use_realtime()
            while not self._ending:
                if self._controller.wants_connection:
                    self._connect()
                elif self.measured is None:
                    self._wait(LONGEST_BACKOFF_S)
                else:
                    self._play()
            self._settle()
        finally:
            self.measured = None
            self._let_go()
            self.alive = False
            self._notify()

    def _use_realtime(self) -> None:
        if not self._realtime_priority:
            return
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._realtime_priority))
        except OSError as error:
            self._tell(
                Severity.WARN,
                f"parameter realtime_priority {self._realtime_priority}: {error.strerror}; the process needs"
                " CAP_SYS_NICE (docker: --cap-add SYS_NICE, --ulimit rtprio=99). Going on without",
            )

    def _wait(self, timeout_s: float) -> bool:
        """Sleep until the time is over or somebody nudges; True when nudged."""
        nudged = bool(select.select([self._wake], [], [], max(0.0, timeout_s))[0])
        if nudged:
            os.eventfd_read(self._wake)
        return nudged

    def _tell(self, severity: Severity, text: str) -> None:
        self.events.append(Event(severity, text))
        self._notify()

    def _connect(self) -> None:
        try:
            standing = self.arm.connect()
        except (BusError, ServoMismatchError) as error:
            final = isinstance(error, ServoMismatchError)
            with self._lock:
                self._controller.disconnected(str(error), final=final)
            if self._is_news(error):
                self._complaint = str(error)
                self._tell(Severity.ERROR, f"{error}. " + ("Call resume to try again" if final else "Trying again"))
            if not final:
                self._wait(self._backoff_s)
                self._backoff_s = min(2.0 * self._backoff_s, LONGEST_BACKOFF_S)
            return
        now_ns = time.monotonic_ns()
        with self._lock:
            self._controller.connected(now_ns, standing.setpoint)
        self.measured, self._read_ns = standing.measured, now_ns
        self.counters.connections += 1
        self._backoff_s, self._complaint, self._unplugged = FIRST_BACKOFF_S, "", False
        self._tell(Severity.OK, f"connected to {len(standing.setpoint)} servos; holding where the arm stands")

    def _is_news(self, error: BusError | ServoMismatchError) -> bool:
        """An error is said once, not at every attempt; that an unplugged port is absent, only once that lasts."""
        if isinstance(error, PortAbsentError) and self._unplugged and self._backoff_s < LONGEST_BACKOFF_S:
            return False
        return str(error) != self._complaint

    def _play(self) -> None:
        """Cycles until the connection is lost or the process ends."""
        tick_ns = time.monotonic_ns()
        try:
            while not self._ending:
                self._cycle()
                if self.counters.cycles % self._notify_every == 0:
                    self._notify()
                tick_ns = self._next_tick(tick_ns + self._period_ns)
        except BusError as error:
            self._lose(error)

    def _next_tick(self, tick_ns: int) -> int:
        """Wait for the time `tick_ns`, answering one nudge meanwhile; returns the tick that came, ns."""
        answered = False
        while (left_ns := tick_ns - time.monotonic_ns()) > 0 and not self._ending:
            # Only the first nudge of a period is answered at once: a flood of messages must not fill the bus.
            if self._wait(left_ns / NS_PER_S) and not answered and not self._ending:
                answered = True
                self._decide(None)
        late_ns = time.monotonic_ns() - tick_ns
        self.lateness_ms.append(late_ns / NS_PER_MS)
        missed = max(0, late_ns // self._period_ns)
        self.counters.late_periods += missed
        return tick_ns + missed * self._period_ns

    def _answer(self) -> None:
        """Do what was asked for, if anything."""
        with self._lock:
            request, self._request = self._request, None
        if request is None:
            return
        try:
            if request.release:
                self._do_release(request)
            else:
                self._do_resume(request)
        finally:
            request.done.set()

    def _do_release(self, request: _Request) -> None:
        with self._lock:
            refused = self._controller.release()
        if refused is not None:
            request.answer = False, refused.reason
            return
        try:
            self.arm.release()
        except BusError as error:
            request.answer = False, f"{error}; some joints may be limp, resume holds them"
            if isinstance(error, PortLostError):
                raise
        else:
            request.answer = True, "the arm is limp until resume: hold it"

    def _do_resume(self, request: _Request) -> None:
        """Look at the servos before a resume: one that is limp would be driven without moving."""
        try:
            standing = self.arm.inspect()
            limp = {index: standing.setpoint[index] for index in standing.limp}
            with self._lock:
                self._controller.revived(limp)  # before they have torque: whatever fails, no goal lies elsewhere
            self.arm.revive(standing)
        except (BusError, ServoMismatchError) as error:
            request.answer = False, f"not resumed: {error}"
            if isinstance(error, PortLostError):
                raise
        else:
            with self._lock:
                done, text = self._controller.resume()
            names = ", ".join(self._controller.rules.names[index] for index in limp)
            request.answer = done, f"{text}; torque was off and is on again: {names}" if limp else text

    def _cycle(self) -> None:
        self._answer()
        self.counters.cycles += 1
        measured: Measured | None = None
        try:
            measured = self.arm.read()
        except PortLostError:
            raise
        except BusError:
            self.counters.failed_readings += 1
            if time.monotonic_ns() - self._read_ns > SILENCE_S * NS_PER_S:
                raise
        else:
            self.measured, self._read_ns = measured, time.monotonic_ns()
        self._decide(measured)

    def _decide(self, measured: Measured | None) -> None:
        """Step the controller and write what it says."""
        now_ns, offset_ns = read_clocks()
        with self._lock:
            cycle = self._controller.step(now_ns, offset_ns, measured)
        if cycle.setpoint is not None:
            self.arm.write(cycle.setpoint)
        if cycle.started is not None or cycle.events:
            self._report(cycle)

    def _report(self, cycle: Cycle) -> None:
        if started := cycle.started:
            written_ns, system_ns = time.monotonic_ns(), time.time_ns()
            self.latencies.append(
                Latency(
                    started.stamp_ns,
                    (system_ns - started.stamp_ns) / NS_PER_MS if started.stamp_ns else None,
                    started.transport_ns / NS_PER_MS,
                    (written_ns - started.received_ns) / NS_PER_MS,
                )
            )
        self.events.extend(cycle.events)
        self._notify()

    def _lose(self, error: BusError) -> None:
        with self._lock:
            self.measured = None
            request, self._request = self._request, None
            self._controller.disconnected(str(error))
            if request is not None:
                request.answer = (False, str(error)) if request.release else self._controller.resume()
                request.done.set()
        self._let_go(torque_off=False)
        self._complaint, self._unplugged = str(error), isinstance(error, PortLostError)
        self._tell(Severity.ERROR, f"{error}. The servos hold their last goal; connecting again")

    def _settle(self) -> None:
        """Come to rest before the end, so that the servos do not have to stop from full speed."""
        if self.measured is None:
            return
        with self._lock:
            self._controller.stop("shutting down")
        deadline_ns = time.monotonic_ns() + int(BRAKING_S * NS_PER_S)
        try:
            while not self._controller.at_rest and time.monotonic_ns() < deadline_ns:
                self._cycle()
                select.select([], [], [], self._period_ns / NS_PER_S)
        except BusError as error:
            self._tell(Severity.ERROR, f"{error}. The servos hold their last goal")

    def _let_go(self, *, torque_off: bool | None = None) -> None:
        try:
            self.arm.close(torque_off=self._torque_off_on_exit if torque_off is None else torque_off)
        except BusError as error:
            self._tell(Severity.ERROR, f"{error}. Torque could not be switched off")
