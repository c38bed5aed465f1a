"""What a seed and a variety make of the scene, and that the world shows it."""

import itertools
import math

import cv2
import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim import layout
from vla_sim.casting import draw_names
from vla_sim.layout import APART_M, PLAIN, TRAINING, VARIED, VARIETIES, X_RANGE_M, Y_RANGE_M, Aspect, draw
from vla_sim.scene import CAMERAS, CUBE_SIZE_M, EXTRAS, HOME_RAD, SPOT_XY, TIMESTEP_S
from vla_sim.world import World

SEEDS = range(200)


def test_a_seed_always_gives_the_same_scene():
    for variety in VARIETIES:
        assert draw(11, variety) == draw(11, variety)
        assert draw(11, variety) != draw(12, variety)


def test_plain_cubes_lie_in_their_box_and_apart():
    for seed in range(300):
        black, white = draw(seed).cubes.values()
        for cube in (black, white):
            assert X_RANGE_M[0] <= cube.x <= X_RANGE_M[1]
            assert Y_RANGE_M[0] <= cube.y <= Y_RANGE_M[1]
            assert abs(cube.yaw) <= math.pi / 4
            assert cube.distance_to(SPOT_XY) >= APART_M
        assert black.distance_to((white.x, white.y)) >= APART_M


@pytest.mark.parametrize("target", ["black", "white"])
@pytest.mark.parametrize("variety", [VARIED, TRAINING, *Aspect])
def test_the_target_is_always_there_and_all_cubes_are_apart_and_in_reach(variety, target):
    for seed in SEEDS:
        cubes = draw(seed, variety, target).cubes
        assert target in cubes
        assert 2 <= len(cubes) <= 4
        poses = list(cubes.values())
        for index, cube in enumerate(poses):
            assert layout.in_reach(cube.x, cube.y)
            assert cube.distance_to(SPOT_XY) >= APART_M
            assert all(cube.distance_to((other.x, other.y)) >= APART_M for other in poses[index + 1 :])


def test_a_shift_leaves_the_daily_range_of_its_own_aspect_and_of_no_other():
    for seed in SEEDS:
        daily, bright = draw(seed, VARIED), draw(seed, Aspect.LIGHTING)
        assert bright.cubes == daily.cubes
        assert bright.cameras == daily.cameras
        assert abs(daily.light.level - 1) <= 0.12 <= abs(bright.light.level - 1)
        sizes = [abs(cube.size - CUBE_SIZE_M) for cube in draw(seed, Aspect.SIZE).cubes.values()]
        assert all(0.0012 <= size <= 0.003 for size in sizes)
        turned = draw(seed, Aspect.YAW).cubes["black"]
        assert abs(layout.turn_from_square_rad(turned)) > layout.HARD_YAW_RAD
        moved = draw(seed, Aspect.CAMERA).cameras["front"]
        assert all(0.002 <= abs(offset) <= 0.005 for offset in moved.offset_m)
        assert len(draw(seed, Aspect.DISTRACTORS).cubes) == 4


def test_training_reaches_as_far_as_every_shift():
    levels = [draw(seed, TRAINING).light.level for seed in SEEDS]
    assert min(levels) < 0.7
    assert max(levels) > 1.3
    assert {len(draw(seed, TRAINING).cubes) for seed in SEEDS} == {2, 3, 4}


@pytest.mark.parametrize(("arguments", "word"), [((-1,), "-1"), ((0, "wild"), "wild"), ((0, VARIED, "pink"), "pink")])
def test_what_cannot_be_drawn_is_named(arguments, word):
    with pytest.raises(ConfigError, match=word):
        draw(*arguments)


EVERY = (*layout.NAMED, *layout.STRANGERS)


@pytest.mark.parametrize("variety", VARIETIES)
def test_exactly_the_named_cubes_lie_on_the_table(variety):
    names = ("red", "black", "black 2", "orange")
    for seed in range(40):
        drawn = draw(seed, variety, "green", names=names)
        assert tuple(drawn.cubes) == tuple(drawn.colours) == names
        poses = list(drawn.cubes.values())
        assert all(a.distance_to((b.x, b.y)) >= APART_M for i, a in enumerate(poses) for b in poses[:i])
    fixed = draw(3, variety, "red", cubes_of=5, names=names)
    assert fixed.cubes == draw(5, PLAIN, "red", names=names).cubes
    assert fixed.light == draw(3, variety, "red", names=names).light


def test_named_colours_stay_apart_in_any_light():
    """By hue, which no brightness changes; black and white have none, and differ in brightness."""
    hues = {colour: [] for colour in EVERY}
    for seed in SEEDS:
        for names in (EVERY[:4], EVERY[4:]):
            drawn = draw(seed, TRAINING, names=names)
            for name, colour in drawn.colours.items():
                lit = np.multiply(colour, drawn.light.tint).astype(np.float32)
                hue, saturation, value = cv2.cvtColor(lit[None, None], cv2.COLOR_RGB2HSV)[0, 0]
                hues[name].append((hue + 40) % 360)  # red lies about 0
                assert (saturation < 0.3) == (name in ("black", "white"))
                assert name not in ("black", "white") or (value < 0.1) == (name == "black")
    ranges = sorted((min(hues[name]), max(hues[name])) for name in EVERY if name not in ("black", "white"))
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(ranges)]
    assert min(gaps) > 8, ranges


