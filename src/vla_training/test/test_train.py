"""Configuration, schedule and the training loop on synthetic data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, StoreBusy
from vla_core.store import locks
from vla_training import act, dataset, optimise, program, train
from vla_training.config import Phase, Selection, TrainConfig, load_config
from vla_training.shape import ActSettings

pytestmark = pytest.mark.train


def test_learning_rate_warms_up_stays_and_falls():
    phase = Phase(steps=1000, batch=2, learning_rate=1.0, warmup_steps=10, constant=0.5)
    assert optimise.learning_rate(phase, 0) == pytest.approx(0.1)
    assert optimise.learning_rate(phase, 400) == 1.0
    assert optimise.learning_rate(phase, 750) == pytest.approx(0.5, abs=0.01)
    assert optimise.learning_rate(phase, 999) < 1e-4


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[1, 2]", "keys"),
        ("speed: 3", "speed"),
        ("end_to_end: {steps: 1, batch: 2, colour: 3}", "colour"),
        ("end_to_end: {steps: 0, batch: 2}", "steps"),
        ("end_to_end: {steps: 1, batch: 2, frozen_stages: 5}", "has 4 stages"),
        ("end_to_end: {steps: 1, batch: 2, precision: half}", "half"),
        ("data: a", "list of folders"),
        ("like: c.yaml", "itself"),
        ("like: other.yaml", "other.yaml: cannot be read"),
        (
            "{name: x, version: v, prompt: p, target: t, end_to_end: {steps: 1, batch: 2}, head: {steps: 1, batch: 2}}",
            "must name folders",
        ),
        ("selection: {first_seed: 5}", "between seeds"),
        ("seed: 3", "end_to_end"),
        ("{", "YAML"),
    ],
)
def test_configuration_mistakes_are_named(tmp_path, text, word):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=word) as caught:
        load_config(path)
    assert str(path.parent) in str(caught.value)


def tiny_config(folder: Path) -> TrainConfig:
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(3):
        states = rng.uniform(-1, 1, (8, 6)).astype(np.float32)
        pictures = rng.integers(0, 256, (8, 32, 64, 3), dtype=np.uint8)
        episodes.append(dataset.Episode(seed, states, states, np.arange(8), pictures))
    dataset.write_shard(folder, "a", episodes)
    phase = Phase(steps=2, batch=2, checkpoint_every=1, warmup_steps=1)
    return TrainConfig(
        name="tiny", version="1.0.0", prompt="", target="black", data=(folder,), see_data=(folder,),
        seed=3, see=phase, selection=Selection(episodes=1, limit_s=0.5),
        end_to_end=phase, head=replace(phase, steps=4, checkpoint_every=2, averaging=0.9), open_loop_s=0.3,
        policy=ActSettings(
            width=64, height=32, chunk_size=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1
        ),
    )  # fmt: skip


def test_a_run_ends_in_a_model_with_a_manifest(tmp_path):
    folder = train.train(tiny_config(tmp_path / "data"), tmp_path / "run", {"config": "tiny"})
    about = manifests.load(folder)
    manifests.verify(folder, about)
    assert about.provenance["episodes"] == 3
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["S", "A", "B"]
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_phase_r_goes_on_from_phase_a_and_is_the_one_that_is_chosen_from(tmp_path):
    config = replace(tiny_config(tmp_path / "data"), head=None)
    config = replace(config, refine=config.end_to_end, selection=Selection(episodes=0))
    folder = train.train(config, tmp_path / "run", {})
    assert folder.name.startswith("R-")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["S", "A", "R"]
    ended = load_file(tmp_path / "run/A.state.safetensors")["module.model.action_head.weight"]
    refined = load_file(tmp_path / "run/R.state.safetensors")["module.model.action_head.weight"]
    assert 0 < (ended - refined).abs().max() < 0.01  # AdamW moves a weight by its rate a step: not a new start


def test_a_model_that_began_with_anothers_weights_says_whose(tmp_path):
    config = replace(tiny_config(tmp_path / "data"), see=None, head=None, selection=Selection(episodes=0))
    first = train.train(config, tmp_path / "first", {})
    assert "start_sha256" not in manifests.load(first).provenance
    second = train.train(replace(config, start=first, seed=4), tmp_path / "second", {})
    weights = manifests.sha256_file(first / act.WEIGHTS_FILE)
    assert manifests.load(second).provenance["start_sha256"] == weights
    ended, begun = (load_file(folder / act.WEIGHTS_FILE)["model.action_head.weight"] for folder in (second, first))
    assert 0 < (ended.float() - begun.float()).abs().max() < 0.01  # not a new start


def test_without_phase_b_a_late_checkpoint_of_phase_a_is_the_result(tmp_path):
    config = replace(tiny_config(tmp_path / "data"), head=None)
    config = replace(config, end_to_end=replace(config.end_to_end, steps=3, checkpoint_every=1))
    folder = train.train(replace(config, selection=replace(config.selection, after=0.6)), tmp_path / "run", {})
    assert folder.name == "A-00003"
    scored = sorted(path.name for path in folder.parent.glob("*.score.json"))
    assert scored == ["A-00002.score.json", "A-00003.score.json"]


def test_a_finished_run_is_not_trained_or_scored_again(tmp_path, monkeypatch):
    config = tiny_config(tmp_path / "data")
    first = train.train(config, tmp_path / "run", {})
    log = (tmp_path / "run" / "log.jsonl").read_text()
    monkeypatch.setattr(train, "play", lambda *_: pytest.fail("scored again"))
    assert train.train(config, tmp_path / "run", {}) == first
    assert (tmp_path / "run" / "log.jsonl").read_text() == log


def trainer(folder: Path, steps: int) -> optimise.Trainer:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 1))
    module.to(memory_format=torch.channels_last)  # as the policies that are trained

    def batch(step):
        rng = optimise.generator(7, 0, step)
        points = torch.from_numpy(rng.normal(size=(4, 3, 3, 3)).astype(np.float32))
        return optimise.Batch(points, points, points.sum((1, 2, 3))[:, None] / 5)

    return optimise.Trainer(
        "T",
        module,
        Phase(steps=steps, batch=4, averaging=0.9, checkpoint_every=5, learning_rate=0.05),
        loss_of=lambda batch: {"error": (module(batch.pictures) - batch.chunks).abs().mean()},
        batch_of=batch,
        folder=folder,
    )


def test_an_interrupted_run_continues_as_if_it_had_not_been(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    assert list(trainer(whole, 20).run()) == [5, 10, 15, 20]
    steps = trainer(cut, 20).run()
    assert [next(steps), next(steps)] == [5, 10]
    steps.close()
    resumed = trainer(cut, 20)
    assert resumed.restore()
    assert list(resumed.run()) == [15, 20]
    name = "T.state.safetensors"
    first, second = load_file(whole / name), load_file(cut / name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_reduces_the_loss(tmp_path):
    runner = trainer(tmp_path, 200)
    list(runner.run())
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.2 * losses[0]


def test_average_is_no_heavier_on_its_start():
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = optimise.Average(module, 0.999)
    nn.init.ones_(module.weight)
    for _ in range(200):
        average.update(module)
    assert float(average.values["weight"]) == pytest.approx(1.0, abs=0.01)


def test_the_output_folder_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to("disk")
    config = replace(tiny_config(tmp_path / "data"), head=None, see=None, selection=Selection(episodes=0))
    assert train.train(config, tmp_path / "run", {}).is_dir()


def test_two_runs_do_not_share_a_folder(tmp_path):
    with locks.folder(tmp_path, shared=False), pytest.raises(StoreBusy, match="is in use"):
        train.train(tiny_config(tmp_path / "data"), tmp_path, {})


def test_missing_data_is_one_line(tmp_path):
    config = replace(tiny_config(tmp_path / "data"), data=(tmp_path / "none",))
    with pytest.raises(ConfigError, match=r"none holds no data"):
        train.train(config, tmp_path / "run", {})


def test_shipped_configurations_are_sound():
    paths = list(program.SHIPPED.glob("*.yaml"))
    assert paths
    for path in paths:
        assert load_config(path).policy.image_key == "observation.images.front"
        assert program.find_config(path.stem) == path


def test_without_prompts_and_shares_a_batch_is_what_the_seed_says(tmp_path):
    """The shipped models of one cube can be made again only as long as this stays so."""
    run = train.Run(tiny_config(tmp_path / "data"), tmp_path / "run")
    batch = run._batches(run.data, run.stats, 5).end_to_end(Phase(steps=1, batch=4, state_noise_rad=0.0), 7)
    index = np.random.default_rng([5, 0, 7]).integers(0, len(run.data), 4)
    states, stats = torch.from_numpy(run.data.states[index]), run.stats["observation.state"]
    assert torch.equal(batch.states, (states - stats["mean"]) / stats["std"])
    assert batch.prompts is batch.cubes is batch.asked is None
