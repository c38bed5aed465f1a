import json
import math
import os
import threading

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim.rig import CameraRig
from vla_sim.truth import CubePose, Truth
from vla_sim.world import HOME_RAD, JOINTS, MAX_TORQUE_NM, SPOT_XY, World

needs_gl = pytest.mark.skipif(os.environ.get("MUJOCO_GL") == "disable", reason="no OpenGL library installed")
REST_HEIGHT_M = 0.0125


@pytest.fixture(scope="module")
def shared():
    world = World(cameras=("front", "wrist"), width=64, height=48)
    yield world
    world.close()


@pytest.fixture
def world(shared):
    shared.guide(None)
    shared.set_torque(enabled=True)
    shared.reset(3)
    return shared


def put(world, name, x, y, z=REST_HEIGHT_M):
    start = world._cube_qpos[name]
    world._data.qpos[start : start + 7] = (x, y, z, 1, 0, 0, 0)
    world._data.qvel[world._cube_dof[name] :][:6] = 0


def test_reset_is_deterministic(world):
    world.step(HOME_RAD, 50)
    first = world.truth()
    world.reset(3)
    world.step(HOME_RAD, 50)
    second = world.truth()
    assert first.cubes == second.cubes
    assert first.joints == second.joints
    assert second.episode == first.episode + 1


def test_time_never_runs_backwards(world):
    world.step(HOME_RAD, 10)
    before = world.time_s
    world.reset(4)
    assert world.time_s == before
    assert world.episode_time_s == 0
    world.step(HOME_RAD, 10)
    assert world.time_s == pytest.approx(before + 0.02)


def test_arm_holds_home_with_little_sag(world):
    world.step(HOME_RAD, 500)
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.015)
    assert np.abs(world.joint_velocities()).max() < 0.01
    assert 0 < np.abs(world.joint_loads()).max() < 0.5 * MAX_TORQUE_NM


def test_arm_follows_a_target_no_faster_than_a_servo(world):
    target = np.add(HOME_RAD, [0.8, 0, 0, 0, 0, 0])
    fastest = 0.0
    for _ in range(100):
        world.step(target, 5)
        fastest = max(fastest, np.abs(world.joint_velocities()).max())
    assert world.joint_positions() == pytest.approx(target, abs=0.02)
    assert fastest < 5.6


def test_targets_are_clipped_to_the_joint_limits(world):
    world.step(np.array([9.0, 0, 0, 0, 0, 0]), 1000)
    assert world.joint_positions()[0] == pytest.approx(1.92, abs=0.05)


@pytest.mark.parametrize("targets", [[0.0] * 5, [math.nan] + [0.0] * 5])
def test_targets_must_be_six_finite_angles(world, targets):
    with pytest.raises(ConfigError, match="6 finite"):
        world.step(targets)


def test_kept_arm_stays_where_it_was(world):
    moved = np.add(HOME_RAD, [0.3, 0, 0, 0, 0, 0])
    world.step(moved, 500)
    before = world.joint_positions()
    world.reset(5, keep_arm=True)
    assert world.joint_positions() == pytest.approx(before)
    world.reset(5)
    assert world.joint_positions() == pytest.approx(HOME_RAD)


def test_limp_arm_sinks_and_a_hand_can_lead_it(world):
    world.set_torque(enabled=False)
    world.step(HOME_RAD, 1000)
    assert np.abs(world.joint_positions() - HOME_RAD).max() > 0.1
    pose = np.array([0.4, -0.6, 0.5, 1.0, 1.0, 0.8])
    world.guide(pose)
    world.step(HOME_RAD, 1500)
    assert world.joint_positions() == pytest.approx(pose, abs=0.12)


def test_hand_does_not_overcome_a_servo_that_holds(world):
    world.guide(np.array(HOME_RAD) + 0.5)
    world.step(HOME_RAD, 500)
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.08)


def test_single_servo_can_be_limp(world):
    world.set_torque([True, True, True, False, True, True])
    world.step(HOME_RAD, 800)
    off = np.abs(world.joint_positions() - HOME_RAD)
    assert JOINTS[int(off.argmax())] == "wrist_flex"


def test_untouched_scene_is_no_success(world):
    world.step(HOME_RAD, 100)
    outcome = world.outcome()
    assert not outcome.success
    assert outcome.released
    assert not any((outcome.placed, outcome.lifted, outcome.wrong_lifted))
    assert outcome.others_moved_m < 0.001


def test_pushing_the_cube_to_the_spot_is_no_success(world):
    put(world, "black", *SPOT_XY)
    world.step(HOME_RAD, 100)
    outcome = world.outcome("black")
    assert outcome.placed
    assert not outcome.lifted
    assert not outcome.success


