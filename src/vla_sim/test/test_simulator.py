"""The simulator as a process: its command line, its life, its serial port, its cameras, its control socket."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import serial

from vla_core.errors import ConfigError
from vla_core.image import decode_jpeg
from vla_sim.control import ControlServer, SimClient, SimError
from vla_sim.layout import draw
from vla_sim.mjpeg import MjpegServer, format_stamp, part
from vla_sim.process import SimulatorProcess
from vla_sim.pty_port import PtyPort
from vla_sim.servo_bus import BROADCAST_ID, Instruction, packet
from vla_sim.simulator import make_folder_of, parse
from vla_sim.sts3215 import Address

pytestmark = pytest.mark.timeout(120)

TIMEOUT_S = 20.0
CAMERA_ARGUMENTS = ("--cameras", "front,wrist", "--http-port", "0", "--fps", "20", "--width", "160", "--height", "120")


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)


def run_to_end(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vla_sim.simulator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Viewer:
    """Reads a stream part by part."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")
        self.status = self._file.readline().decode()
        self._headers()

    def ends(self) -> bool:
        """Read to the end of the stream."""
        try:
            while True:
                self.frame()
        except (EOFError, ConnectionError):
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def _headers(self) -> dict[str, str]:
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip()] = value.strip()
        return headers

    def frame(self) -> tuple[int, bytes]:
        """Stamp, ns, and JPEG of the next part; EOFError at the end of the stream."""
        line = self._file.readline()
        while line and not line.startswith(b"--"):
            line = self._file.readline()
        if not line:
            raise EOFError
        headers = self._headers()
        seconds, _, fraction = headers["X-Timestamp"].partition(".")
        assert len(fraction) == 9
        jpeg = self._file.read(int(headers["Content-Length"]))
        return int(seconds) * 1_000_000_000 + int(fraction), jpeg


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("sim"), CAMERA_ARGUMENTS) as process:
        yield process


@pytest.fixture
def client(sim: SimulatorProcess) -> Iterator[SimClient]:
    with sim.client() as connection:
        yield connection
        connection.fault("clear")
        connection.release()


@pytest.fixture
def port(sim: SimulatorProcess) -> Iterator[serial.Serial]:
    with serial.Serial(str(sim.port), 1_000_000, timeout=2.0) as line:
        yield line
        line.write(packet(BROADCAST_ID, Instruction.WRITE, bytes((Address.TORQUE_ENABLE, 0))))


def ask(line: serial.Serial, request: bytes, count: int) -> bytes:
    line.write(request)
    return bytes(line.read(count))


def read_word(line: serial.Serial, servo_id: int, address: int) -> int:
    reply = ask(line, packet(servo_id, Instruction.READ, bytes((address, 2))), 8)
    assert len(reply) == 8
    return reply[5] | reply[6] << 8


# The command line and the life of the process


def test_help() -> None:
    result = run_to_end("--help")
    assert result.returncode == 0
    assert "--port-link" in result.stdout


@pytest.mark.parametrize("arguments", [["--sede", "1"], ["--port-link", "/proc/nowhere/servos", "--no-cameras"]])
def test_bad_arguments_end_with_2_and_name_the_option(arguments: list[str]) -> None:
    result = run_to_end(*arguments)
    assert result.returncode == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cameras", "front,attic"], "attic"),
        (["--fps", "0"], "--fps"),
        (["--seed", "-1"], "--seed"),
        (["--http-port", "99999"], "--http-port"),
    ],
)
def test_impossible_values_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(arguments)


def test_folders_of_its_paths_are_made_for_this_user_alone(tmp_path: Path) -> None:
    """Only its own default folder was made: with any other the simulator ended with `make it, or choose another`."""
    tmp_path.chmod(0o755)
    make_folder_of(tmp_path / "a/b/servos", "--port-link")
    make_folder_of(tmp_path / "a/c/sim.sock", "--control")
    make_folder_of(tmp_path / "a/c/sim.sock", "--control")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (".", "a", "a/b", "a/c")]
    assert modes == [0o755, 0o700, 0o700, 0o700]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--control .*/file/d/sim.sock: folder .*/file/d: Not a directory; choose"):
        make_folder_of(tmp_path / "file/d/sim.sock", "--control")


