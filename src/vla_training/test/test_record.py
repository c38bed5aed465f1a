"""Shards on disk, and demonstrations of the scripted expert."""

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_training import dataset
from vla_training.evaluate import HELD_OUT_SEED
from vla_training.record import Demonstrator, RecordSettings, record

pytestmark = pytest.mark.sim


def episode(seed: int, frames: int, every: int = 2) -> dataset.Episode:
    rng = np.random.default_rng(seed)
    actions = (seed * 1000 + np.arange(frames, dtype=np.float32))[:, None] * np.ones((1, 6), np.float32)
    pictured = np.arange(0, frames, every)
    images = rng.integers(0, 256, (len(pictured), 4, 8, 3), dtype=np.uint8)
    return dataset.Episode(seed, actions + 0.5, actions, pictured, images)


def test_shards_come_back_as_samples(tmp_path):
    episodes = [episode(1, 5), episode(2, 6)]
    dataset.write_shard(tmp_path, "a", episodes)
    dataset.write_shard(tmp_path, "b", [episode(3, 4, every=1)])
    data = dataset.load([tmp_path], chunk_size=3)
    assert data.episodes == 3
    assert len(data) == 3 + 3 + 4
    assert np.array_equal(data.images[:3], episodes[0].images)
    assert data.states[:, 0].tolist() == [
        1000.5,
        1002.5,
        1004.5,
        2000.5,
        2002.5,
        2004.5,
        3000.5,
        3001.5,
        3002.5,
        3003.5,
    ]


def test_chunks_begin_at_their_frame_and_stay_in_their_episode(tmp_path):
    dataset.write_shard(tmp_path, "a", [episode(1, 5), episode(2, 6)])
    chunks = dataset.load([tmp_path], chunk_size=3).chunks[..., 0]
    assert chunks.tolist() == [
        [1000, 1001, 1002],
        [1002, 1003, 1004],
        [1004, 1004, 1004],
        [2000, 2001, 2002],
        [2002, 2003, 2004],
        [2004, 2005, 2005],
    ]


def test_empty_folder_names_the_cure(tmp_path):
    with pytest.raises(ConfigError, match=r"vla_training\.record"):
        dataset.load([tmp_path], 3)


def test_pictures_of_two_sizes_are_refused(tmp_path):
    dataset.write_shard(tmp_path, "a", [episode(1, 2)])
    other = dataset.Episode(
        2,
        np.zeros((1, 6), np.float32),
        np.zeros((1, 6), np.float32),
        np.zeros(1, int),
        np.zeros((1, 9, 9, 3), np.uint8),
    )
    dataset.write_shard(tmp_path, "b", [other])
    with pytest.raises(ConfigError, match="different sizes"):
        dataset.load([tmp_path], 3)


def test_episode_checks_itself():
    with pytest.raises(ConfigError, match="must agree"):
        dataset.Episode(0, np.zeros((2, 6)), np.zeros((3, 6)), np.zeros(0, int), np.zeros((0, 4, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def demonstrator():
    made = Demonstrator(RecordSettings(picture_every=20))
    yield made
    made.close()


def test_a_demonstration_ends_at_rest_with_the_cube_on_the_spot(demonstrator):
    found = next(made for seed in range(3) if (made := demonstrator.episode(seed)) is not None)
    assert found.images.shape[1:] == (64, 128, 3)
    assert np.array_equal(found.actions[-1], found.actions[-5])
    assert np.abs(found.states[1:] - found.actions[:-1])[:, :5].max() < 0.3  # noise and lag, no more


def test_a_seed_gives_the_same_demonstration_again(demonstrator):
    first, second = demonstrator.episode(0), demonstrator.episode(0)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.states, second.states)
    assert np.array_equal(first.images, second.images)


def test_evaluation_seeds_are_not_recorded(tmp_path):
    with pytest.raises(ConfigError, match="evaluation"):
        record(tmp_path, [HELD_OUT_SEED], RecordSettings())
