"""The part of Linux' `videodev2.h` that a camera needs: structures, ioctl numbers, flags.

Names and layouts follow include/uapi/linux/videodev2.h; ctypes lays the structures out as this machine's C compiler
does, and an ioctl's number contains its structure's size, so that a wrong layout is refused by the kernel, not misread.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from ctypes import Structure, Union, c_char, c_int32, c_long, c_uint8, c_uint32, c_ulong
from typing import Protocol

BUF_TYPE_VIDEO_CAPTURE = 1
MEMORY_MMAP = 1
FIELD_ANY = 0

CAP_VIDEO_CAPTURE = 0x00000001
CAP_STREAMING = 0x04000000
CAP_DEVICE_CAPS = 0x80000000

CAP_TIMEPERFRAME = 0x1000

BUF_FLAG_ERROR = 0x0040
BUF_FLAG_TIMESTAMP_MASK = 0xE000
BUF_FLAG_TIMESTAMP_MONOTONIC = 0x2000

CTRL_FLAG_DISABLED = 0x0001
CTRL_FLAG_READ_ONLY = 0x0004
CTRL_FLAG_NEXT_CTRL = 0x80000000
CTRL_TYPE_INTEGER, CTRL_TYPE_BOOLEAN, CTRL_TYPE_MENU, CTRL_TYPE_INTEGER_MENU = 1, 2, 3, 9
SETTABLE_CTRL_TYPES = frozenset({CTRL_TYPE_INTEGER, CTRL_TYPE_BOOLEAN, CTRL_TYPE_MENU, CTRL_TYPE_INTEGER_MENU})

FRMSIZE_TYPE_DISCRETE = 1


def fourcc(code: str) -> int:
    """Pixel format of a four-letter code."""
    return int.from_bytes(code.encode("ascii"), "little")


def fourcc_name(pixelformat: int) -> str:
    """Four-letter code of a pixel format."""
    return pixelformat.to_bytes(4, "little").decode("latin-1")


PIX_FMT_MJPEG = fourcc("MJPG")
PIX_FMT_JPEG = fourcc("JPEG")


class Capability(Structure):
    """Struct v4l2_capability."""

    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FmtDesc(Structure):
    """Struct v4l2_fmtdesc."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("pixelformat", c_uint32),
        ("mbus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class PixFormat(Structure):
    """Struct v4l2_pix_format."""

    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixelformat", c_uint32),
        ("field", c_uint32),
        ("bytesperline", c_uint32),
        ("sizeimage", c_uint32),
        ("colorspace", c_uint32),
        ("priv", c_uint32),
        ("flags", c_uint32),
        ("ycbcr_enc", c_uint32),
        ("quantization", c_uint32),
        ("xfer_func", c_uint32),
    )


class _FormatUnion(Union):
    # `win` of the real union holds pointers; `align` gives the union their alignment.
    _fields_ = (("pix", PixFormat), ("raw_data", c_uint8 * 200), ("align", c_ulong))


class Format(Structure):
    """Struct v4l2_format."""

    _fields_ = (("type", c_uint32), ("fmt", _FormatUnion))


class FrmSizeDiscrete(Structure):
    """Struct v4l2_frmsize_discrete."""

    _fields_ = (("width", c_uint32), ("height", c_uint32))


class FrmSizeStepwise(Structure):
    """Struct v4l2_frmsize_stepwise."""

    _fields_ = tuple(
        (name, c_uint32) for name in ("min_width", "max_width", "step_width", "min_height", "max_height", "step_height")
    )


class _FrmSizeUnion(Union):
    _fields_ = (("discrete", FrmSizeDiscrete), ("stepwise", FrmSizeStepwise))


class FrmSizeEnum(Structure):
    """Struct v4l2_frmsizeenum."""

    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("type", c_uint32),
        ("size", _FrmSizeUnion),
        ("reserved", c_uint32 * 2),
    )


class Fract(Structure):
    """Struct v4l2_fract."""

    _fields_ = (("numerator", c_uint32), ("denominator", c_uint32))


class CaptureParm(Structure):
    """Struct v4l2_captureparm."""

    _fields_ = (
        ("capability", c_uint32),
        ("capturemode", c_uint32),
        ("timeperframe", Fract),
        ("extendedmode", c_uint32),
        ("readbuffers", c_uint32),
        ("reserved", c_uint32 * 4),
    )


class _ParmUnion(Union):
    _fields_ = (("capture", CaptureParm), ("raw_data", c_uint8 * 200))


class StreamParm(Structure):
    """Struct v4l2_streamparm."""

    _fields_ = (("type", c_uint32), ("parm", _ParmUnion))