def test_a_control_socket_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        asyncio.run(ControlServer(tmp_path / "nowhere" / "sim.sock", {}).start())


def test_what_follows_ros_args_is_ignored() -> None:
    options = parse(["--seed", "5", "--ros-args", "-r", "__node:=simulator", "--log-level", "info"])
    assert options.seed == 5
    assert len(options.cameras) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    sim = SimulatorProcess(tmp_path)
    assert sim.port.is_symlink()
    assert sim.stop(number) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["simulator.log"]
    assert "Traceback" not in sim.log.read_text()


def test_shutdown_by_control(tmp_path: Path) -> None:
    sim = SimulatorProcess(tmp_path)
    with sim.client() as client:
        client.shutdown()
    assert sim.process.wait(TIMEOUT_S) == 0
    assert not sim.control.exists()
    sim.stop()


def test_a_second_simulator_is_told_what_to_change(sim: SimulatorProcess, client: SimClient, tmp_path: Path) -> None:
    result = run_to_end("--port-link", str(sim.port), "--control", str(tmp_path / "c"), "--no-cameras")
    assert result.returncode == 2
    assert "--port-link" in result.stderr
    assert "Traceback" not in result.stderr
    with pytest.raises(ConfigError, match="--control"):
        asyncio.run(ControlServer(sim.control, {}).start())
    with pytest.raises(ConfigError, match="--http-port"):
        asyncio.run(MjpegServer(["front"]).start("127.0.0.1", client.status()["http_port"]))
    assert client.status()["time_s"] > 0
    assert sim.port.is_symlink()


def test_what_a_dead_simulator_left_is_replaced(tmp_path: Path) -> None:
    first = SimulatorProcess(tmp_path)
    first.stop(signal.SIGKILL)
    assert first.port.is_symlink()
    assert first.control.exists()
    with SimulatorProcess(tmp_path) as second, second.client() as client:
        assert client.status()["device"] == str(second.port.readlink())


def test_a_file_in_the_way_is_not_destroyed(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="--port-link"):
        PtyPort(path)
    with pytest.raises(ConfigError, match="--control"):
        asyncio.run(ControlServer(path, {}).start())
    assert path.read_text() == "precious"


# The serial port


def test_a_goal_moves_the_arm(client: SimClient, port: serial.Serial) -> None:
    client.reset(1)
    enable = bytes((Address.TORQUE_ENABLE, 1)) + b"".join(bytes((i, 1)) for i in range(1, 7))
    port.write(packet(BROADCAST_ID, Instruction.SYNC_WRITE, enable))
    start = read_word(port, 1, Address.PRESENT_POSITION)
    goal = packet(1, Instruction.WRITE, bytes((Address.GOAL_POSITION,)) + (start + 300).to_bytes(2, "little"))
    assert ask(port, goal, 6) == packet(1, 0)
    wait_until(lambda: abs(read_word(port, 1, Address.PRESENT_POSITION) - start - 300) < 15, "the arm moves")
    joints = client.truth()["joints"]
    assert joints[0] == pytest.approx(300 * 2 * 3.14159 / 4096, abs=0.03)


def test_only_its_own_speed_is_understood(sim: SimulatorProcess, client: SimClient) -> None:
    with serial.Serial(str(sim.port), 115_200, timeout=0.3) as line:
        assert ask(line, packet(1, Instruction.PING), 6) == b""
    assert client.status()["bus"]["wrong_baud_bytes"] >= 6