def test_lifted_placed_and_released_is_success(world):
    put(world, "black", 0.2, 0.0, 0.08)
    world.step(HOME_RAD, 1)
    assert not world.outcome("black").placed
    put(world, "black", SPOT_XY[0] + 0.02, SPOT_XY[1])
    world.step(HOME_RAD, 100)
    outcome = world.outcome("black")
    assert outcome.success
    assert outcome.distance_m == pytest.approx(0.02, abs=0.001)
    assert world.outcome("white").wrong_lifted


def test_moving_the_other_cube_is_no_success(world):
    white = world.truth().cubes["white"]
    put(world, "black", 0.2, 0.0, 0.08)
    world.step(HOME_RAD, 1)
    put(world, "black", *SPOT_XY)
    put(world, "white", white.x + 0.02, white.y)
    world.step(HOME_RAD, 100)
    outcome = world.outcome("black")
    assert outcome.placed
    assert outcome.others_moved_m == pytest.approx(0.02, abs=0.001)
    assert not outcome.success


def test_cube_in_the_air_is_not_placed(world):
    put(world, "black", *SPOT_XY, 0.06)
    world.step(HOME_RAD, 1)
    assert not world.outcome().placed


def test_heading_of_a_toppled_cube_is_that_of_its_level_side(world):
    """Standing on its x axis, a cube's heading was that of an axis which points straight up: noise."""
    start = world._cube_qpos["black"]
    half = math.sqrt(0.5)
    world._data.qpos[start + 3 : start + 7] = (half, 0, half, 0)
    world.step(HOME_RAD, 1)
    assert math.remainder(world.truth().cubes["black"].yaw, math.pi / 2) == pytest.approx(0, abs=0.02)


def test_truth_survives_the_socket(world):
    truth = world.truth()
    assert Truth.from_json(json.loads(json.dumps(truth.to_json()))) == truth
    assert json.dumps(world.outcome().to_json())


@pytest.mark.parametrize(
    "damage", [{"cubes": None}, {"spot": [1]}, {"joints": "x"}, {"cubes": {"black": {"x": 0}}}, {"time_s": None}]
)
def test_malformed_truth_is_refused(world, damage):
    with pytest.raises(ConfigError, match="malformed"):
        Truth.from_json({**world.truth().to_json(), **damage})


def test_cube_pose_must_be_finite():
    with pytest.raises(ConfigError, match="finite"):
        CubePose(math.inf, 0, 0, 0)


def test_of_two_cubes_of_a_colour_either_may_be_placed(world):
    world.reset(1, target="black", names=("black", "black 2", "white"))
    black = world.truth().cubes["black"]
    for name in ("black", "black 2"):
        start = world._cube_qpos[world._players[name]]
        before = world._data.qpos[start : start + 3].copy()
        world._data.qpos[start : start + 3] = (*SPOT_XY, 0.1)
        world.step(HOME_RAD, 1)
        world.step(HOME_RAD, 500)
        assert world.outcome("black").success
        assert not world.outcome("white", excused=("black",)).wrong_lifted
        assert world.outcome("white").wrong_lifted
        world.reset(1, target="black", names=("black", "black 2", "white"))
        assert world.truth().cubes["black"] == black
        assert world._data.qpos[start : start + 3] == pytest.approx(before)


def test_what_is_excused_may_have_moved(world):
    world.reset(1, target="black", names=("black", "red"))
    put(world, "black", *SPOT_XY, z=0.1)
    start = world._cube_qpos[world._players["red"]]
    world._data.qpos[start + 1] += 0.05
    world.step(HOME_RAD, 1)
    world.step(HOME_RAD, 500)
    assert not world.outcome("black").success
    assert world.outcome("black", excused=("red",)).success
    assert world.outcome("black", excused=("red",)).others_moved_m == 0.0


def test_unknown_names_are_refused(world):
    with pytest.raises(ConfigError, match="red"):
        world.outcome("red")
    with pytest.raises(ConfigError, match="top"):
        World(cameras=("top",))
    with pytest.raises(ConfigError, match="overhead"):
        world.render("overhead")


@needs_gl
def test_render_shows_the_cubes(world):
    before = world.render("front", 320, 240).astype(int)
    put(world, "black", 0.25, 0.0)
    world.step(HOME_RAD, 1)
    after = world.render("front", 320, 240).astype(int)
    assert world.render("wrist").shape == (48, 64, 3)
    assert (np.abs(after - before).max(axis=2) > 60).sum() > 100


@needs_gl
def test_another_thread_draws_a_snapshot_while_physics_runs(world):
    pictures = []

    def draw(snapshot):
        rig = CameraRig(world.model, 64, 48)
        pictures.append(rig.render(snapshot, "front"))
        rig.close()

    expected = world.render("front")
    thread = threading.Thread(target=draw, args=(world.snapshot(),))
    thread.start()
    world.step(np.array(HOME_RAD) + 0.3, 200)
    thread.join(30)
    assert (pictures[0] == expected).all()
