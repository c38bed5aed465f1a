"""A video device in memory that answers like the kernel's driver for a USB webcam.

It keeps the kernel's rules, so that a reader that breaks them fails here as it would there: no frame is filled without
a queued buffer (the sequence number still counts it), a buffer's memory changes as soon as it is given back, DQBUF says
EAGAIN when nothing is ready and ENODEV once the camera is unplugged, formats and rates are adjusted instead of refused.
Rules: https://docs.kernel.org/userspace-api/media/v4l/ and videobuf2.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from ctypes import Structure
from dataclasses import dataclass, field
from threading import Lock

from vla_perception.sources import v4l2_abi as abi

PAGE_BYTES = 4096


@dataclass(slots=True)
class FakeControl:
    """One control. `refused` is the errno that setting it gives, 0 for none."""

    id: int
    title: str
    minimum: int
    maximum: int
    value: int
    type: int = abi.CTRL_TYPE_INTEGER
    flags: int = 0
    refused: int = 0


@dataclass(slots=True)
class FakeCamera:
    """What the device is and offers. Sizes in px, rates in frames a second."""

    formats: tuple[str, ...] = ("YUYV", "MJPG")
    sizes: tuple[tuple[int, int], ...] = ((320, 240), (640, 480))
    rates: tuple[int, ...] = (15, 30)
    controls: list[FakeControl] = field(default_factory=list)
    device_caps: int = abi.CAP_VIDEO_CAPTURE | abi.CAP_STREAMING
    settable_rate: bool = True
    buffer_bytes: int = 65536
    stream_on_error: int = 0


class _Memory:
    """A mapped buffer."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.closed = False

    def __getitem__(self, part: slice, /) -> bytes:
        if self.closed:
            raise ValueError("mmap closed or invalid")
        return bytes(self.data[part])

    def close(self) -> None:
        """Unmap."""
        self.closed = True


class FakeKernel:
    """Implements `v4l2_abi.Kernel` for a set of devices by path; `expose` is the light that falls on a sensor."""

    def __init__(self, devices: dict[str, FakeCamera]) -> None:
        self._cameras = devices
        self._open: dict[int, _Device] = {}
        self._lock = Lock()

    def open(self, path: str) -> int:
        """ENOENT for a device that is not plugged in, EBUSY is left to REQBUFS as in the kernel."""
        if path not in self._cameras:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        busy = any(device.path == path for device in self._open.values())
        device = _Device(path, self._cameras[path], busy)
        self._open[device.fd] = device
        return device.fd

    def ioctl(self, fd: int, request: int, argument: Structure) -> None:
        """One call of the driver."""
        with self._lock:
            self._device(fd).ioctl(request, argument)

    def mmap(self, fd: int, length: int, offset: int) -> abi.Mapped:
        """The buffer whose offset QUERYBUF gave."""
        with self._lock:
            return self._device(fd).mmap(length, offset)

    def close(self, fd: int) -> None:
        """Release the device."""
        with self._lock:
            self._device(fd)
            del self._open[fd]
            os.close(fd)

    # The world's side

    def expose(self, path: str, jpeg: bytes, monotonic_ns: int, flags: int = 0) -> None:
        """A frame arrives from the sensor, begun at `monotonic_ns`."""
        with self._lock:
            for device in self._on(path):
                device.expose(jpeg, monotonic_ns, flags)

    def unplug(self, path: str) -> None:
        """Pull the plug."""
        with self._lock:
            del self._cameras[path]
            for device in self._on(path):
                device.unplug()

    def plug(self, path: str, camera: FakeCamera) -> None:
        """Plug a camera in."""
        with self._lock:
            self._cameras[path] = camera

    def opened(self, path: str) -> int:
        """How many descriptors of this device are open."""
        with self._lock:
            return len(self._on(path))

    def streaming(self, path: str) -> bool:
        """Whether some reader has switched the stream on."""
        with self._lock:
            return any(device.streaming for device in self._on(path))

    def _on(self, path: str) -> list[_Device]:
        return [device for device in self._open.values() if device.path == path]

    def _device(self, fd: int) -> _Device:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd]