def test_unplugging_hangs_up_and_replugging_keeps_the_servos(client: SimClient, sim: SimulatorProcess) -> None:
    with serial.Serial(str(sim.port), 1_000_000, timeout=2.0) as line:
        unlock = packet(2, Instruction.WRITE, bytes((Address.LOCK, 0)))
        assert ask(line, unlock, 6) == packet(2, 0)
        write = packet(2, Instruction.WRITE, bytes((Address.MIN_POSITION,)) + (950).to_bytes(2, "little"))
        assert ask(line, write, 6) == packet(2, 0)
        client.fault("unplug")
        assert not sim.port.is_symlink()
        with pytest.raises((serial.SerialException, OSError)):
            ask(line, packet(1, Instruction.PING), 6)
    client.fault("replug", power_cycle=True)
    with serial.Serial(str(sim.port), 1_000_000, timeout=2.0) as line:
        assert read_word(line, 2, Address.MIN_POSITION) == 950
        restore = packet(2, Instruction.RESTORE)
        assert ask(line, restore, 6) == packet(2, 0)


def test_a_raw_client_gets_eio_when_unplugged(client: SimClient, sim: SimulatorProcess) -> None:
    descriptor = os.open(sim.port, os.O_RDWR | os.O_NOCTTY)
    try:
        client.fault("unplug")
        with pytest.raises(OSError) as caught:
            os.write(descriptor, b"x")
        assert caught.value.errno == errno.EIO
    finally:
        os.close(descriptor)


def test_line_faults_and_a_silent_servo(client: SimClient, port: serial.Serial) -> None:
    port.timeout = 0.3
    client.fault("silence_servo", id=3)
    assert ask(port, packet(3, Instruction.PING), 6) == b""
    client.fault("silence_servo", id=3, on=False)
    assert ask(port, packet(3, Instruction.PING), 6) == packet(3, 0)
    client.fault("corrupt_bytes", count=1)
    assert ask(port, packet(3, Instruction.PING), 6) == b""
    client.fault("drop_bytes", rate=1.0)
    assert ask(port, packet(3, Instruction.PING), 6) == b""
    client.fault("clear")
    port.timeout = 2.0
    # What is left of the spoilt packets may swallow the first request, as on a real line.
    wait_until(lambda: ask(port, packet(3, Instruction.PING), 6) == packet(3, 0), "the line is mended")
    client.fault("servo", id=3, voltage_v=3.0)
    wait_until(lambda: ask(port, packet(3, Instruction.PING), 6) == packet(3, 1), "the voltage error")


def test_the_bus_counts_packets_and_cpu_time(client: SimClient, port: serial.Serial) -> None:
    before = client.status()
    for _ in range(50):
        assert ask(port, packet(1, Instruction.PING), 6) == packet(1, 0)
    after = client.status()
    assert after["bus"]["packets"] - before["bus"]["packets"] == 50
    assert after["bus_cpu_s"] > before["bus_cpu_s"]


def test_wire_timing_delays_replies(tmp_path: Path) -> None:
    """Default return delay 500 us and 12 bytes at 1 Mbaud: 0.62 ms at least, however fast the machine."""
    sim = SimulatorProcess(tmp_path, ("--no-cameras", "--baud-timing"))
    with sim, serial.Serial(str(sim.port), 1_000_000, timeout=2.0) as line:
        for _ in range(5):
            start_ns = time.monotonic_ns()
            assert ask(line, packet(1, Instruction.PING), 6) == packet(1, 0)
            assert time.monotonic_ns() - start_ns >= 620_000


# Cameras


def test_streams_carry_pictures_with_rising_stamps(client: SimClient) -> None:
    status = client.status()
    with Viewer(status["http_port"], "/front/stream.mjpg") as viewer:
        assert "200" in viewer.status
        frames = [viewer.frame() for _ in range(4)]
    stamps = [stamp for stamp, _ in frames]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[-1] - time.time_ns()) < 10e9
    assert decode_jpeg(frames[-1][1]).shape == (120, 160, 3)
    assert client.truth()["frame_stamp_ns"] >= stamps[-1]


