"""Messages read without ROS, diagnostics as plain values, the list of ports, and the parameters."""

from collections import deque
from types import SimpleNamespace

import pytest

from arm_driver import ports
from arm_driver.control import Measured, State
from arm_driver.feetech.bus import Counters
from arm_driver.loop import Latency, LoopCounters
from arm_driver.messages import read_trajectory
from arm_driver.ports import Found, describe, stable_names
from arm_driver.protection import HealthRule, Severity
from arm_driver.report import Reporter
from arm_driver.trajectory import NS_PER_S, Message, Rejected

NOW_NS = 50 * NS_PER_S
OFFSET_NS = 1_700_000_000 * NS_PER_S


def ros_message(**changes):
    point = SimpleNamespace(
        positions=[0.1, 0.2], velocities=[], accelerations=[], effort=[],
        time_from_start=SimpleNamespace(sec=1, nanosec=500_000_000),
    )  # fmt: skip
    for name, value in changes.items():
        setattr(point, name, value)
    stamp = SimpleNamespace(sec=1_700_000_049, nanosec=7)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), joint_names=["a", "b"], points=[point])


def test_a_message_is_taken_apart():
    arrived = NOW_NS + OFFSET_NS - 2_000_000
    info = {"received_timestamp": arrived, "source_timestamp": arrived - 3_000_000}
    found = read_trajectory(ros_message(), info, NOW_NS, OFFSET_NS)
    assert found == Message(
        stamp_ns=1_700_000_049 * NS_PER_S + 7,
        joint_names=("a", "b"),
        times_ns=(1_500_000_000,),
        positions=((0.1, 0.2),),
        received_ns=NOW_NS - 2_000_000,
        clock_offset_ns=OFFSET_NS,
        transport_ns=3_000_000,
    )


@pytest.mark.parametrize("info", [{}, {"received_timestamp": 1}, {"received_timestamp": NOW_NS + OFFSET_NS + 5}])
def test_stamps_of_another_clock_are_not_used(info):
    found = read_trajectory(ros_message(), info, NOW_NS, OFFSET_NS)
    assert found.received_ns == NOW_NS
    assert found.transport_ns == 0


def test_velocities_must_fit_although_they_are_not_used():
    found = read_trajectory(ros_message(velocities=[1.0]), {}, NOW_NS, OFFSET_NS)
    assert found == Rejected("point 0 has 1 velocities for 2 joints")
    assert isinstance(read_trajectory(ros_message(velocities=[1.0, 2.0]), {}, NOW_NS, OFFSET_NS), Message)


class Loop:
    """What a Reporter reads of a ControlLoop."""

    def __init__(self):
        self.state = (State.HOLD, "waiting for a trajectory")
        self.measured = Measured(0, (0, 0), (0, 0), (0.5, 0.0), (12.0, 11.9), (30.0, 58.0))
        self.counters = LoopCounters(cycles=100)
        self.lateness_ms = deque([0.1, 0.2])
        self.arm = SimpleNamespace(counters=Counters(requests=3), alarms={})


def reporter(loop):
    made = Reporter(loop, HealthRule(55, 65, 6, 13), ("a", "b"))
    made.entries(NOW_NS)
    return made


def entry(made, part, now_ns=NOW_NS + NS_PER_S):
    return {e.name: e for e in made.entries(now_ns)}[part]


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        (State.CONNECTING, Severity.ERROR),
        (State.HOLD, Severity.OK),
        (State.ACTIVE, Severity.OK),
        (State.STOPPED, Severity.WARN),
        (State.FAULT, Severity.ERROR),
    ],
)
def test_each_state_has_its_level(state, severity):
    loop = Loop()
    loop.state = (state, "why")
    found = entry(reporter(loop), "state")
    assert (found.severity, found.message) == (severity, f"{state}: why")


def test_refusals_are_counted():
    made = reporter(Loop())
    made.reject("first")
    made.reject("second")
    values = entry(made, "state").values
    assert (values["rejected"], values["last_rejection"]) == (2, "second")


def test_the_loops_rate_is_that_since_the_last_report():
    loop = Loop()
    made = reporter(loop)
    loop.counters.cycles += 50
    loop.lateness_ms.extend([1.0, 3.0])
    values = entry(made, "loop", NOW_NS + NS_PER_S // 2).values
    assert values["rate_hz"] == pytest.approx(100.0)
    assert values["jitter_p50_ms"] == pytest.approx(2.0)
    assert not loop.lateness_ms


def test_a_rough_loop_is_a_warning():
    loop = Loop()
    made = reporter(loop)
    loop.counters.cycles += 80
    loop.counters.late_periods += 20
    found = entry(made, "loop")
    assert found.severity is Severity.WARN
    assert "20 of 80 periods were late" in found.message


def test_latency_is_judged_against_the_line():
    made = reporter(Loop())
    assert entry(made, "latency").values["total_p95_ms"] is None
    made.add(Latency(1, 40.0, 1.0, 5.0))
    made.add(Latency(0, None, 1.0, 5.0))
    found = entry(made, "latency")
    assert found.severity is Severity.OK
    assert (found.values["n"], found.values["total_p50_ms"], found.values["line_ms"]) == (1, 40.0, 100.0)
    made.add(Latency(2, 400.0, 1.0, 5.0))
    found = entry(made, "latency")
    assert found.severity is Severity.WARN
    assert "the line is 100 ms" in found.message


def test_servos_and_bus():
    loop = Loop()
    made = reporter(loop)
    found = entry(made, "servos")
    assert found.severity is Severity.WARN
    assert "b has 58 C" in found.message
    assert found.values["a_load_percent"] == 50.0
    loop.arm.alarms = {"a": ("too hot", "overloaded")}
    bus = entry(made, "bus")
    assert (bus.severity, bus.message) == (Severity.ERROR, "a: too hot, overloaded")
    loop.measured = None
    assert all(e.name != "servos" for e in made.entries(NOW_NS))


def test_ports_are_listed_with_their_stable_names(tmp_path, monkeypatch):
    device = tmp_path / "ttyACM0"
    device.touch()
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    (by_id / "usb-1a86_USB_Single_Serial_123-if00").symlink_to(device)
    assert stable_names(by_id) == {str(device): str(by_id / "usb-1a86_USB_Single_Serial_123-if00")}
    assert stable_names(tmp_path / "absent") == {}

    known = SimpleNamespace(device=str(device), vid=0x1A86, pid=0x55D3, description="x")
    strange = SimpleNamespace(device="/dev/ttyX", vid=1, pid=2, description="a modem")
    plain = SimpleNamespace(device="/dev/ttyS0", vid=None, pid=None, description="n/a")
    monkeypatch.setattr(ports.list_ports, "comports", lambda: [plain, strange, known])
    monkeypatch.setattr(ports, "BY_ID", by_id)
    first, second = ports.find()
    assert first.adapter.startswith("CH343")
    assert second.adapter == "unknown adapter 0001:0002 a modem"
    assert ports.main() == 0


def test_ports_for_people():
    lines = describe([Found("/dev/ttyACM0", "/dev/serial/by-id/x", "CH343", ("12 (python)",))])
    assert lines == ["/dev/ttyACM0  CH343", "  port:=/dev/serial/by-id/x", "  in use by process 12 (python)"]
    assert "no USB serial port" in describe([])[0]
