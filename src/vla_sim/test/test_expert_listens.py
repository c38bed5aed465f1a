"""The expert is asked for a colour, and may be asked for another one at any time."""

import math

import numpy as np
import pytest

from vla_sim.expert import ASIDE_APART_M, Expert, Stage, free_place
from vla_sim.scene import HOME_RAD, SPOT_XY
from vla_sim.truth import CubePose, Truth
from vla_sim.world import World

RATE_HZ = 10
SETPOINT_STEPS = 5  # 10 ms of physics
NAMES = ("red", "black", "blue", "yellow")


@pytest.fixture(scope="module")
def world():
    return World()


def drive(world, expert, seconds, until=lambda truth: False):
    """Follow the expert, asked anew every 0.1 s; returns whether `until` held."""
    for _ in range(round(seconds * RATE_HZ)):
        truth = world.truth()
        if until(truth):
            return True
        here, there = expert.chunk(truth, world.joint_positions(), truth.time_s, 2, RATE_HZ)
        for share in np.linspace(0.1, 1, 10):
            world.step(here + share * (there - here), SETPOINT_STEPS)
    return False


@pytest.mark.parametrize("target", ["red", "yellow"])
def test_the_cube_of_the_colour_is_placed(world, target):
    world.reset(1, variety="training", target=target, names=NAMES)
    drive(world, Expert(world.model, target), 9)
    assert world.outcome(target).success


def test_of_two_the_nearer_is_taken_and_the_choice_lasts(world):
    names = ("red", "red 2", "black")
    for seed in (1, 2, 3):
        world.reset(seed, variety="training", target="red", names=names)
        expert = Expert(world.model, "red")
        truth = world.truth()
        hand = expert._kinematics.pose(world.joint_positions()).position[:2]
        near, far = sorted(("red", "red 2"), key=lambda name: truth.cubes[name].distance_to(hand))
        assert expert.plan(truth, world.joint_positions()).aim.cube == near
        drive(world, expert, 9)
        assert world.outcome("red").success
        assert world.moved_m(far) < 0.005


def test_what_is_not_there_is_not_fetched(world):
    world.reset(4, variety="training", target="green", names=NAMES)
    start = np.array([0.5, 0.1, 0.2, 1.2, 1.6, 0.3])
    for share in np.linspace(0, 1, 100):
        world.step(np.array(HOME_RAD) + share * (start - HOME_RAD), SETPOINT_STEPS)
    drive(world, Expert(world.model, "green"), 6)
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.03)
    assert max(world.moved_m(name) for name in NAMES) < 0.005


@pytest.mark.parametrize("stage", [Stage.MOVE, Stage.DESCEND])
def test_asked_anew_before_the_grasp_it_leaves_the_first_alone(world, stage):
    world.reset(5, variety="training", target="red", names=NAMES)
    expert = Expert(world.model, "red")
    assert drive(world, expert, 5, lambda truth: expert.stage(truth.time_s + 0.1) is stage)
    expert.target = "blue"
    drive(world, expert, 10)
    outcome = world.outcome("blue")
    assert outcome.success, outcome
    assert world.moved_m("red") < 0.01


@pytest.mark.parametrize("last", ["blue", "green"])
@pytest.mark.parametrize("stage", [Stage.LIFT, Stage.CARRY, Stage.LOWER])
def test_asked_anew_while_carrying_it_puts_the_cube_down_apart_from_all(world, stage, last):
    """Blue lies on the table and is fetched; green does not."""
    world.reset(6, variety="training", target="red", names=NAMES)
    expert = Expert(world.model, "red")
    carried = lambda truth: truth.cubes["red"].height > 0.03 and expert.stage(truth.time_s + 0.1) is stage  # noqa: E731
    assert drive(world, expert, 8, carried)
    expert.target = last
    drive(world, expert, 14)
    if last == "blue":
        assert world.outcome(last, excused=("red",)).success
        assert not world.outcome(last).success
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.03)
    cubes = world.truth().cubes
    red = cubes.pop("red")
    assert abs(red.height) < 0.002
    assert red.distance_to(SPOT_XY) > 0.05
    assert all(red.distance_to((cube.x, cube.y)) > 0.05 for cube in cubes.values())
    assert max(world.moved_m(name) for name in cubes if name != last) < 0.005


def test_with_the_spot_taken_it_rests(world):
    world.reset(7, variety="training", target="red", names=NAMES)
    expert = Expert(world.model, "red")
    drive(world, expert, 9)
    expert.target = "blue"
    drive(world, expert, 3)
    assert world.joint_positions() == pytest.approx(HOME_RAD, abs=0.03)
    assert world.outcome("red").success


def test_a_free_place_is_the_nearest_and_apart_from_all():
    cubes = {
        "red": CubePose(0.2, 0.0, 0.08, 0),
        "blue": CubePose(0.2, 0.01, 0.0125, 0),
        "black": CubePose(0.24, 0.06, 0.0125, 0),
    }
    truth = Truth(0.0, 1, 0, cubes, SPOT_XY, HOME_RAD)
    x, y = free_place(truth, "red", (0.2, 0.0))
    apart = [math.dist((x, y), SPOT_XY), *(cubes[name].distance_to((x, y)) for name in ("blue", "black"))]
    assert min(apart) >= ASIDE_APART_M
    assert math.dist((x, y), (0.2, 0.0)) < 0.08
    assert free_place(truth, "red", (0.2, -0.06)) == (0.2, -0.06)
    assert free_place(truth, "red", SPOT_XY) != SPOT_XY