def test_only_watched_cameras_are_drawn(client: SimClient) -> None:
    with Viewer(client.status()["http_port"], "/wrist/stream.mjpg") as viewer:
        viewer.frame()
        before = client.status()["cameras"]
        for _ in range(5):
            viewer.frame()
        after = client.status()["cameras"]
    assert after["wrist"]["frames"] > before["wrist"]["frames"]
    assert after["front"]["frames"] == before["front"]["frames"]
    wait_until(lambda: client.status()["cameras"]["wrist"]["viewers"] == 0, "the viewer is gone")


def test_snapshots_index_and_wrong_paths(client: SimClient) -> None:
    base = f"http://127.0.0.1:{client.status()['http_port']}"
    with urllib.request.urlopen(f"{base}/front/snapshot.jpg", timeout=TIMEOUT_S) as answer:
        assert decode_jpeg(answer.read()).shape == (120, 160, 3)
        assert answer.headers["X-Timestamp"]
    with urllib.request.urlopen(f"{base}/", timeout=TIMEOUT_S) as answer:
        assert json.load(answer) == {"front": "/front/stream.mjpg", "wrist": "/wrist/stream.mjpg"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{base}/attic/stream.mjpg", timeout=TIMEOUT_S)
    assert caught.value.code == 404
    assert b"/front/stream.mjpg" in caught.value.read()


def test_a_dropped_camera_breaks_off_and_comes_back(client: SimClient) -> None:
    http_port = client.status()["http_port"]
    with Viewer(http_port, "/front/stream.mjpg") as viewer, Viewer(http_port, "/wrist/stream.mjpg") as other:
        viewer.frame()
        client.fault("drop_camera", camera="front")
        assert viewer.ends()
        with Viewer(http_port, "/front/stream.mjpg") as refused:
            assert "503" in refused.status
        other.frame()
        client.fault("restore_camera", camera="front")
        with Viewer(http_port, "/front/stream.mjpg") as again:
            assert again.frame()[1]


def test_a_frozen_camera_stalls_or_repeats(client: SimClient) -> None:
    http_port = client.status()["http_port"]
    with Viewer(http_port, "/front/stream.mjpg") as viewer:
        viewer.frame()
        client.fault("freeze_camera", camera="front", repeat=True)
        for _ in range(10):  # what was on its way
            last = viewer.frame()
        assert [viewer.frame() for _ in range(3)] == [last] * 3
        client.fault("freeze_camera", camera="front")
        before = client.status()["cameras"]["front"]["frames"]
        client.reset(4)
        time.sleep(0.3)  # six periods in which nothing may be drawn
        assert client.status()["cameras"]["front"]["frames"] - before <= 1
        client.fault("clear")
        wait_until(lambda: viewer.frame() != last, "pictures move again")


def test_stamps_have_nine_digits() -> None:
    assert format_stamp(1_700_000_000_000_000_042) == "1700000000.000000042"
    assert b"Content-Length: 3\r\nX-Timestamp: 0.000000001\r\n\r\nabc\r\n" in part(1, b"abc")


# The control socket


def test_reset_truth_and_outcome(client: SimClient) -> None:
    episode = client.reset(7)["episode"]
    truth = client.truth()
    assert truth["episode"] == episode
    assert truth["seed"] == 7
    assert set(truth["cubes"]) == {"black", "white"}
    assert abs(truth["stamp_ns"] - time.time_ns()) < 5e9
    assert client.reset(7)["episode"] == episode + 1
    assert client.truth()["cubes"]["black"]["x"] == pytest.approx(truth["cubes"]["black"]["x"], abs=1e-3)
    assert client.reset(8, keep_arm=True)["seed"] == 8
    outcome = client.outcome("black")
    assert outcome["success"] is False
    assert outcome["released"] is True


def test_reset_takes_a_variety_and_a_target(client: SimClient) -> None:
    client.reset(12, variety="distractors", target="white")
    truth = client.truth()["cubes"]
    wanted = draw(12, "distractors", "white").cubes
    assert truth.keys() == wanted.keys()
    assert truth["white"]["size"] == pytest.approx(wanted["white"].size)
    with pytest.raises(SimError, match="wild"):
        client.reset(12, variety="wild")
    client.reset(12, target="red", names=("red", "red 2", "blue"))
    assert client.truth()["cubes"].keys() == {"red", "red 2", "blue"}
    assert client.outcome("red")["lifted"] is False
    with pytest.raises(SimError, match="a list of cubes"):
        client.request("reset", seed=12, names="red")
    client.reset(7)
    assert client.truth()["cubes"].keys() == {"black", "white"}


def test_status_reports_real_time(client: SimClient) -> None:
    status = client.status()
    assert status["realtime_factor"] > 0
    assert len(status["home"]) == 6
    assert set(status["cameras"]) == {"front", "wrist"}
    assert set(status["torque"].values()) <= {True, False}


def test_bad_requests_are_refused_and_the_connection_lives(client: SimClient) -> None:
    for op, arguments, message in (
        ("resett", {}, "no operation 'resett'"),
        ("reset", {}, "seed"),
        ("reset", {"seed": -1}, "seed"),
        ("reset", {"seed": 1, "keep_arm": "yes"}, "keep_arm"),
        ("outcome", {"target": "green"}, "green"),
        ("fault", {"kind": "earthquake"}, "earthquake"),
        ("fault", {"kind": "drop_bytes"}, "rate"),
        ("fault", {"kind": "silence_servo", "id": 77}, "77"),
        ("fault", {"kind": "drop_camera", "camera": "attic"}, "attic"),
        ("hand_guide", {}, "joints"),
        ("hand_guide", {"joints": {"tail": 1.0}}, "joints"),
    ):
        with pytest.raises(SimError, match=message):
            client.request(op, **arguments)
    assert client.truth()


def test_garbage_on_the_control_socket(sim: SimulatorProcess) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(sim.control))
        raw.sendall(b"not json\n[1]\n")
        file = raw.makefile("rb")
        assert json.loads(file.readline())["ok"] is False
        assert json.loads(file.readline())["ok"] is False


