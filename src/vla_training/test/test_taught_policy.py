"""A taught trajectory in the harness of learned policies: what one learns from it about looking."""

import numpy as np
import pytest

from vla_core import taught
from vla_core.errors import ConfigError
from vla_core.joints import SO101_JOINTS
from vla_core.taught import Taught
from vla_sim.expert import Expert
from vla_sim.world import World
from vla_training.evaluate import LoopSettings, run_episode
from vla_training.taught_policy import TaughtPolicy, load

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def world():
    made = World(cameras=("front",))
    yield made
    made.close()


def lesson(world, seed):
    """What a perfect hand would show in that scene."""
    world.reset(seed)
    plan = Expert(world.model).plan(world.truth(), world.joint_positions())
    return Taught(SO101_JOINTS, 50.0, plan.at(np.arange(int(plan.duration_s * 50)) / 50))


def test_it_succeeds_where_the_cube_stands_where_it_stood_and_fails_elsewhere(world, tmp_path):
    taught.save(lesson(world, seed=1), tmp_path / "place.json")
    policy = load(tmp_path / "place.json", lambda: world.time_s)
    settings = LoopSettings(limit_s=8)

    def play(seed):
        world.reset(seed)
        policy.begin()
        return run_episode(world, policy, seed, settings)

    assert play(1).success
    elsewhere = [play(seed) for seed in (2, 3)]
    assert not any(result.success or result.lifted for result in elsewhere)
    assert play(1).success, "nothing is left over from other episodes"


def test_it_plays_by_the_clock_and_by_joint_names():
    share = np.linspace(0, 1, 51)[:, None]
    columns = share * np.arange(1, 7) / 10
    reordered = Taught(tuple(reversed(SO101_JOINTS)), 50.0, columns[:, ::-1])
    now_s = 100.0
    policy = TaughtPolicy(reordered, lambda: now_s, rate_hz=10, horizon=3)
    assert policy(None, None)[0] == pytest.approx(columns[0], abs=0.16)  # begins with the first call
    now_s = 100.5
    actions = policy(None, None)
    assert actions.shape == (3, 6)
    np.testing.assert_allclose(actions[:, :5], columns[[25, 30, 35], :5], atol=1e-6)
    policy.begin()
    np.testing.assert_allclose(policy(None, None)[0, :5], columns[0, :5], atol=1e-6)


def test_another_arm_is_refused():
    with pytest.raises(ConfigError, match="taught joints a, b; wanted are shoulder_pan"):
        TaughtPolicy(Taught(("a", "b"), 50.0, np.zeros((3, 2))), lambda: 0.0)
