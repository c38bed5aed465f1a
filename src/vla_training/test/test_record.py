"""Shards on disk, and demonstrations of the scripted expert."""

import argparse
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim import layout
from vla_sim.layout import TRAINING
from vla_sim.truth import CubePose
from vla_sim.world import HOME_RAD, World
from vla_training import dataset, lerobot_format, lerobot_reader, phrases, record_expert, scripts
from vla_training.evaluate import HELD_OUT_SEED, VALIDATION_SEED, LoopSettings
from vla_training.localisation import locate
from vla_training.phrases import known
from vla_training.places import place_of
from vla_training.record import Demonstrator, RecordSettings

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
    assert np.array_equal(data.images[np.arange(3)], episodes[0].images)
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


def test_shards_keep_prompts_and_labels_where_they_have_them(tmp_path):
    """Old shards have neither, and still load beside new ones."""
    labels = np.full((3, 6, 4), np.nan, np.float32)
    labels[:, 2] = (0.5, 0.25, 1, 0)
    asked = ("red", "red", "blue", "blue", "blue")
    new = replace(episode(1, 5), prompts=asked, cubes=labels)
    dataset.write_shard(tmp_path, "a", [new, replace(episode(2, 5), prompts=("blue",) * 5, cubes=labels)])
    dataset.write_shard(tmp_path, "b", [episode(3, 4, every=1)])
    data = dataset.load([tmp_path], chunk_size=3)
    assert data.texts == ("red", "blue")
    assert data.prompts.tolist() == [0, 1, 1, 1, 1, 1, -1, -1, -1, -1]
    assert data.told.tolist() == [2, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    assert data.since.tolist() == [dataset.UNCHANGED, 0, 2, *[dataset.UNCHANGED] * 7]
    assert np.array_equal(data.cubes[:3], labels, equal_nan=True)
    assert np.isnan(data.cubes[6:]).all()
    with pytest.raises(ConfigError, match="4 prompts and 5 frames"):
        replace(new, prompts=asked[:4])
    with pytest.raises(ConfigError, match="places of cubes"):
        replace(new, cubes=labels[:2])


def test_the_simulation_has_the_cubes_that_phrases_ask_for():
    assert layout.NAMED == phrases.TARGETS


def test_empty_folder_names_the_cure(tmp_path):
    with pytest.raises(ConfigError, match="evergreen record --expert"):
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
    assert found.images.shape[1:] == (96, 192, 3)
    assert np.array_equal(found.actions[-1], found.actions[-5])
    assert np.abs(found.states[1:] - found.actions[:-1])[:, :5].max() < 0.3  # noise and lag, no more


def test_a_seed_gives_the_same_demonstration_again(demonstrator):
    first, second = demonstrator.episode(0), demonstrator.episode(0)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.states, second.states)
    assert np.array_equal(first.images, second.images)


def test_demonstrations_of_varied_scenes_place_the_target_and_stay_in_step():
    made = Demonstrator(RecordSettings(LoopSettings(target="white", variety=TRAINING)))
    kept = [found for seed in range(8) if (found := made.episode(seed)) is not None]
    made.close()
    assert len(kept) >= 6
    assert all(len(found.images) == len(found.states) for found in kept)


def options(out, episodes, **given):
    usual = {"seed": 0, "jobs": 1, "target": "black", "targets": "", "kinds": "", "places": "", "size": (192, 96)}
    return argparse.Namespace(out=out, episodes=episodes, **usual | given)


