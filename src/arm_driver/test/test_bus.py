"""The bus against a port that plays its part by hand, and against simulated servos on a pty."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import serial
import serial.rfc2217

from arm_driver.errors import CorruptReplyError, NoReplyError, PortLostError, PortUnavailableError
from arm_driver.feetech import protocol, registers, transport
from arm_driver.feetech.bus import GroupRead, ServoBus
from arm_driver.feetech.transport import holders, open_port
from vla_sim.servo_bus import ServoBus as SimulatedBus
from vla_sim.sts3215 import Sts3215

IDS = (1, 2, 3)


class ScriptedPort:
    """Answers each request with the next entry of `replies`; `late` bytes arrive before the next request."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.sent: list[bytes] = []
        self.waiting = b""
        self.late = b""

    def send(self, packet: bytes) -> None:
        self.sent.append(packet)
        if self.replies:
            self.waiting += self.replies.pop(0)

    def receive(self, size: int, timeout_s: float) -> bytes:
        data, self.waiting = self.waiting, self.late
        self.late = b""
        return data

    def discard(self, quiet_s: float = 0.0) -> int:
        dropped, self.waiting = len(self.waiting), b""
        return dropped

    def close(self) -> None:
        self.sent.append(b"closed")


def positions(*values: int, error: int = 0) -> bytes:
    return b"".join(
        protocol.status(servo_id, error, value.to_bytes(2, "little"))
        for servo_id, value in zip(IDS, values, strict=False)
    )


def scripted(*replies: bytes, retries: int = 1) -> tuple[ServoBus, ScriptedPort]:
    port = ScriptedPort(*replies)
    return ServoBus("scripted", port=port, retries=retries), port


def test_a_prepared_read_unpacks_every_servo():
    bus, port = scripted(positions(100, 2000, 4095))
    assert bus.prepare_read(56, "H", IDS).read() == (100, 2000, 4095)
    assert port.sent == [protocol.sync_read(56, 2, IDS)]
    assert (bus.counters.requests, bus.counters.retries) == (1, 0)


def test_noise_in_front_costs_no_retry():
    bus, _ = scripted(b"\x00\x13" + positions(1, 2, 3))
    assert bus.prepare_read(56, "H", IDS).read() == (1, 2, 3)
    assert bus.counters.retries == 0


def test_a_damaged_reply_is_asked_for_again():
    damaged = bytearray(positions(1, 2, 3))
    damaged[13] ^= 0x10
    bus, port = scripted(bytes(damaged), positions(4, 5, 6))
    assert bus.prepare_read(56, "H", IDS).read() == (4, 5, 6)
    assert len(port.sent) == 2
    assert (bus.counters.corrupt, bus.counters.retries) == (1, 1)


def test_silence_names_the_servo_and_the_cure():
    bus, _ = scripted(positions(1, 2), positions(1, 2))
    with pytest.raises(NoReplyError, match=r"servo\(s\) 3 did not answer .* power") as caught:
        bus.prepare_read(56, "H", IDS).read()
    assert caught.value.ids == (3,)
    assert bus.counters.timeouts == 2


def test_damage_that_does_not_end_is_reported_as_such():
    bus, _ = scripted(b"\xff\xff\x01\x04", b"\xff\xff\x01\x04")
    with pytest.raises(CorruptReplyError, match="cables"):
        bus.prepare_read(56, "H", (1,)).read()


def test_a_late_reply_is_never_taken_for_the_next_answer():
    """Without the check before each request, one late reply would put every reading one cycle behind for ever."""
    bus, port = scripted(b"", positions(1, 1, 1), positions(2, 2, 2), retries=0)
    read = bus.prepare_read(56, "H", IDS)
    port.late = positions(9, 9, 9)
    with pytest.raises(NoReplyError):
        read.read()
    assert read.read() == (1, 1, 1)
    assert read.read() == (2, 2, 2)
    assert bus.counters.stale_bytes == len(positions(9, 9, 9))


def test_a_surplus_makes_the_next_request_wait_for_silence():
    bus, port = scripted(positions(1, 2, 3) + positions(4, 5, 6), positions(7, 8, 9))
    quiet: list[float] = []
    discard = port.discard
    port.discard = lambda quiet_s=0.0: quiet.append(quiet_s) or discard(quiet_s)
    read = bus.prepare_read(56, "H", IDS)
    read.read()
    assert read.read() == (7, 8, 9)
    assert quiet[1] > 0.0