class _Device:
    """One open descriptor: an eventfd that is readable while frames are ready."""

    def __init__(self, path: str, camera: FakeCamera, busy: bool) -> None:
        self.path = path
        self.fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.streaming = False
        self._camera = camera
        self._busy = busy
        self._plugged = True
        self._pixelformat = abi.fourcc(camera.formats[0])
        self._size = camera.sizes[0]
        self._memory: list[_Memory] = []
        self._queued: deque[int] = deque()
        self._done: deque[abi.BufferInfo] = deque()
        self._sequence = 0
        self._calls: dict[int, Callable[..., None]] = {
            abi.VIDIOC_QUERYCAP: self._querycap,
            abi.VIDIOC_ENUM_FMT: self._enum_fmt,
            abi.VIDIOC_ENUM_FRAMESIZES: self._enum_framesizes,
            abi.VIDIOC_G_FMT: self._g_fmt,
            abi.VIDIOC_S_FMT: self._s_fmt,
            abi.VIDIOC_S_PARM: self._s_parm,
            abi.VIDIOC_QUERYCTRL: self._queryctrl,
            abi.VIDIOC_S_CTRL: self._s_ctrl,
            abi.VIDIOC_REQBUFS: self._reqbufs,
            abi.VIDIOC_QUERYBUF: self._querybuf,
            abi.VIDIOC_QBUF: self._qbuf,
            abi.VIDIOC_DQBUF: self._dqbuf,
            abi.VIDIOC_STREAMON: self._streamon,
            abi.VIDIOC_STREAMOFF: self._streamoff,
        }

    def ioctl(self, request: int, argument: Structure) -> None:
        if not self._plugged:
            raise _error(errno.ENODEV)
        if request not in self._calls:
            raise _error(errno.ENOTTY)
        self._calls[request](argument)

    def mmap(self, length: int, offset: int) -> _Memory:
        index = offset // PAGE_BYTES
        if offset % PAGE_BYTES or index >= len(self._memory) or length != len(self._memory[index].data):
            raise _error(errno.EINVAL)
        return self._memory[index]

    def expose(self, jpeg: bytes, monotonic_ns: int, flags: int) -> None:
        if not self.streaming or not self._plugged:
            return
        sequence, self._sequence = self._sequence, self._sequence + 1
        if not self._queued:
            return  # the driver has nowhere to put it: only the sequence number tells
        index = self._queued.popleft()
        self._memory[index].data[: len(jpeg)] = jpeg
        buffer = abi.BufferInfo(
            index=index,
            type=abi.BUF_TYPE_VIDEO_CAPTURE,
            bytesused=len(jpeg),
            flags=flags | abi.BUF_FLAG_TIMESTAMP_MONOTONIC,
            sequence=sequence,
            memory=abi.MEMORY_MMAP,
            length=len(self._memory[index].data),
        )
        seconds, rest_ns = divmod(monotonic_ns, 1_000_000_000)
        buffer.timestamp = abi.TimeVal(seconds, rest_ns // 1000)
        self._done.append(buffer)
        os.eventfd_write(self.fd, 1)

    def unplug(self) -> None:
        self._plugged = False
        os.eventfd_write(self.fd, 1)  # poll reports an unplugged device

    def _querycap(self, caps: abi.Capability) -> None:
        caps.driver, caps.card, caps.bus_info = b"uvcvideo", b"Stand-in webcam", b"usb-0000:00:14.0-1"
        caps.capabilities = self._camera.device_caps | abi.CAP_VIDEO_CAPTURE | abi.CAP_DEVICE_CAPS
        caps.device_caps = self._camera.device_caps

    def _enum_fmt(self, description: abi.FmtDesc) -> None:
        if description.index >= len(self._camera.formats):
            raise _error(errno.EINVAL)
        description.pixelformat = abi.fourcc(self._camera.formats[description.index])

    def _enum_framesizes(self, entry: abi.FrmSizeEnum) -> None:
        if entry.index >= len(self._camera.sizes):
            raise _error(errno.EINVAL)
        entry.type = abi.FRMSIZE_TYPE_DISCRETE
        entry.size.discrete = abi.FrmSizeDiscrete(*self._camera.sizes[entry.index])

    def _g_fmt(self, fmt: abi.Format) -> None:
        fmt.fmt.pix.width, fmt.fmt.pix.height = self._size
        fmt.fmt.pix.pixelformat = self._pixelformat
        fmt.fmt.pix.sizeimage = self._camera.buffer_bytes

    def _s_fmt(self, fmt: abi.Format) -> None:
        if self._memory:
            raise _error(errno.EBUSY)
        pix = fmt.fmt.pix
        if abi.fourcc_name(pix.pixelformat) in self._camera.formats:
            self._pixelformat = pix.pixelformat
        self._size = min(self._camera.sizes, key=lambda size: abs(size[0] - pix.width) + abs(size[1] - pix.height))
        self._g_fmt(fmt)

    def _s_parm(self, parm: abi.StreamParm) -> None:
        if not self._camera.settable_rate:
            raise _error(errno.ENOTTY)
        capture = parm.parm.capture
        asked = capture.timeperframe.denominator / max(1, capture.timeperframe.numerator)
        capture.capability = abi.CAP_TIMEPERFRAME
        capture.timeperframe = abi.Fract(1, min(self._camera.rates, key=lambda rate: abs(rate - asked)))

    def _queryctrl(self, query: abi.QueryCtrl) -> None:
        following, number = bool(query.id & abi.CTRL_FLAG_NEXT_CTRL), query.id & ~abi.CTRL_FLAG_NEXT_CTRL
        for control in sorted(self._camera.controls, key=lambda control: control.id):
            if control.id > number if following else control.id == number:
                query.id, query.type, query.name = control.id, control.type, control.title.encode()
                query.minimum, query.maximum, query.flags = control.minimum, control.maximum, control.flags
                return
        raise _error(errno.EINVAL)

    def _s_ctrl(self, request: abi.Control) -> None:
        for control in self._camera.controls:
            if control.id == request.id:
                if control.refused:
                    raise _error(control.refused)
                if not control.minimum <= request.value <= control.maximum:
                    raise _error(errno.ERANGE)
                control.value = request.value
                return
        raise _error(errno.EINVAL)

    def _reqbufs(self, request: abi.RequestBuffers) -> None:
        if self._busy or self.streaming:
            raise _error(errno.EBUSY)
        if request.memory != abi.MEMORY_MMAP or request.type != abi.BUF_TYPE_VIDEO_CAPTURE:
            raise _error(errno.EINVAL)
        self._memory = [_Memory(self._camera.buffer_bytes) for _ in range(request.count)]

    def _querybuf(self, buffer: abi.BufferInfo) -> None:
        if buffer.index >= len(self._memory):
            raise _error(errno.EINVAL)
        buffer.length = len(self._memory[buffer.index].data)
        buffer.m.offset = buffer.index * PAGE_BYTES

    def _qbuf(self, buffer: abi.BufferInfo) -> None:
        in_use = buffer.index in self._queued or any(done.index == buffer.index for done in self._done)
        if buffer.index >= len(self._memory) or in_use:
            raise _error(errno.EINVAL)
        memory = self._memory[buffer.index].data
        memory[:] = b"\xee" * len(memory)  # the driver may write at once: whoever still reads must notice
        self._queued.append(buffer.index)

    def _dqbuf(self, buffer: abi.BufferInfo) -> None:
        if not self.streaming:
            raise _error(errno.EINVAL)
        if not self._done:
            raise _error(errno.EAGAIN)
        done = self._done.popleft()
        os.eventfd_read(self.fd)
        for name, *_ in abi.BufferInfo._fields_:
            setattr(buffer, name, getattr(done, name))

    def _streamon(self, _: abi.BufType) -> None:
        if self._camera.stream_on_error:
            raise _error(self._camera.stream_on_error)
        if not self._memory:
            raise _error(errno.EINVAL)
        self.streaming = True

    def _streamoff(self, _: abi.BufType) -> None:
        self.streaming = False
        self._queued.clear()
        self._done.clear()


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