def test_an_interrupted_recording_goes_on_with_the_next_scene(tmp_path, monkeypatch):
    monkeypatch.setenv("EVERGREEN_CACHE", str(tmp_path / "cache"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert record_expert.run(options(whole, 3, seed=20, jobs=2)) == 0
    for episodes in (1, 3):
        assert record_expert.run(options(parts, episodes, seed=20)) == 0
    first, second = (list(lerobot_reader.load(root)) for root in (whole, parts))
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        assert one.prompt == other.prompt == "put the black cube on the spot"
        assert np.array_equal(one.states, other.states)
        assert np.array_equal(one.images["front"], other.images["front"])
    data = dataset.load([whole], chunk_size=20)
    assert (data.episodes, len(data)) == (3, sum(len(episode.states) for episode in first))
    assert np.array_equal(data.images[np.arange(5)], first[0].images["front"][:5])
    assert np.array_equal(data.chunks[0], first[0].actions[:20])


@pytest.mark.parametrize("seed", [HELD_OUT_SEED, VALIDATION_SEED])
def test_evaluation_seeds_are_not_recorded(tmp_path, seed):
    with pytest.raises(ConfigError, match="evaluation"):
        record_expert.run(options(tmp_path / "data", 1, seed=seed))


def test_a_target_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="pink"):
        record_expert.run(options(tmp_path, 1, target="pink"))
    for targets in ("red,pink", "red,red"):
        with pytest.raises(ConfigError, match=targets):
            record_expert.run(options(tmp_path, 1, targets=targets))


def test_kinds_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--kinds dancing: give some of steady, absent, changed before grasp"):
        record_expert.run(options(tmp_path, 1, targets="red,blue", kinds="steady,dancing"))
    with pytest.raises(ConfigError, match="in scenes of the kind absent, no cube"):
        record_expert.run(options(tmp_path, 1, targets="red,blue", kinds="absent", places="crowded"))
    with pytest.raises(ConfigError, match=r"--places heaven: give some of crowded, end, elsewhere"):
        record_expert.run(options(tmp_path, 1, targets="red,blue", places="heaven"))
    for choice in ({"kinds": "steady"}, {"places": "end"}):
        with pytest.raises(ConfigError, match="--targets"):
            record_expert.run(options(tmp_path, 1, **choice))


def test_a_size_that_no_policy_is_fed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="picture of 200x100 px: both must be multiples of 32"):
        record_expert.run(options(tmp_path / "data", 1, size=(200, 100)))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("xy", "neighbour", "place"),
    [
        ((0.05, -0.28), (0.20, 0.0), "end"),
        ((0.05, 0.28), (0.05, 0.20), "crowded"),
        ((0.05, 0.20), (0.20, 0.0), "elsewhere"),
        ((0.28, 0.05), None, "elsewhere"),
    ],
)
def test_a_cube_is_crowded_or_far_out_or_neither(xy, neighbour, place):
    cubes = {"red": CubePose(*xy, 0.0, 0.0)} | ({"blue": CubePose(*neighbour, 0.0, 0.0)} if neighbour else {})
    assert place_of(cubes, "red") == place


def test_scenes_that_run_out_are_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(record_expert, "VALIDATION_SEED", 3)
    with pytest.raises(ConfigError, match="holds 0 of 1 episodes, and no scene that fits is left below seed 3"):
        record_expert.run(options(tmp_path, 1, seed=3, targets="red,blue"))