def test_a_cube_keeps_its_shade_whatever_lies_beside_it():
    first, second = draw(8, VARIED, "red", names=("red", "blue")), draw(8, VARIED, "red", names=("red", "white"))
    assert first.colours["red"] == second.colours["red"]
    twins = draw(8, VARIED, "red", names=("red", "red 2")).colours
    assert twins["red"] != twins["red 2"]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ((), "none"),
        (("red", "pink"), "pink"),
        (("red", "red"), "red 2"),
        (("red", "red 3"), "red 3"),
        (EVERY[:5], "1 to 4"),
    ],
)
def test_impossible_names_are_refused(names, word):
    with pytest.raises(ConfigError, match=word):
        draw(0, VARIED, "red", names=names)


def test_drawn_names_are_two_to_four_with_those_wanted_and_none_of_those_not():
    seen = set()
    for seed in range(300):
        names = draw_names(np.random.default_rng(seed), ["red", "blue"], ["green"], twin=seed % 2 == 0)
        assert names[:2] == ("red", "blue")
        assert ("red 2" in names) == (seed % 2 == 0)
        assert "green" not in names
        assert len(set(names)) == len(names)
        seen.update(names)
        draw(seed, TRAINING, "red", names=names)
    assert seen == {*EVERY, "red 2"} - {"green"}


class TestWorld:
    @pytest.fixture(scope="class")
    def world(self):
        world = World(cameras=("front",))
        yield world
        world.close()

    def test_cubes_lie_where_the_layout_has_them_and_stay(self, world):
        for seed in range(5):
            world.reset(seed, variety=Aspect.DISTRACTORS, target="white")
            wanted = draw(seed, Aspect.DISTRACTORS, "white")
            world.step(world.joint_positions(), 250)
            found = world.truth().cubes
            assert found.keys() == wanted.cubes.keys()
            for name, cube in wanted.cubes.items():
                assert math.dist((found[name].x, found[name].y, found[name].z), (cube.x, cube.y, cube.z)) < 0.001
                assert found[name].size == cube.size

    def test_any_colours_lie_there_are_seen_and_are_judged_by_colour(self, world):
        names = ("red", "red 2", "yellow", "extra_1")[:3]
        world.reset(2, variety=TRAINING, target="yellow", names=names)
        world.step(world.joint_positions(), 250)
        wanted, found = draw(2, TRAINING, "yellow", names=names).cubes, world.truth().cubes
        assert found.keys() == wanted.keys()
        for name, cube in wanted.items():
            assert math.dist((found[name].x, found[name].y), (cube.x, cube.y)) < 0.001
            assert world.moved_m(name) < 0.001
        assert world.outcome("red").distance_m == min(found[name].distance_to(SPOT_XY) for name in names[:2])
        with pytest.raises(ConfigError, match="there are red and yellow"):
            world.outcome("black")
        world.reset(2)
        assert set(world.truth().cubes) == {"black", "white"}

    @pytest.mark.parametrize("camera", ["front", "overhead"])
    def test_a_cube_is_where_the_picture_shows_it(self, camera):
        """Against the picture itself: what changes when a cube is taken away lies around the place."""
        world = World(cameras=(camera,), width=640, height=480)
        for seed in (0, 2):
            world.reset(seed, variety=TRAINING, target="red", names=("red", "blue"))
            u, v = world.in_picture(camera)["red"]
            both = world.render(camera).astype(int)
            start = world._cube_qpos[world._players["red"]]
            world._data.qpos[start : start + 3] = (-1.5, 0, -0.5)
            rows, columns = np.nonzero(np.abs(world.render(camera).astype(int) - both).max(axis=2) > 20)
            assert (u * 640, v * 480) == pytest.approx((columns.mean(), rows.mean()), abs=6)
        world.close()
        with pytest.raises(ConfigError, match="ceiling"):
            world.in_picture("ceiling")

    def test_cubes_collide_after_they_were_away(self, world):
        """The compiled bodies carry contact bits of their own: a cube put on the table fell through it."""
        world.reset(3, variety=VARIED)
        world.reset(3, variety=PLAIN)
        world.step(world.joint_positions(), 500)
        assert all(abs(cube.height) < 0.001 for cube in world.truth().cubes.values())

    def test_absent_objects_neither_fall_nor_count(self, world):
        world.reset(0)
        start = world.snapshot().qpos.copy()
        world.step(world.joint_positions(), 500)
        for name in EXTRAS:
            at = int(world.model.joint(name).qposadr[0])
            assert np.allclose(world.snapshot().qpos[at : at + 7], start[at : at + 7])
        assert world.outcome().others_moved_m < 0.001

    def test_a_plain_scene_after_a_varied_one_is_as_new(self, world):
        world.reset(5)
        first = world.render("front")
        world.reset(6, variety=TRAINING)
        assert np.abs(world.render("front").astype(int) - first).mean() > 2
        world.reset(5)
        assert np.array_equal(world.render("front"), first)

    def test_the_arm_starts_where_the_layout_says(self, world):
        world.reset(9, variety=VARIED)
        wanted = np.add(HOME_RAD, draw(9, VARIED).start_rad)
        assert np.allclose(world.joint_positions(), wanted, atol=1e-9)
        world.step(world.joint_positions(), round(0.1 / TIMESTEP_S))

    def test_a_cube_that_is_not_there_cannot_be_judged(self, world):
        seed = next(seed for seed in range(100) if "white" not in draw(seed, VARIED).cubes)
        world.reset(seed, variety=VARIED)
        with pytest.raises(ConfigError, match="white"):
            world.outcome("white")


def test_every_camera_is_off_its_pose_in_its_own_way():
    shifts = draw(4, TRAINING).cameras
    assert shifts.keys() == CAMERAS.keys()
    assert len({shift.offset_m for shift in shifts.values()}) == len(CAMERAS)
