"""Contract of the V4L2 source, on a stand-in that keeps the kernel's rules, and on a real camera where there is one."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.sources import v4l2, v4l2_abi
from vla_perception.sources.v4l2 import V4l2Source, control_name, to_system_ns
from vla_perception.sources.v4l2_fake import FakeCamera, FakeControl, FakeKernel

PATH = "/dev/video0"
JOIN_S = 10.0


def jpeg(number: int, size: int = 200) -> bytes:
    return b"\xff\xd8" + bytes([number]) * size + b"\xff\xd9"


def controls() -> list[FakeControl]:
    return [
        FakeControl(0x00980900, "Brightness", -64, 64, 0),
        FakeControl(0x009A0901, "Auto Exposure", 0, 3, 3, type=v4l2_abi.CTRL_TYPE_MENU),
        FakeControl(0x009A0902, "Exposure Time, Absolute", 1, 5000, 157),
        FakeControl(0x00980927, "Bus Speed", 0, 9, 1, flags=v4l2_abi.CTRL_FLAG_READ_ONLY),
        FakeControl(0x009A0001, "Camera Controls", 0, 0, 0, type=6),
    ]


class Rig:
    """One stand-in camera and the sources that a test opens on it."""

    def __init__(self) -> None:
        self.camera = FakeCamera(controls=controls())
        self.kernel = FakeKernel({PATH: self.camera})
        self.sources: list[V4l2Source] = []

    def source(self, **settings: object) -> V4l2Source:
        config = CameraConfig("cam", f"v4l2:{PATH}", **settings)  # type: ignore[arg-type]
        self.sources.append(V4l2Source(config, self.kernel))
        return self.sources[-1]

    def started(self, **settings: object) -> V4l2Source:
        source = self.source(**settings)
        source.start()
        return source

    def expose(self, number: int, age_ns: int = 0, flags: int = 0) -> None:
        self.kernel.expose(PATH, jpeg(number), time.monotonic_ns() - age_ns, flags)

    def failure(self, **settings: object) -> str:
        with pytest.raises(SourceError) as caught:
            self.started(**settings)
        return str(caught.value)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for source in made.sources:
        source.close()
    assert made.kernel.opened(PATH) == 0, "every source closes its device, also one that failed to start"


@pytest.mark.skipif(sys.maxsize < 2**32, reason="the numbers below are those of 64-bit kernels")
def test_ioctl_numbers_are_the_kernels() -> None:
    """From a C program that printed them with the header of Linux 6.1 on x86-64; arm64 has the same."""
    numbers = {
        "QUERYCAP": 0x80685600,
        "ENUM_FMT": 0xC0405602,
        "G_FMT": 0xC0D05604,
        "S_FMT": 0xC0D05605,
        "REQBUFS": 0xC0145608,
        "QUERYBUF": 0xC0585609,
        "QBUF": 0xC058560F,
        "DQBUF": 0xC0585611,
        "STREAMON": 0x40045612,
        "STREAMOFF": 0x40045613,
        "S_PARM": 0xC0CC5616,
        "S_CTRL": 0xC008561C,
        "QUERYCTRL": 0xC0445624,
        "ENUM_FRAMESIZES": 0xC02C564A,
    }
    assert {name: getattr(v4l2_abi, f"VIDIOC_{name}") for name in numbers} == numbers
    buffer = v4l2_abi.BufferInfo
    assert (buffer.timestamp.offset, buffer.m.offset, buffer.length.offset) == (24, 64, 72)
    assert v4l2_abi.Format.fmt.offset == 8


def test_streams_mjpg_at_the_size_and_rate_that_was_asked(rig: Rig) -> None:
    source = rig.started(width=640, height=480, fps=30.0)
    rig.expose(1, age_ns=40_000_000)
    before_ns = time.time_ns()
    frame = source.read()
    assert frame.jpeg == jpeg(1)
    assert 0 <= before_ns - frame.stamp_ns - 40_000_000 < 5_000_000_000, "stamped when the sensor began, not on arrival"
    assert (frame.skipped, frame.corrupt, source.notice) == (0, 0, "")


def test_the_newest_frame_wins_and_the_older_ones_are_counted(rig: Rig) -> None:
    source = rig.started()
    for number in range(3):
        rig.expose(number)
    frame = source.read()
    assert (frame.jpeg, frame.skipped) == (jpeg(2), 2)


def test_buffers_go_round_and_frames_that_found_none_are_counted(rig: Rig) -> None:
    source = rig.started()
    for number in range(v4l2.BUFFERS + 3):
        rig.expose(number)  # the last three find no buffer
    assert source.read().jpeg == jpeg(v4l2.BUFFERS - 1)
    rig.expose(99)
    frame = source.read()
    assert (frame.jpeg, frame.skipped) == (jpeg(99), 3)
    for number in range(5 * v4l2.BUFFERS):
        rig.expose(number)
        assert source.read().jpeg == jpeg(number)


def test_broken_frames_are_passed_over(rig: Rig) -> None:
    source = rig.started()
    rig.expose(1, flags=v4l2_abi.BUF_FLAG_ERROR)
    rig.kernel.expose(PATH, jpeg(2)[:50], time.monotonic_ns())
    rig.kernel.expose(PATH, jpeg(3) + bytes(64), time.monotonic_ns())
    frame = source.read()
    assert (frame.jpeg, frame.corrupt) == (jpeg(3), 2)


def test_controls_are_set_by_v4l2_ctls_names_in_order(rig: Rig) -> None:
    rig.started(controls=(("auto_exposure", 1), ("exposure_time_absolute", 150), ("brightness", -5)))
    assert {
        control.title: control.value for control in rig.camera.controls if control.id & 0xFFFF in (0x901, 0x902)
    } == {
        "Auto Exposure": 1,
        "Exposure Time, Absolute": 150,
    }


def test_an_unknown_control_lists_the_settable_ones(rig: Rig) -> None:
    message = rig.failure(controls=(("exposure", 1),))
    assert "no control 'exposure'; allowed: auto_exposure, brightness, exposure_time_absolute" in message


def test_a_control_out_of_range_says_the_range(rig: Rig) -> None:
    assert "control brightness is 65; /dev/video0 allows -64 to 64" in rig.failure(controls=(("brightness", 65),))


def test_a_refused_control_says_to_switch_the_automatic_off(rig: Rig) -> None:
    rig.camera.controls[2].refused = errno.EACCES
    assert "auto_exposure: 1 means manual" in rig.failure(controls=(("exposure_time_absolute", 100),))


def test_a_size_that_is_not_offered_lists_those_that_are(rig: Rig) -> None:
    assert "does not offer 800x600 in MJPG; allowed: 320x240, 640x480" in rig.failure(width=800, height=600)


def test_a_camera_without_mjpg_says_what_it_has(rig: Rig) -> None:
    rig.camera.formats = ("YUYV", "H264")
    assert "offers no MJPG, only YUYV, H264" in rig.failure()


def test_another_rate_than_asked_is_noticed_not_refused(rig: Rig) -> None:
    source = rig.started(fps=20.0)
    assert source.notice == "the camera gives 15 fps where 20 were asked; set fps to that"


def test_a_rate_that_cannot_be_set_is_noticed(rig: Rig) -> None:
    rig.camera.settable_rate = False
    assert "lets nobody set its rate" in rig.started(fps=15.0).notice


def test_the_metadata_device_of_a_webcam_is_recognised(rig: Rig) -> None:
    rig.camera.device_caps = 0x00A00000 | v4l2_abi.CAP_STREAMING
    assert "index0" in rig.failure()


def test_an_absent_device(rig: Rig) -> None:
    rig.kernel.unplug(PATH)
    message = rig.failure()
    assert message.startswith("/dev/video0: cannot be opened (No such file or directory)")
    assert "by-path" in message


def test_a_device_that_another_program_reads(rig: Rig) -> None:
    rig.started()
    assert "another program reads this camera" in rig.failure()


def test_a_full_usb_bus_names_its_cure(rig: Rig) -> None:
    rig.camera.stream_on_error = errno.ENOSPC
    assert "quirks=128" in rig.failure()


def test_unplugging_ends_a_read_that_waits(rig: Rig) -> None:
    source = rig.started()
    thread = Thread(target=rig.kernel.unplug, args=(PATH,))
    thread.start()
    with pytest.raises(SourceError, match="it was unplugged"):
        source.read()
    thread.join(JOIN_S)


def test_interrupt_ends_a_read_that_waits_and_one_to_come(rig: Rig) -> None:
    source = rig.started()
    thread = Thread(target=source.interrupt)
    thread.start()
    for _ in range(2):
        with pytest.raises(SourceError, match="interrupted"):
            source.read()
    thread.join(JOIN_S)


def test_silence_ends_a_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "STALL_TIMEOUT_S", 0.01)
    source = rig.started()
    rig.expose(1, flags=v4l2_abi.BUF_FLAG_ERROR)
    with pytest.raises(SourceError, match=r"no whole picture for 0.01 s \(1 broken ones\)"):
        source.read()


def test_replugged_camera_streams_again(rig: Rig) -> None:
    source = rig.started()
    rig.kernel.unplug(PATH)
    with pytest.raises(SourceError):
        source.read()
    source.close()
    rig.sources.remove(source)
    rig.kernel.plug(PATH, rig.camera)
    again = rig.started()
    rig.expose(7)
    assert again.read().jpeg == jpeg(7)


def test_kernel_stamps_become_system_time_at_the_offset_of_the_moment() -> None:
    assert to_system_ns(taken_ns=900, monotonic_ns=1_000, system_ns=5_000_000) == 4_999_900


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Exposure Time, Absolute", "exposure_time_absolute"),
        ("White Balance, Automatic", "white_balance_automatic"),
        ("Gain", "gain"),
    ],
)
def test_control_names_are_v4l2_ctls(title: str, name: str) -> None:
    assert control_name(title) == name


@pytest.mark.skipif(not list(Path("/dev").glob("video*")), reason="no video device on this machine")
def test_a_real_camera_gives_frames() -> None:
    problems = []
    for device in sorted(Path("/dev").glob("video*")):
        source = V4l2Source(CameraConfig("real", f"v4l2:{device}"))
        try:
            source.start()
            frame = source.read()
        except SourceError as error:
            problems.append(str(error))
        else:
            assert frame.jpeg.startswith(b"\xff\xd8")
            return
        finally:
            source.close()
    pytest.skip("; ".join(problems))
