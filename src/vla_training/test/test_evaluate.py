"""The closed loop and its statistics."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vla_core import taught
from vla_core.errors import ConfigError
from vla_core.image import decode_jpeg
from vla_core.joints import SO101_JOINTS
from vla_sim.expert import Expert
from vla_sim.world import HOME_RAD, World
from vla_training import evaluate, measure

pytestmark = pytest.mark.sim


def test_wilson_interval_matches_the_literature():
    low, high = evaluate.wilson(99, 100)
    assert (round(low, 3), round(high, 3)) == (0.946, 0.998)
    assert evaluate.wilson(0, 10)[0] == 0
    assert evaluate.wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ConfigError):
        evaluate.wilson(successes, trials)


def test_ticks_are_a_servos():
    angles = np.array([0.0, 0.001, -1.0])
    assert np.abs(evaluate.to_ticks(angles) - angles).max() <= evaluate.TICK_RAD / 2
    assert evaluate.to_ticks(angles)[1] == pytest.approx(evaluate.TICK_RAD)


@pytest.fixture(scope="module")
def world():
    made = World(cameras=("front",))
    yield made
    made.close()


def test_the_loop_does_an_expert_no_harm(world):
    """Chunks of the expert through latency, joins and servo ticks still place the cube."""
    settings = evaluate.LoopSettings(limit_s=14.0)
    expert = Expert(world.model)
    started = world.time_s

    def play(image, state):
        assert image.shape == (96, 192, 3)
        return expert.chunk(world.truth(), state, world.time_s - started, 20, settings.rate_hz)

    result = evaluate.run_episode(world, play, evaluate.HELD_OUT_SEED, settings)
    assert result.success, result
    assert result.time_s < 14
    assert not result.wrong_lifted


def test_an_arm_that_stays_home_fails(world):
    settings = evaluate.LoopSettings(limit_s=1.0)
    result = evaluate.run_episode(world, lambda image, state: np.tile(HOME_RAD, (20, 1)), 1_000_001, settings)
    assert not result.success
    assert not result.lifted
    assert result.time_s == 1.0


GOOD = evaluate.EpisodeResult(2, True, True, True, False, False, 0.01, 0.0, 8.0, 0.05)
BAD = evaluate.EpisodeResult(1, False, False, False, True, True, 0.2, 0.0, 20.0, 0.05)


def test_summary_is_json_with_counts_and_interval():
    summary = json.loads(json.dumps(measure.summarise("m", "size", [GOOD, BAD], evaluate.LoopSettings())))
    assert (summary["model"], summary["shift"], summary["seeds"]) == ("m", "size", [1, 2])
    assert (summary["successes"], summary["episodes"], summary["success_rate"]) == (1, 2, 0.5)
    assert summary["interval_95"][0] < 0.5 < summary["interval_95"][1]
    assert (summary["wrong_object"], summary["wrong_touched"], summary["median_s"]) == (1, 1, 8.0)
    assert [result["seed"] for result in summary["results"]] == [1, 2]


def test_the_reason_of_a_failure_is_said():
    assert measure.why(BAD) == "wrong object lifted"
    assert measure.why(replace(BAD, wrong_lifted=False)) == "never lifted"
    assert measure.why(replace(BAD, wrong_lifted=False, lifted=True)) == "20 cm from the spot"
    assert measure.why(replace(BAD, wrong_lifted=False, lifted=True, others_moved_m=0.02)) == "another object moved"


def test_processes_play_the_same_scenes_as_one_does(tmp_path):
    """Through a file and two workers, failures come with pictures of the scene and of its end."""
    home = np.tile(HOME_RAD, (3, 1))
    path = tmp_path / "still.json"
    taught.save(taught.Taught(SO101_JOINTS, 50.0, home), path)
    settings = evaluate.LoopSettings(limit_s=0.5, variety="varied")
    seeds = range(1_000_000, 1_000_003)
    for jobs in (1, 2):
        played = list(measure.play(measure.Subject(path, taught=True), seeds, settings, jobs))
        assert [each.result.seed for each in played] == list(seeds)
        assert not any(each.result.success for each in played)
        assert all(decode_jpeg(jpeg).shape == (240, 320, 3) for each in played for jpeg in each.pictures)


def test_settings_without_time_are_refused():
    with pytest.raises(ConfigError, match="latency_s"):
        evaluate.LoopSettings(latency_s=0)
