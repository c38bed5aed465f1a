"""Webcams through Linux' own interface: MJPG frames as the camera made them, undecoded.

The camera's driver fills a few buffers that both sides see; a frame is copied out once. Not yet tried on hardware: the
contract test runs it against a stand-in that answers like the kernel (`v4l2_fake`), and any real device it finds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from ctypes import Structure
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from vla_perception.config import CameraConfig
from vla_perception.errors import SourceError
from vla_perception.frame import Frame, plausible_stamp, whole_jpeg
from vla_perception.source import STALL_TIMEOUT_S
from vla_perception.sources import v4l2_abi as abi

BUFFERS = 4
"""One being filled, one ready, one being read, and one for a late reader."""

LEAST_BUFFERS = 2

FPS_TOLERANCE = 0.02
"""Drivers round 15 fps to 66 ms or 66.7 ms; more than 2 % off is another rate."""

MAX_FPS_DENOMINATOR = 1001
"""NTSC's 30000/1001 must stay exact."""

SEQUENCE_MODULUS = 2**32

CURES = {
    errno.ENOENT: "is it plugged in? `ls /dev/v4l/by-path` shows what there is",
    errno.EACCES: "add this user to the group `video`, or give the container the device",
    errno.EBUSY: "another program reads this camera; `fuser <device>` names it",
    errno.ENOSPC: "the USB bus has no bandwidth left; use fewer or smaller frames, another controller, or the option "
    "quirks=128 of the module uvcvideo",
    errno.ENODEV: "it was unplugged",
    errno.ENXIO: "it was unplugged",
    errno.EIO: "the camera or its cable fails; try another port",
    errno.ENOTTY: "this is no camera",
}


@dataclass(frozen=True, slots=True)
class ControlInfo:
    """One control of the device: its id and the least and greatest value."""

    id: int
    minimum: int
    maximum: int