def test_alarms_come_and_go():
    bus, _ = scripted(positions(1, 2, 3, error=0x20), positions(1, 2, 3))
    read = bus.prepare_read(56, "H", IDS)
    assert read.read() == (1, 2, 3)
    assert bus.alarms == dict.fromkeys(IDS, 0x20)
    read.read()
    assert bus.alarms == {}


def test_a_prepared_write_is_the_packet_of_the_protocol():
    bus, port = scripted()
    goal = bus.prepare_write(42, "H", IDS)
    for values in ((0, 0, 0), (100, 2000, 4095), (4095, 1, 2048)):
        goal.write(values)
        data = [value.to_bytes(2, "little") for value in values]
        assert port.sent[-1] == protocol.sync_write(42, IDS, data)
    with pytest.raises(ValueError, match="size"):
        goal.write((1, 2))


def test_leaving_the_context_closes_the_port():
    bus, port = scripted()
    with bus:
        pass
    assert port.sent == [b"closed"]


def test_six_servos_on_a_pty(rig):
    with ServoBus(rig.link, reply_timeout_s=0.25) as bus:
        assert bus.ping(1)
        assert not bus.ping(77)
        assert bus.read(3, registers.MODEL_NUMBER) == registers.MODEL_NUMBER_STS3215
        bus.write(2, registers.P_GAIN, 16)
        assert bus.read(2, registers.P_GAIN) == 16
        assert bus.prepare_read(56, "H", range(1, 7)).read() == (2048,) * 6
        bus.sync_write(42, (1, 2), (b"\x00\x09", b"\x01\x09"))
        assert bus.read(2, registers.GOAL_POSITION) == 0x901
        assert bus.sync_read(42, 2, (2, 1)) == (b"\x01\x09", b"\x00\x09")


def test_bytes_that_get_lost_on_a_bad_cable_are_retried(rig):
    with ServoBus(rig.link, reply_timeout_s=0.25) as bus:
        read = bus.prepare_read(56, "HHHBB", range(1, 7))
        read.read()
        rig.bus.faults.drop_next = 1
        assert read.read()[0] == 2048
        assert bus.counters.retries == 1


def test_pulling_the_adapter_is_an_error_with_a_cure(rig):
    with ServoBus(rig.link, reply_timeout_s=0.25) as bus:
        read = bus.prepare_read(56, "H", range(1, 7))
        read.read()
        rig.unplug()
        with pytest.raises(PortLostError, match="plug it in again"):
            read.read()
    rig.replug()
    with ServoBus(rig.link, reply_timeout_s=0.25) as bus:
        assert bus.ping(1)


def test_two_drivers_on_one_port(rig):
    with ServoBus(rig.link), pytest.raises(PortUnavailableError, match="is in use by"):
        ServoBus(rig.link)


def test_who_holds_a_device_is_told(rig):
    program = f"f = open({rig.link!r}, 'rb', buffering=0); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"open\n"
        assert any(user.startswith(f"{child.pid} (python") for user in holders(rig.link))
        child.communicate(b"\n", timeout=10)


def test_a_missing_port_names_the_parameter_and_where_to_look(tmp_path):
    with pytest.raises(PortUnavailableError, match=r"parameter port: .* does not exist; .*arm_driver\.ports"):
        ServoBus(str(tmp_path / "nothing"))


