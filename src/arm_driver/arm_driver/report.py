"""What the driver says about itself once a second: plain values for the diagnostics. Used by one thread; no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from arm_driver.control import Measured, State
from arm_driver.loop import ControlLoop, Latency, LoopCounters
from arm_driver.protection import HealthRule, Severity, health
from arm_driver.trajectory import NS_PER_S
from vla_core.latency import LINE_MS, LatencyWindow

LATE_SHARE = 0.05
"""More late periods than one in twenty make the motion rough."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One `DiagnosticStatus`; its name wants the node's in front."""

    name: str
    severity: Severity
    message: str
    values: Mapping[str, object]


class Reporter:
    """Turns the loop's counters and samples into diagnostics."""

    def __init__(self, loop: ControlLoop, health_rule: HealthRule, names: tuple[str, ...]) -> None:
        self._loop = loop
        self._rule = health_rule
        self._names = names
        self._total, self._write, self._transport = LatencyWindow(), LatencyWindow(), LatencyWindow()
        self._before = replace(loop.counters)
        self._before_ns: int | None = None
        self.rejected = 0
        self.rejection = ""

    def add(self, latency: Latency) -> None:
        """Note one trajectory's latency."""
        if latency.total_ms is not None:
            self._total.add(latency.total_ms)
        self._write.add(latency.write_ms)
        self._transport.add(latency.transport_ms)

    def reject(self, reason: str) -> None:
        """Note one refused trajectory."""
        self.rejected += 1
        self.rejection = reason

    def entries(self, now_ns: int) -> list[Entry]:
        """All statuses; `now_ns` is monotonic."""
        state, reason = self._loop.state
        measured = self._loop.measured
        entries = [self._state(state, reason), self._timing(now_ns, state), self._bus(), self._latency()]
        return entries + ([self._servos(measured)] if measured is not None else [])

    def _state(self, state: State, reason: str) -> Entry:
        severity = {
            State.CONNECTING: Severity.ERROR,
            State.FAULT: Severity.ERROR,
            State.STOPPED: Severity.WARN,
            State.LIMP: Severity.WARN,
        }.get(state, Severity.OK)
        values = {"state": str(state), "rejected": self.rejected, "last_rejection": self.rejection}
        return Entry("state", severity, f"{state}: {reason}", values)

    def _timing(self, now_ns: int, state: State) -> Entry:
        now, before = replace(self._loop.counters), self._before
        seconds = (now_ns - self._before_ns) / NS_PER_S if self._before_ns is not None else 0.0
        self._before, self._before_ns = now, now_ns
        jitter = LatencyWindow()
        lateness = self._loop.lateness_ms
        while lateness:
            jitter.add(lateness.popleft())
        summary = jitter.summary()
        cycles, late = now.cycles - before.cycles, now.late_periods - before.late_periods
        rough = state in (State.HOLD, State.ACTIVE) and late > LATE_SHARE * max(1, cycles)
        message = f"{late} of {cycles} periods were late; is the machine overloaded?" if rough else "in time"
        values = {
            "rate_hz": cycles / seconds if seconds else None,
            "jitter_p50_ms": summary.p50,
            "jitter_p95_ms": summary.p95,
            "jitter_p99_ms": summary.p99,
            **_counted(now),
        }
        return Entry("loop", Severity.WARN if rough else Severity.OK, message, values)

    def _bus(self) -> Entry:
        counters = self._loop.arm.counters
        alarms = "; ".join(f"{name}: {', '.join(texts)}" for name, texts in self._loop.arm.alarms.items())
        values = {
            "requests": counters.requests,
            "timeouts": counters.timeouts,
            "corrupt": counters.corrupt,
            "retries": counters.retries,
            "stale_bytes": counters.stale_bytes,
            "alarms": alarms,
        }
        return Entry("bus", Severity.ERROR if alarms else Severity.OK, alarms or "ok", values)

    def _latency(self) -> Entry:
        values: dict[str, object] = {"line_ms": LINE_MS, "n": len(self._total)}
        for name, window in (("total", self._total), ("write", self._write), ("transport", self._transport)):
            summary = window.summary()
            values |= {
                f"{name}_p50_ms": summary.p50,
                f"{name}_p95_ms": summary.p95,
                f"{name}_p99_ms": summary.p99,
            }
        p95 = values["total_p95_ms"]
        slow = isinstance(p95, float) and p95 > LINE_MS
        message = "from header stamp to first servo write"
        if slow:
            message += f": the slowest 5 % take {p95:.1f} ms or more; the line is {LINE_MS:g} ms"
        return Entry("latency", Severity.WARN if slow else Severity.OK, message, values)

    def _servos(self, measured: Measured) -> Entry:
        severity, findings = health(self._names, measured.temperatures_c, measured.voltages_v, self._rule)
        values: dict[str, object] = {}
        for name, volt, celsius, load in zip(
            self._names, measured.voltages_v, measured.temperatures_c, measured.loads, strict=True
        ):
            values |= {
                f"{name}_voltage_v": volt,
                f"{name}_temperature_c": celsius,
                f"{name}_load_percent": 100.0 * load,
            }
        return Entry("servos", severity, findings or "ok", values)


def _counted(counters: LoopCounters) -> dict[str, object]:
    return {
        "cycles": counters.cycles,
        "late_periods": counters.late_periods,
        "failed_readings": counters.failed_readings,
        "connections": counters.connections,
    }