class V4l2Source:
    """One video device, memory-mapped streaming."""

    def __init__(self, config: CameraConfig, kernel: abi.Kernel | None = None) -> None:
        self.notice = ""
        self._config = config
        self._path = str(config.path)
        self._kernel: abi.Kernel = abi.LinuxKernel() if kernel is None else kernel
        self._fd: int | None = None
        self._maps: list[abi.Mapped] = []
        self._sequence: int | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self) -> None:
        """Open, configure, map, stream."""
        try:
            self._fd = self._kernel.open(self._path)
        except OSError as error:
            self._fail("cannot be opened", error)
        self._check_capabilities()
        self._set_format()
        self._set_rate()
        self._set_controls()
        self._map_buffers()
        self._ioctl("starting the stream", abi.VIDIOC_STREAMON, abi.BufType(abi.BUF_TYPE_VIDEO_CAPTURE))

    def read(self) -> Frame:
        """The newest frame; older ones that the driver had ready go back unread."""
        deadline_ns = time.monotonic_ns() + int(STALL_TIMEOUT_S * 1e9)
        skipped = corrupt = 0
        while True:
            self._wait_readable(deadline_ns, corrupt)
            newest: tuple[bytes, int] | None = None
            while (buffer := self._dequeue()) is not None:
                skipped += self._gap(buffer.sequence)
                frame = None if buffer.flags & abi.BUF_FLAG_ERROR else self._copy(buffer)
                self._ioctl("returning a buffer", abi.VIDIOC_QBUF, buffer)
                if frame is None:
                    corrupt += 1
                    continue
                skipped += 0 if newest is None else 1
                newest = frame
            if newest is not None:
                return Frame(*newest, skipped, corrupt)

    def interrupt(self) -> None:
        """Wake a thread that waits for a frame."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Stop the stream and let go of the device. A device that is gone already may refuse, which does not matter."""
        if self._fd is not None:
            with contextlib.suppress(OSError):  # unplugged: there is nothing left to stop
                self._kernel.ioctl(self._fd, abi.VIDIOC_STREAMOFF, abi.BufType(abi.BUF_TYPE_VIDEO_CAPTURE))
            for mapped in self._maps:
                mapped.close()
            self._kernel.close(self._fd)
            self._fd = None
        os.close(self._wake)

    # Set-up

    def _check_capabilities(self) -> None:
        caps = abi.Capability()
        self._ioctl("asking what it can do", abi.VIDIOC_QUERYCAP, caps)
        flags = caps.device_caps if caps.capabilities & abi.CAP_DEVICE_CAPS else caps.capabilities
        if not flags & abi.CAP_VIDEO_CAPTURE:
            raise SourceError(
                f"{self._path} gives no pictures (webcams have a second device for metadata); use the one whose "
                "name under /dev/v4l ends in index0"
            )
        if not flags & abi.CAP_STREAMING:
            raise SourceError(f"{self._path} cannot stream (driver {caps.driver.decode()}); use another camera")

    def _set_format(self) -> None:
        wanted = abi.Format(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        self._ioctl("asking for its format", abi.VIDIOC_G_FMT, wanted)
        pix = wanted.fmt.pix
        if self._config.width is not None and self._config.height is not None:
            pix.width, pix.height = self._config.width, self._config.height
        asked = (pix.width, pix.height)
        pix.pixelformat, pix.field = abi.PIX_FMT_MJPEG, abi.FIELD_ANY
        pix.bytesperline = pix.sizeimage = 0  # the driver's business
        self._ioctl("setting its format", abi.VIDIOC_S_FMT, wanted)
        if pix.pixelformat not in (abi.PIX_FMT_MJPEG, abi.PIX_FMT_JPEG):
            raise SourceError(
                f"{self._path} offers no MJPG, only {', '.join(self._formats())}; use a webcam with MJPG, or let "
                "µStreamer serve this one"
            )
        if (pix.width, pix.height) != asked:
            sizes = ", ".join(self._sizes(pix.pixelformat)) or f"{pix.width}x{pix.height}"
            raise SourceError(f"{self._path} does not offer {asked[0]}x{asked[1]} in MJPG; allowed: {sizes}")

    def _set_rate(self) -> None:
        if self._config.fps is None:
            return
        period = 1 / Fraction(self._config.fps).limit_denominator(MAX_FPS_DENOMINATOR)
        parm = abi.StreamParm(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        parm.parm.capture.timeperframe = abi.Fract(period.numerator, period.denominator)
        try:
            self._ioctl("setting its rate", abi.VIDIOC_S_PARM, parm)
        except SourceError:
            parm.parm.capture.capability = 0  # some drivers have no such call
        capture = parm.parm.capture
        if not capture.capability & abi.CAP_TIMEPERFRAME or not capture.timeperframe.numerator:
            self.notice = f"the camera lets nobody set its rate; {self._config.fps:g} fps were asked"
            return
        fps = capture.timeperframe.denominator / capture.timeperframe.numerator
        if abs(fps - self._config.fps) > FPS_TOLERANCE * self._config.fps:
            self.notice = f"the camera gives {fps:.4g} fps where {self._config.fps:g} were asked; set fps to that"

    def _set_controls(self) -> None:
        if not self._config.controls:
            return
        offered = self._controls()
        for name, value in self._config.controls:
            info = offered.get(name)
            if info is None:
                allowed = ", ".join(sorted(offered)) or "none"
                raise SourceError(f"{self._path} has no control {name!r}; allowed: {allowed}")
            if not info.minimum <= value <= info.maximum:
                raise SourceError(f"control {name} is {value}; {self._path} allows {info.minimum} to {info.maximum}")
            try:
                self._kernel.ioctl(self._descriptor, abi.VIDIOC_S_CTRL, abi.Control(info.id, value))
            except OSError as error:
                raise SourceError(
                    f"{self._path} refuses control {name} = {value} ({error.strerror}); where an automatic governs it, "
                    "switch that off first, further up in `controls` (auto_exposure: 1 means manual)"
                ) from error

    def _map_buffers(self) -> None:
        request = abi.RequestBuffers(BUFFERS, abi.BUF_TYPE_VIDEO_CAPTURE, abi.MEMORY_MMAP)
        self._ioctl("asking for buffers", abi.VIDIOC_REQBUFS, request)
        if request.count < LEAST_BUFFERS:
            raise SourceError(f"{self._path} grants {request.count} buffers, {LEAST_BUFFERS} are needed; free memory")
        for index in range(request.count):
            buffer = abi.BufferInfo(index=index, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
            self._ioctl("asking where a buffer lies", abi.VIDIOC_QUERYBUF, buffer)
            try:
                self._maps.append(self._kernel.mmap(self._descriptor, buffer.length, buffer.m.offset))
            except OSError as error:
                self._fail("mapping a buffer failed", error)
            self._ioctl("handing over a buffer", abi.VIDIOC_QBUF, buffer)

    # What the device offers, for messages

    def _formats(self) -> list[str]:
        names: list[str] = []
        description = abi.FmtDesc(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        while self._enumerates(abi.VIDIOC_ENUM_FMT, description):
            names.append(abi.fourcc_name(description.pixelformat))
            description.index += 1
        return names

    def _sizes(self, pixelformat: int) -> list[str]:
        sizes: list[str] = []
        entry = abi.FrmSizeEnum(pixel_format=pixelformat)
        while self._enumerates(abi.VIDIOC_ENUM_FRAMESIZES, entry):
            if entry.type != abi.FRMSIZE_TYPE_DISCRETE:
                step = entry.size.stepwise
                return [f"{step.min_width}x{step.min_height} to {step.max_width}x{step.max_height}"]
            sizes.append(f"{entry.size.discrete.width}x{entry.size.discrete.height}")
            entry.index += 1
        return sizes

    def _controls(self) -> dict[str, ControlInfo]:
        controls: dict[str, ControlInfo] = {}
        query = abi.QueryCtrl(id=abi.CTRL_FLAG_NEXT_CTRL)
        while self._enumerates(abi.VIDIOC_QUERYCTRL, query):
            usable = not query.flags & (abi.CTRL_FLAG_DISABLED | abi.CTRL_FLAG_READ_ONLY)
            if usable and query.type in abi.SETTABLE_CTRL_TYPES:
                name = control_name(query.name.decode("latin-1"))
                controls[name] = ControlInfo(query.id, query.minimum, query.maximum)
            query.id |= abi.CTRL_FLAG_NEXT_CTRL
        return controls

    def _enumerates(self, request: int, argument: Structure) -> bool:
        """One step of an enumeration; its end is EINVAL, and ENOTTY where the driver has no such list."""
        try:
            self._kernel.ioctl(self._descriptor, request, argument)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return False
            self._fail("cannot be questioned", error)
        return True

    # Streaming

    def _wait_readable(self, deadline_ns: int, corrupt: int) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = poll.poll(max(0, (deadline_ns - time.monotonic_ns()) // 1_000_000))
        if any(fd == self._wake for fd, _ in ready):
            raise SourceError("interrupted")
        if not ready:
            raise SourceError(
                f"{self._path} has given no whole picture for {STALL_TIMEOUT_S:g} s ({corrupt} broken ones); replug "
                "it, and look for USB errors in `dmesg`"
            )
        if not any(events & select.POLLIN for _, events in ready):
            raise SourceError(f"{self._path} stopped streaming; was it unplugged?")

    def _dequeue(self) -> abi.BufferInfo | None:
        buffer = abi.BufferInfo(type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
        try:
            self._kernel.ioctl(self._descriptor, abi.VIDIOC_DQBUF, buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            self._fail("stopped", error)
        return buffer

    def _gap(self, sequence: int) -> int:
        """Frames that the driver counted and nobody saw, since no buffer was free."""
        last, self._sequence = self._sequence, sequence
        return 0 if last is None else max(0, (sequence - last) % SEQUENCE_MODULUS - 1)

    def _copy(self, buffer: abi.BufferInfo) -> tuple[bytes, int] | None:
        jpeg = whole_jpeg(self._maps[buffer.index][: buffer.bytesused])
        if jpeg is None:
            return None
        arrival_ns = time.time_ns()
        if buffer.flags & abi.BUF_FLAG_TIMESTAMP_MASK != abi.BUF_FLAG_TIMESTAMP_MONOTONIC:
            return jpeg, arrival_ns
        taken_ns = buffer.timestamp.sec * 1_000_000_000 + buffer.timestamp.usec * 1_000
        return jpeg, plausible_stamp(to_system_ns(taken_ns, time.monotonic_ns(), arrival_ns), arrival_ns)

    # Errors

    @property
    def _descriptor(self) -> int:
        if self._fd is None:
            raise SourceError(f"{self._path} is not open")
        return self._fd

    def _ioctl(self, what: str, request: int, argument: Structure) -> None:
        try:
            self._kernel.ioctl(self._descriptor, request, argument)
        except OSError as error:
            self._fail(f"{what} failed", error)

    def _fail(self, what: str, error: OSError) -> NoReturn:
        cure = CURES.get(error.errno or 0, "replug it, and look into `dmesg`")
        raise SourceError(f"{self._path}: {what} ({error.strerror}); {cure}") from error


def control_name(title: str) -> str:
    """A control's title as v4l2-ctl writes it: "Exposure Time, Absolute" is `exposure_time_absolute`."""
    words = "".join(character.lower() if character.isalnum() else " " for character in title).split()
    return "_".join(words)


def to_system_ns(taken_ns: int, monotonic_ns: int, system_ns: int) -> int:
    """A kernel stamp of CLOCK_MONOTONIC as system time, given one moment by both clocks.

    The offset is taken anew for each frame, so that a step of the system clock moves later stamps with it.
    """
    return system_ns - (monotonic_ns - taken_ns)