def test_a_file_is_no_port(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(PortUnavailableError, match="no serial port"):
        ServoBus(str(path))


def test_an_address_that_nobody_knows():
    with pytest.raises(PortUnavailableError, match="nonsense://x"):
        ServoBus("nonsense://x")


def keep_reading(read: GroupRead) -> None:
    """The end of a TCP stream may show a moment later."""
    for _ in range(3):
        with contextlib.suppress(NoReplyError):
            read.read()


@pytest.fixture
def tcp_servos():
    """Servos behind a TCP serial server, such as `ser2net` makes."""
    bus = SimulatedBus([Sts3215(i) for i in IDS])
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(4096):
                if data.startswith(b"hang up"):
                    return
                connection.sendall(bus.feed(data, 0).data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    thread.join(5.0)


def test_a_bus_behind_tcp(tcp_servos):
    with ServoBus(tcp_servos, reply_timeout_s=0.25) as bus:
        read = bus.prepare_read(56, "H", IDS)
        assert read.read() == (2048,) * 3
        bus.prepare_write(42, "H", IDS).write((2000, 2001, 2002))
        assert bus.read(3, registers.GOAL_POSITION) == 2002
        bus.send(b"hang up")
        with pytest.raises(PortLostError, match="went away"):
            keep_reading(read)


def test_nobody_at_a_tcp_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(PortUnavailableError, match="cannot be opened"):
        open_port(f"socket://127.0.0.1:{address[1]}", 1_000_000)


def test_other_addresses_go_through_pyserial():
    """`loop://` echoes, so a request comes back as no reply."""
    bus = ServoBus("loop://", reply_timeout_s=0.01, retries=0)
    with bus, pytest.raises((NoReplyError, CorruptReplyError)):
        bus.read(1, registers.P_GAIN)


# Not flat out, but each time waiting for the bus: where nobody empties the kernel's buffer in time, it takes a packet
# in pieces, and a process that is killed between two of them leaves half of one. No process can help that.
WRITER = """
import signal, sys
from arm_driver.feetech.bus import ServoBus
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
bus = ServoBus(sys.argv[1], reply_timeout_s=5.0)
goal = bus.prepare_write(42, "H", range(1, 7))
print("writing", flush=True)
while True:
    goal.write((2048,) * 6)
    bus.ping(1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_that_dies_leaves_no_half_packet(rig, number):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, rig.link], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(number)
        child.wait(20)
    with ServoBus(rig.link, reply_timeout_s=5.0) as bus:  # the bus takes first what was sent before
        assert bus.ping(1)
    counters = rig.bus.counters
    assert (counters.skipped_bytes, counters.checksum_errors) == (0, 0)


def test_a_packet_is_one_system_call(rig, monkeypatch):
    """What a process cannot be killed in the middle of."""
    written = []
    with ServoBus(rig.link) as bus:
        goal = bus.prepare_write(42, "H", range(1, 7))
        write = transport.os.write
        monkeypatch.setattr(transport.os, "write", lambda fd, data: written.append(data) or write(fd, data))
        goal.write((2048,) * 6)
    monkeypatch.undo()
    assert written == [protocol.sync_write(42, range(1, 7), [b"\x00\x08"] * 6)]


@pytest.fixture
def rfc2217_servos():
    """Servos behind a Telnet serial server, as `rfc2217_server.py` of pyserial is one."""
    bus = SimulatedBus([Sts3215(i) for i in IDS])
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        lock = threading.Lock()

        def write(data: bytes) -> None:
            with lock:
                connection.sendall(data)

        with connection, serial.serial_for_url("loop://") as settings:
            manager = serial.rfc2217.PortManager(settings, SimpleNamespace(write=write))
            with contextlib.suppress(OSError):
                while data := connection.recv(4096):
                    request = b"".join(manager.filter(data))
                    write(b"".join(manager.escape(bus.feed(request, 0).data)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"rfc2217://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    thread.join(10.0)


def test_a_bus_behind_telnet(rfc2217_servos):
    with ServoBus(rfc2217_servos, reply_timeout_s=0.5) as bus:
        assert bus.prepare_read(56, "HHHBB", IDS).read()[0] == 2048
        bus.prepare_write(42, "H", IDS).write((2000, 0xFF, 2002))
        assert bus.read(2, registers.GOAL_POSITION) == 0xFF


def test_no_setting_is_negotiated_again_after_opening(rfc2217_servos, monkeypatch):
    """Each exchange assigned the timeout twice; on an open RFC 2217 port pyserial then negotiates all settings anew."""
    negotiations = []
    negotiate = serial.rfc2217.Serial._reconfigure_port

    def count(handle):
        negotiations.append(handle)
        negotiate(handle)

    monkeypatch.setattr(serial.rfc2217.Serial, "_reconfigure_port", count)
    with ServoBus(rfc2217_servos, reply_timeout_s=0.5) as bus:
        opening = len(negotiations)
        assert opening >= 1
        reader = bus.prepare_read(56, "HHHBB", IDS)
        for _ in range(5):
            assert reader.read()[0] == 2048
        assert not ServoBus(rfc2217_servos, reply_timeout_s=0.02, port=bus._port).ping(9), "silence, and all of it"
        assert len(negotiations) == opening
