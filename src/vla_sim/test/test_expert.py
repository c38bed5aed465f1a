import math
from dataclasses import replace

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim.expert import OPEN_RAD, Expert, Miss, Stage, is_placed
from vla_sim.kinematics import ArmKinematics
from vla_sim.legs import jaw_yaw
from vla_sim.scene import GRASP_POINT_M, HOME_RAD, SERVO_STIFFNESS_NM_RAD, SPOT_XY, joint_limits, load_arm
from vla_sim.truth import CubePose
from vla_sim.world import World

RATE_HZ = 10
SETPOINT_STEPS = 5  # 10 ms of physics
LIMIT_S = 16.0


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def arm():
    return ArmKinematics(load_arm())


def act(world, expert, duration_s, rate_hz=RATE_HZ):
    """As the policy node does: a chunk a second, setpoints interpolated at 100 Hz."""
    for _ in range(math.ceil(duration_s)):
        truth = world.truth()
        chunk = expert.chunk(truth, world.joint_positions(), truth.time_s, round(1.5 * rate_hz), rate_hz)
        times = np.arange(len(chunk)) / rate_hz
        for now in np.arange(0.01, 1.005, 0.01):
            world.step([np.interp(now, times, column) for column in chunk.T], SETPOINT_STEPS)


def follow(world, plan):
    for target in plan.at(np.arange(0, plan.duration_s + 0.3, 0.01)):
        world.step(target, SETPOINT_STEPS)


@pytest.mark.parametrize("rate_hz", [10, 30])
@pytest.mark.parametrize(("seed", "target"), [(0, "black"), (1, "black"), (2, "white"), (3, "white")])
def test_cube_is_placed(world, seed, target, rate_hz):
    world.reset(seed)
    act(world, Expert(target=target), 8, rate_hz)
    outcome = world.outcome(target)
    assert outcome.success, outcome
    assert outcome.distance_m < 0.01
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.02)


def test_arm_stays_home_after_success(world):
    world.reset(0)
    expert = Expert()
    act(world, expert, 8)
    truth = world.truth()
    chunk = expert.chunk(truth, world.joint_positions(), truth.time_s + 60, 5, RATE_HZ)
    assert chunk == pytest.approx(np.tile(HOME_RAD, (5, 1)))


def test_plan_is_smooth_and_within_limits(world):
    for seed in range(6):
        world.reset(seed)
        plan = Expert().plan(world.truth(), HOME_RAD)
        speed = np.abs(np.diff(plan.positions, axis=0)) / 0.01
        limits = np.array([(limit.lower_rad, limit.upper_rad) for limit in joint_limits()])
        assert speed[:, :5].max() < 3.0
        assert (plan.positions[:, :5] > limits[:5, 0] - 0.02).all()
        assert (plan.positions[:, :5] < limits[:5, 1] + 0.02).all()
        assert plan.duration_s < 8
        assert [stage for stage, _ in plan.stages][-1] is Stage.HOME


def test_hand_stays_above_the_cubes_while_it_travels(world, arm):
    for seed in range(6):
        world.reset(seed)
        plan = Expert(world.model).plan(world.truth(), HOME_RAD)
        for time_s in np.arange(0, plan.duration_s, 0.05):
            if plan.stage(time_s) in (Stage.MOVE, Stage.CARRY, Stage.HOME):
                assert arm.pose(plan.at(time_s)[0]).position[2] > 0.06


@pytest.mark.parametrize(
    "miss",
    [Miss(outward_m=0.006), Miss(outward_m=-0.006), Miss(left_m=0.009), Miss(left_m=-0.009)]
    + [Miss(yaw_rad=math.radians(angle)) for angle in (-20, 20)],
)
def test_grasp_tolerates_what_a_policy_gets_wrong(world, miss):
    for seed in (20, 21):
        world.reset(seed)
        follow(world, Expert(world.model).plan(world.truth(), HOME_RAD, miss))
        assert world.outcome().success


def test_missed_grasp_is_tried_again(world):
    world.reset(5)
    expert = Expert()
    plan = expert.plan(world.truth(), HOME_RAD, Miss(outward_m=0.04))
    ends = dict(plan.stages)
    for target in plan.at(np.arange(0, ends[Stage.LIFT], 0.01)):
        world.step(target, SETPOINT_STEPS)
    assert not world.outcome().lifted
    act(world, expert, 9)
    assert world.outcome().success


def test_shoved_cube_is_followed(world):
    world.reset(6)
    expert = Expert()
    act(world, expert, 1)
    start = world._cube_qpos["black"]
    world._data.qpos[start : start + 2] = (0.22, 0.12) if world._data.qpos[start + 1] < 0 else (0.22, -0.06)
    act(world, expert, LIMIT_S)
    outcome = world.outcome()
    assert outcome.placed
    assert outcome.lifted


@pytest.mark.parametrize("start", [(0.5, 0.3, 0.0, 1.2, 1.6, 0.0), (-0.6, -0.3, 0.9, 0.8, 0.5, 1.0)])
def test_any_start_will_do(world, start):
    world.reset(7)
    for share in np.linspace(0, 1, 100):
        world.step(np.array(HOME_RAD) + share * (np.array(start) - HOME_RAD), SETPOINT_STEPS)
    expert = Expert()
    act(world, expert, 10)
    assert world.outcome().success