class TestListening:
    """Demonstrations in which a colour is asked for."""

    @pytest.fixture(scope="class")
    def listening(self):
        made = Demonstrator(RecordSettings(LoopSettings(variety=TRAINING), 10, layout.NAMED))
        yield made
        made.close()

    def first(self, listening, kind, present=True):
        """The first scene of a kind that was kept."""
        scenes = ((seed, scripts.draw(seed, layout.NAMED)) for seed in range(400))
        found = (
            (script, listening.episode(seed))
            for seed, script in scenes
            if script.kind is kind and script.present is present
        )
        return next((script, made) for script, made in found if made is not None)

    def test_shares_are_those_that_were_wanted(self):
        drawn = [scripts.draw(seed, layout.NAMED) for seed in range(3000)]
        kinds = Counter(script.kind for script in drawn)
        assert kinds[scripts.Kind.ABSENT] / 3000 == pytest.approx(scripts.ABSENT_SHARE, abs=0.02)
        assert kinds[scripts.Kind.BEFORE_GRASP] / 3000 == pytest.approx(scripts.BEFORE_GRASP_SHARE, abs=0.02)
        assert kinds[scripts.Kind.CARRYING] / 3000 == pytest.approx(scripts.CARRYING_SHARE, abs=0.02)
        assert set(Counter(script.targets[-1] for script in drawn).values()) == {500}
        asked = [script for script in drawn if script.present]
        twins = sum(f"{script.targets[-1]}{layout.SECOND}" in script.names for script in asked)
        assert twins / len(asked) == pytest.approx(scripts.TWIN_SHARE, abs=0.02)
        assert {len(script.names) for script in drawn} == {2, 3, 4}
        for script in drawn:
            assert all(prompt in known(target) for prompt, target in zip(script.prompts, script.targets, strict=True))
            assert len(script.targets) == 1 or script.targets[0] in script.names
            assert script.kind is not scripts.Kind.ABSENT or not script.present

    def test_a_cube_that_is_not_there_is_waited_for_at_rest(self, listening):
        script, made = self.first(listening, scripts.Kind.ABSENT, present=False)
        assert set(made.prompts) == set(script.prompts)
        rest = round(script.rest_s * 10)
        assert 20 <= rest <= 40
        assert np.abs(made.actions[-rest:] - np.float32(HOME_RAD)).max() < 1e-6
        assert np.isnan(made.cubes[:, layout.NAMED.index(script.targets[0])]).all()

    @pytest.mark.parametrize("kind", [scripts.Kind.BEFORE_GRASP, scripts.Kind.CARRYING])
    @pytest.mark.parametrize("present", [True, False])
    def test_the_prompt_changes_on_the_way(self, listening, kind, present):
        script, made = self.first(listening, kind, present)
        changes = [frame for frame in range(1, len(made.prompts)) if made.prompts[frame] != made.prompts[frame - 1]]
        assert len(changes) == 1
        assert (made.prompts[0], made.prompts[-1]) == script.prompts
        closed = made.actions[: changes[0] + 1, 5] < 0.1
        assert closed.any() == (kind is scripts.Kind.CARRYING)
        assert np.isnan(made.cubes).all(axis=2).any(axis=1).all()  # never more than four of six

    def test_labels_say_where_the_cubes_lie(self, listening):
        script, made = self.first(listening, scripts.Kind.STEADY)
        world = World(cameras=("front",))
        world.reset(made.seed, variety=TRAINING, target=script.targets[0], names=script.names)
        wanted = locate(world, "front")
        world.close()
        for colour, label, first in zip(layout.NAMED, wanted, made.cubes[0], strict=True):
            once = colour in script.names and f"{colour}{layout.SECOND}" not in script.names
            assert np.isfinite(label).all() == once
            if once and colour != script.targets[0]:
                assert first == pytest.approx(label, abs=0.1)
                assert np.hypot(*label[2:]) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("place", ["crowded", "end"])
    def test_only_scenes_of_some_kinds_and_places(self, tmp_path, place):
        kinds = "changed before grasp,changed while carrying"
        chosen = options(tmp_path, 2, targets=",".join(layout.NAMED), kinds=kinds, places=place, size=(256, 128))
        assert record_expert.run(chosen) == 0
        made = [json.loads(line) for line in (tmp_path / lerobot_format.EXTRA).read_text().splitlines()]
        assert len(made) == 2
        for note in made:
            script = scripts.draw(note["seed"], layout.NAMED)
            assert note["kind"] == script.kind
            assert script.kind.value in kinds
            world = World(cameras=())
            world.reset(note["seed"], variety=TRAINING, target=script.targets[-1], names=script.names)
            cubes = world.truth().cubes
            at = {name: np.array([cube.x, cube.y]) for name, cube in cubes.items()}
            asked = set(script.targets) & set(at)
            world.close()
            if place == "crowded":
                assert min(np.linalg.norm(at[a] - at[b]) for a in asked for b in at if a != b) <= 0.10
            else:
                assert any(np.hypot(*at[a]) > 0.25 and abs(at[a][1]) > np.tan(np.radians(70)) * at[a][0] for a in asked)
        assert {episode.images["front"].shape[1:] for episode in lerobot_reader.load(tmp_path)} == {(128, 256, 3)}

    def test_a_dataset_keeps_prompts_and_labels(self, tmp_path, monkeypatch):
        monkeypatch.setenv("EVERGREEN_CACHE", str(tmp_path / "cache"))
        changing = next(
            seed for seed in range(100) if scripts.draw(seed, layout.NAMED).kind is scripts.Kind.BEFORE_GRASP
        )
        root = tmp_path / "data"
        for wanted in (1, 2):
            assert record_expert.run(options(root, wanted, seed=changing, targets=",".join(layout.NAMED))) == 0
        episodes = list(lerobot_reader.load(root, columns=("cubes",)))
        assert len(set(episodes[0].prompts)) == 2
        assert episodes[0].extra["kind"] == "changed before grasp"
        data = dataset.load([root], chunk_size=20)
        assert [data.texts[number] for number in data.prompts] == [
            prompt for episode in episodes for prompt in episode.prompts
        ]
        assert data.cubes.shape == (len(data), 6, 4)
        assert np.array_equal(data.cubes[:5].reshape(5, -1), episodes[0].columns["cubes"][:5], equal_nan=True)
        change = next(frame for frame in range(200) if data.prompts[frame] != data.prompts[0])
        assert data.told[:change].tolist() == np.minimum(change - np.arange(change), 20).tolist()
        end = len(episodes[0].prompts)
        assert (data.told[change:end] == 20).all()
        assert (data.since[:change] == dataset.UNCHANGED).all()
        assert data.since[change:end].tolist() == list(range(end - change))
        second = np.flatnonzero(np.diff(data.prompts[end:])) + 1  # of the next episode, whose prompt may change too
        assert (data.since[end : end + (second[0] if len(second) else len(data) - end)] == dataset.UNCHANGED).all()


@pytest.mark.parametrize(("free", "kept"), [(None, True), (100, True), (1 << 40, False)])
def test_pictures_come_into_memory_where_there_is_room(tmp_path, monkeypatch, free, kept):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3), dtype=np.uint8)
    states = np.zeros((3, 6), np.float32)
    dataset.write_shard(tmp_path, "a", [dataset.Episode(0, states, states, np.arange(3), pictures)])
    monkeypatch.setattr(dataset, "read_available_bytes", lambda: free)
    images = dataset.load([tmp_path], 2, into_memory=True).images
    assert isinstance(images._parts[0], np.memmap) == kept
    assert (images[np.array([2, 0])] == pictures[[2, 0]]).all()
