"""Recording without ROS: what is in the files, whatever happens to the process and to the disk."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Footer, Message
from mcap.stream_reader import StreamReader
from mcap_ros2.decoder import DecoderFactory

from evergreen.recording import definitions, keys
from evergreen.recording import recorder as recorders
from evergreen.recording.keys import Key
from evergreen.recording.recorder import Message as Heard
from evergreen.recording.recorder import Recorder, State
from evergreen.recording.topics import LASTING, Topics, camera_of
from evergreen.recording.watch import SILENT_S, Watch
from vla_core.errors import ConfigError

STRING = "std_msgs/msg/String"
WAIT_S = 60.0


def define(datatype):
    return definitions.definition(datatype, definitions.prefixes())


def cdr(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"\x00\x01\x00\x00" + struct.pack("<I", len(data)) + data


def heard(number, topic="joint_states", size=0):
    return Heard(topic, STRING, cdr(f"{number}" + "x" * size), number * 1000, number * 1000 - 1)


def contents(path):
    """Topic and text of every message, and whether the file was finished; reads unfinished files too."""
    found, footer, channels, schemas = [], False, {}, {}
    with path.open("rb") as stream:
        try:
            for record in StreamReader(stream).records:
                footer = footer or isinstance(record, Footer)
                if type(record).__name__ == "Channel":
                    channels[record.id] = record
                elif type(record).__name__ == "Schema":
                    schemas[record.id] = record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    decode = DecoderFactory().decoder_for(channel.message_encoding, schemas[channel.schema_id])
                    found.append((channel.topic, decode(record.data).data))
        except (McapError, struct.error):
            assert not footer
    return found, footer


@pytest.fixture
def make(tmp_path):
    made = []

    def build(**options):
        recorder = Recorder(tmp_path / "out", define, LASTING.__contains__, **options)
        made.append(recorder)
        return recorder

    yield build
    for recorder in made:
        recorder.close()


def test_messages_are_written_unchanged_and_indexed(make, tmp_path):
    recorder = make(namespace="left")
    recorder.message(heard(1))  # before the beginning
    assert recorder.start() == "episode 0: recording"
    for number in range(2, 50):
        recorder.message(heard(number))
    assert recorder.keep().startswith("kept episode-0000.mcap: 48 messages")
    (path,) = recorder.kept
    assert contents(path) == ([("/left/joint_states", str(number)) for number in range(2, 50)], True)
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        summary = reader.get_summary()
        assert summary.statistics.message_count == 48
        messages = list(reader.iter_decoded_messages())
        assert (messages[0][2].log_time, messages[0][2].publish_time) == (2000, 1999)
        assert messages[0][3].data == "2"


def test_what_lasts_begins_every_file(make):
    recorder = make()
    recorder.message(heard(1, "prompt"))
    recorder.message(heard(2, "prompt"))
    recorder.start()
    recorder.message(heard(3))
    recorder.keep()
    recorder.start()
    recorder.message(heard(4, "prompt"))
    recorder.keep()
    first, second = (contents(path)[0] for path in recorder.kept)
    assert first == [("/prompt", "2"), ("/joint_states", "3")]
    assert second == [("/prompt", "2"), ("/prompt", "4")]


def test_discarded_episodes_are_gone_and_numbers_go_on(make, tmp_path):
    recorder = make()
    recorder.start()
    recorder.message(heard(1))
    assert recorder.discard() == "discarded episode-0000.mcap"
    assert list((tmp_path / "out").iterdir()) == []
    assert recorder.discard() == recorder.keep() == "no episode is being recorded"
    recorder.start()
    assert recorder.keep() == "nothing was heard, so nothing is kept"
    recorder.start()
    assert "already" in recorder.start()
    recorder.message(heard(2))
    recorder.close()
    again = make()
    again.start()
    again.message(heard(3))
    again.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["episode-0000.mcap", "episode-0001.mcap"]
    assert contents(tmp_path / "out" / "episode-0000.mcap")[0] == [("/joint_states", "2")], "never overwritten"


def test_closing_keeps_what_is_being_recorded(make, tmp_path):
    recorder = make()
    recorder.start()
    recorder.message(heard(1))
    recorder.close()
    assert contents(tmp_path / "out" / "episode-0000.mcap") == ([("/joint_states", "1")], True)


class SmallDisk:
    """Takes `room` bytes, then as much of a write as fits, then nothing."""

    def __init__(self, room):
        self.room = room

    def write(self, descriptor, data):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        done = os.write(descriptor, data[: self.room])
        self.room -= done
        return done


@pytest.mark.parametrize("room", [100_000, 100_001, 101_234, 300_000])
def test_a_disk_that_fills_in_the_middle_of_a_record_leaves_whole_records(make, tmp_path, room):
    recorder = make(system=SmallDisk(room))
    recorder.start()
    for number in range(1, 2000):
        recorder.message(heard(number, size=1000))
    answer = recorder.keep()
    path = tmp_path / "out" / "episode-0000.mcap"
    assert answer == recorder.progress.failure
    assert "cannot be written (No space left on device): recording ended. 0 episodes are saved" in answer
    assert "episode-0000.mcap was cut short" in answer
    assert recorder.progress.state is State.ENDED
    found, footer = contents(path)
    assert not footer
    assert [text.rstrip("x") for _, text in found] == [str(number) for number in range(1, len(found) + 1)]
    assert len(found) == pytest.approx(room / 1050, abs=6)
    assert path.stat().st_size <= room
    assert recorder.start() == answer, "it does not begin again"


def test_recording_ends_before_the_disk_is_full(make, tmp_path, monkeypatch):
    monkeypatch.setattr(recorders, "SYNC_PERIOD_S", 0.01)
    free = [500_000_000]
    recorder = make(free=lambda _: free[0], keep_free=100_000_000)
    recorder.start()
    recorder.message(heard(1))
    recorder.keep()
    recorder.start()
    recorder.message(heard(2))
    until(lambda: recorder.progress.messages == 1)
    free[0] = 99_000_000
    until(lambda: recorder.progress.state is State.ENDED)
    assert "the disk is nearly full (99 MB are left)" in recorder.progress.failure
    assert "1 episodes are saved and whole. episode-0001.cut.mcap was cut short" in recorder.progress.failure
    assert contents(tmp_path / "out" / "episode-0001.cut.mcap") == ([("/joint_states", "2")], True)
    assert contents(tmp_path / "out" / "episode-0000.mcap")[1]
    with pytest.raises(ConfigError, match="only 99 MB are free on this disk, and 100 MB are to stay free"):
        make(free=lambda _: free[0], keep_free=100_000_000)
    more = make()
    more.start()
    more.message(heard(3))
    assert "kept episode-0002.mcap" in more.keep()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_real_file_system_that_runs_full(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run([shutil.which("mount"), "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        recorder = Recorder(small, define, LASTING.__contains__, keep_free=0)
        recorder.start()
        for number in range(1, 5000):
            recorder.message(heard(number, size=1000))
        assert "No space left on device" in recorder.keep()
        recorder.close()
        shutil.copy(small / "episode-0000.mcap", tmp_path)
    finally:
        subprocess.run([shutil.which("umount"), str(small)], check=True)
    found, _ = contents(tmp_path / "episode-0000.mcap")
    assert len(found) > 1500
    assert [text.rstrip("x") for _, text in found] == [str(number) for number in range(1, len(found) + 1)]


def test_a_killed_recorder_leaves_a_readable_file(tmp_path):
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[2])\n"
        "import test_recording as t; from pathlib import Path\n"
        "recorder = t.Recorder(Path(sys.argv[1]), t.define, t.LASTING.__contains__)\n"
        "recorder.start()\n"
        "for number in range(1, 10**9):\n"
        "    recorder.message(t.heard(number, size=200)); time.sleep(0.0005)\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", program, str(out), str(Path(__file__).parent)])
    path = out / "episode-0000.mcap"
    try:
        until(lambda: path.exists() and path.stat().st_size > 50_000)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found, footer = contents(path)
    assert not footer
    assert len(found) > 100
    assert [text.rstrip("x") for _, text in found] == [str(number) for number in range(1, len(found) + 1)]
    again = Recorder(out, define, LASTING.__contains__)
    again.start()
    again.message(heard(1))
    again.close()
    assert contents(path) == (found, False), "the next recording leaves it alone"


def test_a_slow_disk_costs_messages_and_says_so(make, monkeypatch):
    monkeypatch.setattr(recorders, "QUEUE_BYTES", 10_000)
    blocked = threading.Event()

    class Slow:
        def write(self, descriptor, data):
            blocked.wait(WAIT_S)
            return os.write(descriptor, data)

    recorder = make(system=Slow())
    starting = threading.Thread(target=recorder.start)
    starting.start()  # its first flush is stuck
    for number in range(1, 101):
        recorder.message(heard(number, size=1000))
    assert recorder.progress.dropped == pytest.approx(90, abs=3)
    blocked.set()
    starting.join()
    recorder.keep()
    assert len(contents(recorder.kept[0])[0]) + recorder.progress.dropped == 100


def test_a_message_that_is_not_installed_ends_the_recording_with_its_name(make):
    recorder = make()
    recorder.start()
    recorder.message(Heard("joint_states", "no_such_msgs/msg/Thing", b"", 1, 1))
    assert "message no_such_msgs/msg/Thing is not installed" in recorder.keep()


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/out cannot be used for recordings: Not a directory"):
        Recorder(tmp_path / "file" / "out", define, LASTING.__contains__)


def test_definitions_contain_what_they_use():
    text = define("trajectory_msgs/msg/JointTrajectory")
    for part in ("std_msgs/Header", "trajectory_msgs/JointTrajectoryPoint", "builtin_interfaces/Duration"):
        assert text.count(f"MSG: {part}\n") == 1


def test_topics_of_one_robot():
    assert Topics().wanted("camera/front/image_raw/compressed") == "sensor_msgs/msg/CompressedImage"
    assert Topics(("wrist",)).wanted("camera/front/image_raw/compressed") is None
    assert Topics().wanted("camera/front/image_raw") is None
    assert camera_of("camera/a/b/image_raw/compressed") is None


def test_a_camera_that_falls_silent_is_told_of_once_and_once_when_it_is_back():
    watch, steady, said = Watch(), frozenset({"camera"}), []
    for tenth in range(130):
        now_s = tenth / 10
        if not 3 < now_s < 7:
            watch.heard("camera", now_s)
        watch.heard("other", 0.0)
        said += [(round(now_s, 1), sentence) for sentence in watch.check(now_s, steady)]
    assert said == [(3.0 + SILENT_S, "camera is silent: nothing for 2 s"), (7.0, "camera is back")]
    assert watch.rate_hz("camera", 12.9) == pytest.approx(10, abs=1)


def test_keys_are_those_of_lerobot(monkeypatch):
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(keys.sys, "stdin", terminal)
        monkeypatch.setattr(keys.os, "tcgetpgrp", lambda _: os.getpgrp())
        with keys.pressed() as descriptor:
            for typed, key in (
                (b"\x1b[C", Key.NEXT),
                (b" ", Key.NEXT),
                (b"\x1b[D", Key.DISCARD),
                (b"x", Key.DISCARD),
                (b"\x1b", Key.END),
                (b"z", None),
                (b"\x1b[A", None),
            ):
                os.write(master, typed)
                assert keys.read(descriptor, 5.0) is key, typed
            assert keys.read(descriptor, 0.01) is None
    os.close(master)


def test_without_a_terminal_there_are_no_keys(monkeypatch):
    with open(os.devnull) as nothing:  # noqa: PTH123
        monkeypatch.setattr(keys.sys, "stdin", nothing)
        with keys.pressed() as descriptor:
            assert descriptor is None


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