def test_no_simulator_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="no simulator at"):
        SimClient(tmp_path / "nothing.sock")


def test_a_hand_moves_a_limp_arm_but_not_a_stiff_one(client: SimClient, port: serial.Serial) -> None:
    client.reset(2)
    client.hand_guide({"shoulder_pan": 0.8}, duration_s=1.0)
    wait_until(lambda: abs(client.truth()["joints"][0] - 0.8) < 0.1, "the arm follows the hand")
    client.hand_guide(sweep=["gripper"], duration_s=4.0, wait=False)
    wait_until(lambda: client.truth()["joints"][5] > 1.5, "the gripper opens")
    client.release()
    assert ask(port, packet(1, Instruction.WRITE, bytes((Address.TORQUE_ENABLE, 1))), 6) == packet(1, 0)
    with pytest.raises(SimError, match="shoulder_pan: torque is on"):
        client.hand_guide({"shoulder_pan": 0.0})


def test_a_reset_puts_a_stiff_arm_home_for_good(client: SimClient, port: serial.Serial) -> None:
    """Its servos' goals move with it, or they would pull it back at once."""
    enable = bytes((Address.TORQUE_ENABLE, 1)) + b"".join(bytes((i, 1)) for i in range(1, 7))
    port.write(packet(BROADCAST_ID, Instruction.SYNC_WRITE, enable))
    assert ask(port, packet(1, Instruction.PING), 6) == packet(1, 0)
    client.reset(3)
    time.sleep(0.5)  # for a pull to show
    assert client.truth()["joints"] == pytest.approx(client.status()["home"], abs=0.06)
