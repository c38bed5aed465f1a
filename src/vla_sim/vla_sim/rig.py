"""Draws the scene as its cameras see it, from snapshots, so that physics and drawing can live in two threads."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_sim.scene import CAMERA_ASPECT, CAMERAS

_MIN_SIDE_PX: Final = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of the world's configuration at one moment, cheap (200 bytes) and safe to hand to another thread."""

    time_s: float
    episode: int
    qpos: NDArray[np.float64]


class CameraRig:
    """One OpenGL context with its own scratch data; the model is shared and only read.

    OpenGL contexts are bound to threads: build, use and `close` a rig in one and the same thread. MuJoCo releases
    the interpreter lock while it draws.
    """

    def __init__(self, model: mujoco.MjModel, width: int = 320, height: int = 240) -> None:
        """Open a context; `width` and `height` are the default size of pictures.

        Raises:
            ConfigError: there is no OpenGL library, or the size is impossible.
        """
        self._model = model
        self._width, self._height = self._checked(width, height)
        self._data = mujoco.MjData(model)
        self._posed: Snapshot | None = None
        self._cameras = {name: model.camera(name).id for name in CAMERAS}
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = (1, 1, 1, 0, 0, 0)
        self._perturb = mujoco.MjvPerturb()
        self._view = mujoco.MjvCamera()
        self._view.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._open_context()

    def render(
        self, snapshot: Snapshot, camera: str, width: int | None = None, height: int | None = None
    ) -> NDArray[np.uint8]:
        """Draw one picture, `(height, width, 3)` RGB.

        A camera's horizontal field of view stays that of its 4:3 picture when a wider one is asked, as if a 4:3
        picture had been cropped: 320x160 shows what remains of 320x240 after `vla_core.image` cropped it.

        Raises:
            ConfigError: no such camera, or an impossible size.
        """
        if camera not in self._cameras:
            raise ConfigError(f"no camera '{camera}': the simulation has {', '.join(self._cameras)}")
        size = (width or self._width, height or self._height)
        if size != (self._width, self._height):
            self._checked(*size)
        self._pose(snapshot)
        self._view.fixedcamid = self._cameras[camera]
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._option,
            self._perturb,
            self._view,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        self._crop(*size)
        viewport = mujoco.MjrRect(0, 0, *size)
        picture = np.empty((size[1], size[0], 3), np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, viewport, self._context)
        return np.ascontiguousarray(picture[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the context; in the thread that opened it."""
        self._context.free()
        self._gl.free()

    def _open_context(self) -> None:
        if not hasattr(mujoco, "GLContext"):
            raise ConfigError(
                f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: install Debian's libosmesa6 and set"
                " MUJOCO_GL=osmesa before Python starts"
            )
        glob = self._model.vis.global_
        self._gl = mujoco.GLContext(glob.offwidth, glob.offheight)
        self._gl.make_current()
        self._scene = mujoco.MjvScene(self._model, maxgeom=200)
        for flag in (
            mujoco.mjtRndFlag.mjRND_SHADOW,
            mujoco.mjtRndFlag.mjRND_REFLECTION,
            mujoco.mjtRndFlag.mjRND_SKYBOX,
            mujoco.mjtRndFlag.mjRND_FOG,
            mujoco.mjtRndFlag.mjRND_HAZE,
        ):
            self._scene.flags[flag] = 0
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def _pose(self, snapshot: Snapshot) -> None:
        """Bodies, cameras and lights where the snapshot has them; done once for all cameras."""
        if snapshot is self._posed:
            return
        self._data.qpos[:] = snapshot.qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._posed = snapshot

    def _crop(self, width: int, height: int) -> None:
        """Cut the top and bottom of the view for pictures wider than 4:3."""
        if width / height <= CAMERA_ASPECT:
            return
        for camera in self._scene.camera:
            half = (camera.frustum_top - camera.frustum_bottom) / 2
            middle = (camera.frustum_top + camera.frustum_bottom) / 2
            cut = half * CAMERA_ASPECT * height / width
            camera.frustum_top, camera.frustum_bottom = middle + cut, middle - cut

    def _checked(self, width: int, height: int) -> tuple[int, int]:
        largest = (self._model.vis.global_.offwidth, self._model.vis.global_.offheight)
        if not (_MIN_SIDE_PX <= width <= largest[0] and _MIN_SIDE_PX <= height <= largest[1]):
            raise ConfigError(
                f"picture size {width}x{height} must lie within {_MIN_SIDE_PX}x{_MIN_SIDE_PX} and"
                f" {largest[0]}x{largest[1]}"
            )
        return width, height


def focal_length_px(camera: str, width: int, height: int) -> float:
    """Focal length of a camera's pictures of this size, for `camera_info`."""
    pose = CAMERAS[camera]
    half_height = math.tan(math.radians(pose.vertical_fov_deg) / 2)
    if width / height > CAMERA_ASPECT:
        return width / 2 / (half_height * CAMERA_ASPECT)
    return height / 2 / half_height