class QueryCtrl(Structure):
    """Struct v4l2_queryctrl."""

    _fields_ = (
        ("id", c_uint32),
        ("type", c_uint32),
        ("name", c_char * 32),
        ("minimum", c_int32),
        ("maximum", c_int32),
        ("step", c_int32),
        ("default_value", c_int32),
        ("flags", c_uint32),
        ("reserved", c_uint32 * 2),
    )


class Control(Structure):
    """Struct v4l2_control."""

    _fields_ = (("id", c_uint32), ("value", c_int32))


class RequestBuffers(Structure):
    """Struct v4l2_requestbuffers."""

    _fields_ = (
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    )


class TimeVal(Structure):
    """Struct timeval of an LP64 kernel."""

    _fields_ = (("sec", c_long), ("usec", c_long))


class TimeCode(Structure):
    """Struct v4l2_timecode."""

    _fields_ = (("type", c_uint32), ("flags", c_uint32), ("time", c_uint8 * 4), ("userbits", c_uint8 * 4))


class _MemoryUnion(Union):
    _fields_ = (("offset", c_uint32), ("userptr", c_ulong), ("fd", c_int32))


class BufferInfo(Structure):
    """Struct v4l2_buffer."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("timestamp", TimeVal),
        ("timecode", TimeCode),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("m", _MemoryUnion),
        ("length", c_uint32),
        ("reserved2", c_uint32),
        ("request_fd", c_int32),
    )


class BufType(Structure):
    """The int that STREAMON and STREAMOFF take, as a structure so that every argument is one."""

    _fields_ = (("type", c_int32),)


def _number(direction: int, number: int, argument: type[Structure]) -> int:
    """`_IOC` of asm-generic/ioctl.h, as x86 and ARM use it; 'V' is V4L2's type."""
    return direction << 30 | ctypes.sizeof(argument) << 16 | ord("V") << 8 | number


_WRITE, _READ, _BOTH = 1, 2, 3

VIDIOC_QUERYCAP = _number(_READ, 0, Capability)
VIDIOC_ENUM_FMT = _number(_BOTH, 2, FmtDesc)
VIDIOC_G_FMT = _number(_BOTH, 4, Format)
VIDIOC_S_FMT = _number(_BOTH, 5, Format)
VIDIOC_REQBUFS = _number(_BOTH, 8, RequestBuffers)
VIDIOC_QUERYBUF = _number(_BOTH, 9, BufferInfo)
VIDIOC_QBUF = _number(_BOTH, 15, BufferInfo)
VIDIOC_DQBUF = _number(_BOTH, 17, BufferInfo)
VIDIOC_STREAMON = _number(_WRITE, 18, BufType)
VIDIOC_STREAMOFF = _number(_WRITE, 19, BufType)
VIDIOC_S_PARM = _number(_BOTH, 22, StreamParm)
VIDIOC_S_CTRL = _number(_BOTH, 28, Control)
VIDIOC_QUERYCTRL = _number(_BOTH, 36, QueryCtrl)
VIDIOC_ENUM_FRAMESIZES = _number(_BOTH, 74, FrmSizeEnum)


class Mapped(Protocol):
    """What `mmap` returns, as far as a reader needs it."""

    def __getitem__(self, part: slice, /) -> bytes: ...

    def close(self) -> None:
        """Unmap."""


class Kernel(Protocol):
    """The four calls by which a program speaks to a video device. Failures are OSError with the kernel's errno.

    The descriptor of `open` must work with `select.poll`: readable when a frame can be dequeued.
    """

    def open(self, path: str) -> int:
        """Open a device for non-blocking use."""
        ...

    def ioctl(self, fd: int, request: int, argument: Structure) -> None:
        """Call the driver, which may write its answer into `argument`."""

    def mmap(self, fd: int, length: int, offset: int) -> Mapped:
        """Map the buffer of `length` bytes that QUERYBUF says lies at `offset`."""
        ...

    def close(self, fd: int) -> None:
        """Close the device, which ends streaming."""


class LinuxKernel:
    """The real one."""

    def open(self, path: str) -> int:
        """Non-blocking, so that DQBUF says EAGAIN when no frame is left."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, argument: Structure) -> None:
        """The kernel writes its answer into `argument`."""
        fcntl.ioctl(fd, request, argument, True)

    def mmap(self, fd: int, length: int, offset: int) -> Mapped:
        """One buffer of the driver."""
        return mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def close(self, fd: int) -> None:
        """Ends streaming too."""
        os.close(fd)
