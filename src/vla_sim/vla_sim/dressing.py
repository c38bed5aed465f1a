"""Puts a `Layout` into a compiled model: sizes, colours, light, camera poses, and which objects are there at all.

Everything that it changes is a plain number in `mjModel`; nothing is compiled again. Cubes keep their mass, and the
inertia of a 25 mm cube: what differs by a few per cent would have to be compiled anew to be exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import mujoco
import numpy as np

from vla_core.errors import ConfigError
from vla_sim.layout import CameraShift, Layout
from vla_sim.scene import AMBIENT, CAMERAS, HEADLIGHT, LAMP, OBJECTS, ON_TABLE, PARKED_M

_HALF_DIAGONAL: Final = math.sqrt(3)


def assign(names: Iterable[str]) -> dict[str, str]:
    """Which object of the scene plays each cube of a layout, by the cube's name; objects play themselves.

    Raises:
        ConfigError: there are more cubes than objects.
    """
    wanted = list(names)
    free = [name for name in OBJECTS if name not in wanted]
    others = [name for name in wanted if name not in OBJECTS]
    if len(others) > len(free):
        raise ConfigError(f"{len(wanted)} cubes ({', '.join(wanted)}): the scene has {len(OBJECTS)} objects")
    players = dict(zip(others, free, strict=False))
    return {name: players.get(name, name) for name in wanted}


class Dressing:
    """Knows a model's nominal look, and gives it another; one for each model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._geom = {name: int(model.geom(name).id) for name in OBJECTS}
        self._body = {name: int(model.body(name).id) for name in OBJECTS}
        self._qpos = {name: int(model.joint(name).qposadr[0]) for name in OBJECTS}
        self._camera = {name: int(model.camera(name).id) for name in CAMERAS}
        self._lamp = int(model.light("lamp").id)
        self._table = int(model.geom("table").id)
        self._camera_pos = model.cam_pos.copy()
        self._camera_quat = model.cam_quat.copy()

    def apply(self, layout: Layout, data: mujoco.MjData) -> None:
        """Change the model's look, and put the objects of `data` where the layout has them."""
        names = {player: name for name, player in assign(layout.cubes).items()}
        for player in OBJECTS:
            self._place(player, names.get(player, player), layout, data)
        self._light(layout)
        self._model.geom_rgba[self._table, :3] = layout.table
        for name in CAMERAS:
            self._aim(name, layout.cameras.get(name, CameraShift()))

    def _place(self, player: str, name: str, layout: Layout, data: mujoco.MjData) -> None:
        model, geom, start = self._model, self._geom[player], self._qpos[player]
        cube = layout.cubes.get(name)
        there = cube is not None
        body = self._body[player]
        touches, touched_by = ON_TABLE if there else (0, 0)
        # The body's bits are the union of its geoms', which the compiler makes and the broad phase reads.
        model.geom_contype[geom] = model.body_contype[body] = touches
        model.geom_conaffinity[geom] = model.body_conaffinity[body] = touched_by
        model.body_gravcomp[body] = 0.0 if there else 1.0
        if cube is None:
            data.qpos[start : start + 7] = (*PARKED_M, 1, 0, 0, 0)
            return
        half = cube.size / 2
        model.geom_size[geom] = half
        model.geom_rbound[geom] = half * _HALF_DIAGONAL
        model.geom_aabb[geom] = model.bvh_aabb[model.body_bvhadr[body]] = (0, 0, 0, half, half, half)
        model.geom_rgba[geom, :3] = layout.colours[name]
        turn = cube.yaw / 2
        data.qpos[start : start + 7] = (cube.x, cube.y, cube.z, math.cos(turn), 0, 0, math.sin(turn))

    def _light(self, layout: Layout) -> None:
        model, light = self._model, layout.light
        tint = light.level * np.array(light.tint)
        model.vis.headlight.ambient[:] = AMBIENT * tint
        model.vis.headlight.diffuse[:] = HEADLIGHT * tint
        model.light_diffuse[self._lamp] = LAMP * tint
        direction = np.array(light.lamp_direction)
        model.light_dir[self._lamp] = direction / np.linalg.norm(direction)

    def _aim(self, name: str, shift: CameraShift) -> None:
        camera = self._camera[name]
        self._model.cam_pos[camera] = self._camera_pos[camera] + shift.offset_m
        turn, turned = np.zeros(4), np.zeros(4)
        vector = np.array(shift.turn_rad)
        angle = float(np.linalg.norm(vector))
        mujoco.mju_axisAngle2Quat(turn, vector / angle if angle else np.array([0.0, 0, 1]), angle)
        mujoco.mju_mulQuat(turned, self._camera_quat[camera], turn)
        self._model.cam_quat[camera] = turned
