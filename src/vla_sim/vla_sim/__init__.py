"""MuJoCo tabletop: an SO-101 behind a simulated serial servo bus, eight MJPEG cameras, a scripted expert.

MuJoCo chooses its OpenGL library once, when it is imported; so the choice is made here, before any module of this
package imports it. Set `MUJOCO_GL` to choose otherwise.
"""

import ctypes
import os

_GL_LIBRARIES = (("osmesa", "libOSMesa.so.8"), ("osmesa", "libOSMesa.so"), ("egl", "libEGL.so.1"))


def _choose_gl() -> str:
    """Software rendering first: it needs neither a display nor a graphics card, and is the same on every machine."""
    for backend, library in _GL_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return backend
    return "disable"


if "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = _choose_gl()
# Mesa's rasteriser would start a thread for each core; drawing in the calling thread costs less in total, and leaves
# the other cores to the policy. Measured: 296 pictures a second of one core, against 260 with one extra thread.
os.environ.setdefault("LP_NUM_THREADS", "0")