def test_arm_pushed_off_the_plan_plans_anew_from_where_it_is(world):
    world.reset(8)
    expert = Expert()
    truth = world.truth()
    expert.chunk(truth, HOME_RAD, 0.0, 10, RATE_HZ)
    pushed = np.add(HOME_RAD, [0.5, 0, 0, 0, 0, 0])
    assert expert.chunk(truth, pushed, 0.1, 10, RATE_HZ)[0] == pytest.approx(pushed)


def test_new_episode_and_new_target_plan_anew(world):
    world.reset(9)
    expert = Expert()
    first = expert.chunk(world.truth(), HOME_RAD, 0.0, 20, RATE_HZ)
    expert.target = "white"
    second = expert.chunk(world.truth(), HOME_RAD, 0.5, 20, RATE_HZ)
    assert second[0] == pytest.approx(HOME_RAD)
    assert np.abs(first - second).max() > 0.1
    world.reset(10)
    assert expert.chunk(world.truth(), HOME_RAD, 0.6, 1, RATE_HZ)[0] == pytest.approx(HOME_RAD)


def test_held_cube_is_carried_on(world):
    world.reset(4)
    plan = Expert().plan(world.truth(), HOME_RAD)
    for target in plan.at(np.arange(0, dict(plan.stages)[Stage.LIFT] + 0.2, 0.01)):
        world.step(target, SETPOINT_STEPS)
    resumed = Expert().plan(world.truth(), world.joint_positions())
    assert resumed.stages[0][0] is Stage.CARRY


@pytest.mark.parametrize(
    ("name", "pose"),
    [
        ("black", CubePose(0.6, 0.0, 0.0125, 0.0)),  # out of reach
        ("black", CubePose(0.2, 0.0, -0.5, 0.0)),  # on the floor
        ("white", CubePose(*SPOT_XY, 0.0125, 0.0)),  # on the spot, in the way
    ],
)
def test_hopeless_scene_is_left_alone(world, name, pose):
    world.reset(0)
    truth = world.truth()
    hopeless = replace(truth, cubes={**truth.cubes, name: pose})
    plan = Expert().plan(hopeless, HOME_RAD)
    assert plan.positions == pytest.approx(np.tile(HOME_RAD, (len(plan.positions), 1)))


def test_unknown_target_is_named():
    with pytest.raises(ConfigError, match="pink"):
        Expert(target="pink")


def test_placed_means_on_the_table_within_three_centimetres():
    assert is_placed(CubePose(SPOT_XY[0] + 0.02, SPOT_XY[1], 0.0125, 0), SPOT_XY)
    assert not is_placed(CubePose(SPOT_XY[0] + 0.031, SPOT_XY[1], 0.0125, 0), SPOT_XY)
    assert not is_placed(CubePose(*SPOT_XY, 0.05, 0), SPOT_XY)


def test_jaws_turn_without_jumps_as_the_cube_turns():
    """A cube turned by 44 and by 46 degrees looks nearly the same: the jaws must face it nearly the same way."""
    yaws = np.linspace(-math.pi, math.pi, 2001)
    turns = np.unwrap([jaw_yaw(0.22, 0.05, yaw) for yaw in yaws])
    assert np.abs(np.diff(turns)).max() < 3 * (yaws[1] - yaws[0])
    assert np.ptp(turns) < math.radians(61)


class TestKinematics:
    @pytest.mark.parametrize("point", [(0.16, -0.13, 0.009), (0.22, 0.0, 0.08), (0.28, 0.13, 0.009), (*SPOT_XY, 0.011)])
    @pytest.mark.parametrize("off_deg", [-30, 0, 30])
    def test_inverse_undoes_forward(self, arm, point, off_deg):
        yaw = math.atan2(point[1], point[0] - 0.0388) + math.pi / 2 + math.radians(off_deg)
        solution = arm.solve(point, yaw, HOME_RAD)
        pose = arm.pose(solution.joints)
        assert pose.position == pytest.approx(point, abs=1e-3)
        assert pose.yaw_rad == pytest.approx(yaw, abs=0.02)
        assert solution.tilt_rad < math.radians(2)
        assert solution.position_error_m < 1e-3

    def test_out_of_reach_is_admitted_and_within_limits(self, arm):
        solution = arm.solve((0.9, 0.0, 0.1), 1.57, HOME_RAD)
        limits = joint_limits()[:5]
        assert solution.position_error_m > 0.3
        assert all(
            limit.lower_rad - 1e-4 <= joint <= limit.upper_rad + 1e-4
            for joint, limit in zip(solution.joints, limits, strict=True)
        )

    def test_sag_is_what_the_simulated_servo_sags(self, world, arm):
        pose = np.array([0.3, 0.2, -0.2, 1.3, 1.6, OPEN_RAD])
        assert arm.pose(pose).position[2] > 0.03
        world.reset(0)
        sag = arm.gravity_sag(pose)
        world.step(HOME_RAD, 1)
        for share in np.linspace(0, 1, 200):
            world.step(np.array(HOME_RAD) + share * (pose + sag - HOME_RAD), SETPOINT_STEPS)
        world.step(pose + sag, 500)
        assert np.abs(sag).max() > 0.003
        # What remains is dry friction, 0.052 Nm.
        assert world.joint_positions() == pytest.approx(pose, abs=2 * 0.052 / SERVO_STIFFNESS_NM_RAD)

    def test_grasp_point_hangs_below_the_wrist(self, arm):
        assert arm.pose(HOME_RAD).position[0] < 0.2
        assert GRASP_POINT_M[2] < 0
