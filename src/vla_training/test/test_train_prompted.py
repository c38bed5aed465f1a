"""Training a policy that listens, on synthetic data."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_core.errors import ConfigError, ModelError
from vla_core.prompt_phrases import FILE_NAME, Phrases
from vla_policy.serving.prompt_encoder import ENCODER_FILE
from vla_sim.layout import NAMED
from vla_training import act, batches, dataset, eyes, learner, prompt_export, select, train
from vla_training.config import Phase, Selection, TrainConfig
from vla_training.phrases import known
from vla_training.shape import ActSettings

pytestmark = pytest.mark.train

DIM = 8


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The phrases of a prompt encoder with eight numbers; its network is not needed for training."""
    vectors = np.eye(DIM, dtype=np.float32)[: len(NAMED)]
    texts = tuple(known(target)[0] for target in NAMED)
    phrases = Phrases(texts, NAMED, vectors, dict(zip(NAMED, vectors, strict=True)), 0.5, 0.1, "0" * 64)
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / FILE_NAME).write_text(phrases.to_json(), encoding="utf-8")
    return folder


def config_for(folder: Path, encoder: Path, prompts: tuple[str, ...]) -> TrainConfig:
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(3):
        states = rng.uniform(-1, 1, (8, 6)).astype(np.float32)
        pictures = rng.integers(0, 256, (8, 32, 64, 3), dtype=np.uint8)
        cubes = np.full((8, len(NAMED), 4), np.nan, np.float32)
        cubes[:, 0] = (0.3, 0.6, 1.0, 0.0)
        episodes.append(dataset.Episode(seed, states, states, np.arange(8), pictures, prompts, cubes))
    dataset.write_shard(folder, "a", episodes)
    phase = Phase(steps=2, batch=2, checkpoint_every=1, warmup_steps=1)
    return TrainConfig(
        name="tiny", version="1.0.0", prompt=known("red")[0], target="red", data=(folder,), see_data=(folder,),
        seed=3, see=phase, end_to_end=phase, selection=Selection(episodes=0), prompt_encoder=encoder,
        policy=ActSettings(
            width=64, height=32, chunk_size=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1,
            prompt_dim=DIM,
        ),
    )  # fmt: skip


CHANGES = (*(known("red")[0],) * 5, *(known("blue")[1],) * 3)


def pointing_config(folder: Path, encoder: Path) -> TrainConfig:
    return replace(config_for(folder / "data", encoder, CHANGES), pointing=True)


def test_a_run_makes_a_checkpoint_that_takes_a_prompt(tmp_path, encoder):
    run = train.Run(config_for(tmp_path / "data", encoder, CHANGES), tmp_path / "run")
    run.see()
    policy, _ = act.load_checkpoint(run.best())
    seen = {"observation.images": [torch.rand(2, 3, 32, 64)], "observation.state": torch.rand(1, 6).repeat(2, 1)}
    seen["observation.images"][0][1] = seen["observation.images"][0][0]
    seen["observation.environment_state"] = torch.eye(DIM)[[0, 4]]
    with torch.inference_mode():
        chunks = policy.model(seen)[0]
    assert not torch.allclose(chunks[0], chunks[1])


def test_phase_b_goes_on_with_the_prompts_and_leaves_the_resnet_alone(tmp_path, encoder):
    config = config_for(tmp_path / "data", encoder, CHANGES)
    config = replace(config, head=replace(config.end_to_end, precision="bfloat16"), cached_pictures=10)
    checkpoint = train.Run(config, tmp_path / "run").best()
    assert checkpoint.name == "B-00002"
    after, before = (act.load_checkpoint(checkpoint.with_name(name))[0] for name in ("B-00002", "A-00002"))
    weights = [dict(policy.model.state_dict()) for policy in (after, before)]
    changed = {key for key, value in weights[0].items() if (value != weights[1][key]).any()}
    assert not any(key.startswith("backbone.") for key in changed)
    assert any(key.startswith("encoder_env_state_input_proj.") for key in changed)


def test_the_first_stages_of_the_resnet_can_stay_as_they_are(tmp_path, encoder):
    config = pointing_config(tmp_path, encoder)
    config = replace(config, refine=replace(config.end_to_end, frozen_stages=2))
    run = train.Run(config, tmp_path / "run")
    checkpoint = run.best()
    after, before = (act.load_checkpoint(checkpoint.with_name(name))[0] for name in ("R-00002", "A-00002"))
    weights = [dict(policy.model.backbone.state_dict()) for policy in (after, before)]
    changed = {key.partition(".")[0] for key, value in weights[0].items() if (value != weights[1][key]).any()}
    assert changed == {"layer3", "layer4"}
    assert all(parameter.requires_grad for parameter in run.policy.parameters())
    assert all(module.training for module in run.policy.modules())
    again = replace(config, refine=replace(config.refine, steps=3))
    assert train.Run(again, tmp_path / "run").best().name == "R-00003"
    thawed = replace(config, refine=replace(config.refine, steps=4, frozen_stages=0))
    with pytest.raises(ModelError, match="was frozen when this phase began"):
        train.Run(thawed, tmp_path / "run").best()


def test_a_phase_without_a_resnet_freezes_none_of_it(tmp_path, encoder):
    config = config_for(tmp_path / "data", encoder, CHANGES)
    with pytest.raises(ConfigError, match="hear and head freeze the ResNet"):
        replace(config, head=replace(config.end_to_end, frozen_stages=1))


def test_checkpoints_are_chosen_by_playing_what_they_are_asked(tmp_path, encoder):
    config = config_for(tmp_path / "data", encoder, CHANGES)
    checkpoint = train.Run(config, tmp_path / "run").best()
    score = select.play(checkpoint, replace(config, selection=Selection(episodes=13, limit_s=0.3)))
    assert (score.episodes, score.wrong) == (13, 0)
    assert score.successes <= 2  # 0.3 s are enough to rest, which is asked twice, and too short for anything else


def test_what_is_asked_when_choosing_is_known_and_every_target_is_asked_for():
    asked = select.rows()
    assert {row.targets[-1] for row in asked} == set(NAMED)
    assert all(text in known(target) for row in asked for text, target in zip(row.prompts, row.targets, strict=True))


def test_a_checkpoint_does_as_it_was_told_last(tmp_path, encoder):
    checkpoint = train.Run(config_for(tmp_path / "data", encoder, CHANGES), tmp_path / "run").best()
    told = select.Told(checkpoint, Phrases.load(encoder / FILE_NAME))
    picture, state = np.full((32, 64, 3), 99, np.uint8), np.zeros(6)
    answers = {}
    for target in ("red", "blue", "red"):
        assert told.prompt(known(target)[0]) == ""
        answers.setdefault(target, []).append(told(picture, state))
    assert (answers["red"][0] == answers["red"][1]).all()
    assert (answers["red"][0] != answers["blue"][0]).any()


class TestInstall:
    def test_an_encoder_goes_into_the_model_with_what_the_manifest_says_of_it(self, tmp_path):
        encoder, model = tmp_path / "encoder", tmp_path / "model"
        sha256 = self.make(encoder)
        model.mkdir()
        entry = prompt_export.install(encoder, model)
        assert (entry.sha256, entry.dim) == (sha256, DIM)
        assert Phrases.load(model / FILE_NAME).encoder_sha256 == sha256
        assert (model / ENCODER_FILE).read_bytes() == b"a graph"

    def test_phrases_of_another_encoder_are_refused(self, tmp_path):
        encoder = tmp_path / "encoder"
        self.make(encoder)
        (encoder / ENCODER_FILE).write_bytes(b"another graph")
        with pytest.raises(ModelError, match="make both again"):
            prompt_export.install(encoder, tmp_path)
        assert not (tmp_path / ENCODER_FILE).exists()

    def test_a_folder_without_an_encoder_is_named(self, tmp_path):
        encoder = tmp_path / "encoder"
        self.make(encoder)
        (encoder / ENCODER_FILE).unlink()
        with pytest.raises(ModelError, match=f"{encoder / ENCODER_FILE}"):
            prompt_export.install(encoder, tmp_path)

    @staticmethod
    def make(folder: Path) -> str:
        folder.mkdir()
        sha256 = hashlib.sha256(b"a graph").hexdigest()
        (folder / ENCODER_FILE).write_bytes(b"a graph")
        one = np.eye(DIM, dtype=np.float32)[:1]
        (folder / FILE_NAME).write_text(Phrases(("red",), ("red",), one, {"red": one[0]}, 0.5, 0.1, sha256).to_json())
        return sha256


def test_a_batch_holds_the_vector_of_what_its_prompt_asks_for(tmp_path, encoder):
    run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
    batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=64), 0)
    assert batch.prompts is not None
    assert batch.prompts.argmax(1).tolist() == batch.asked.tolist()
    own, told = batch.asked[:: batches.ASKED_AT_ONCE], batch.told[:: batches.ASKED_AT_ONCE]
    assert set(own.tolist()) == {NAMED.index("red"), NAMED.index("blue")}
    asks_red = own == NAMED.index("red")
    assert (told[asks_red] <= 4).all()
    assert (told[asks_red] < 4).any()  # the prompt changes within the chunk
    assert (told[~asks_red] == 4).all()


def test_without_pointing_a_demonstration_answers_its_own_prompt_alone(tmp_path, encoder):
    run = train.Run(config_for(tmp_path / "data", encoder, CHANGES), tmp_path / "run")
    batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=8), 0)
    assert len(batch.states) == len(batch.pictures) == 8


def test_a_demonstration_is_also_asked_about_cubes_that_it_does_not_fetch(tmp_path, encoder):
    run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
    batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=8), 0)
    others = batch.asked.view(8, batches.ASKED_AT_ONCE)[:, 1:]
    assert (others[:, 0] == 0).all(), "the only cube whose place is known"
    assert (others[:, 1] == batch.asked[:: batches.ASKED_AT_ONCE]).all(), "no other: its own once more"
    assert (batch.told.view(8, batches.ASKED_AT_ONCE)[:, 1:] == 0).all(), "no action answers them"
    assert len(batch.pictures) == 8
    assert len(batch.states) == len(batch.chunks) == 8 * batches.ASKED_AT_ONCE


def test_a_cube_beside_what_the_policy_sees_is_not_asked_about(tmp_path, encoder):
    run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
    cubes = run.data.cubes.copy()
    cubes[:, 0, 1] = 0.05  # above the middle that is kept
    data = replace(run.data, cubes=cubes)
    batch = run._batches(data, run.stats, 3).end_to_end(Phase(steps=1, batch=8), 0)
    assert (batch.asked.view(8, -1) == batch.asked.view(8, -1)[:, :1]).all()


class TestApproaches:
    @staticmethod
    def make(folder: Path, encoder: Path) -> tuple[train.Run, np.ndarray]:
        run = train.Run(config_for(folder / "data", encoder, CHANGES), folder / "run")
        chunks = np.zeros((len(run.data), 4, 6), np.float32)
        chunks[7, :2, -1] = 0.45
        chunks[9, :, -1] = 0.45  # stay open
        return run, chunks

    def test_a_share_of_a_batch_is_drawn_from_where_the_jaws_are_about_to_close(self, tmp_path, encoder):
        run, chunks = self.make(tmp_path, encoder)
        drawn = run._batches(replace(run.data, chunks=chunks), run.stats, 3)
        phase = Phase(steps=1, batch=8, approach_share=0.5, state_noise_rad=0.0)
        states = drawn.end_to_end(phase, 0).states
        assert torch.equal(states[:4], states[:1].expand(4, -1))
        assert not torch.equal(states[4:], states[:1].expand(4, -1))

    def test_what_closes_the_jaws_after_another_prompt_does_not_count(self, tmp_path, encoder):
        _, chunks = self.make(tmp_path, encoder)
        told = np.full(len(chunks), 4)
        assert np.flatnonzero(batches.about_to_close(chunks, told)).tolist() == [7]
        told[7] = 2
        assert not batches.about_to_close(chunks, told).any()

    def test_data_without_any_is_refused(self, tmp_path, encoder):
        run, chunks = self.make(tmp_path, encoder)
        drawn = run._batches(replace(run.data, chunks=chunks * 0), run.stats, 3)
        with pytest.raises(ConfigError, match="in no frame of the data"):
            drawn.end_to_end(Phase(steps=1, batch=8, approach_share=0.5), 0)

    def test_another_share_is_drawn_from_the_second_after_a_change_of_prompt(self, tmp_path, encoder):
        run, chunks = self.make(tmp_path, encoder)
        since = np.full(len(chunks), dataset.UNCHANGED)
        since[[4, 9]] = batches.CHANGED_FRAMES - 1, batches.CHANGED_FRAMES
        drawn = run._batches(replace(run.data, chunks=chunks, since=since), run.stats, 3)
        for approaches in (0.0, 0.25):
            phase = Phase(steps=1, batch=8, approach_share=approaches, change_share=0.5, state_noise_rad=0.0)
            index = drawn._drawn(phase, np.random.default_rng(0))
            first = round(8 * approaches)
            assert index[:first].tolist() == [7] * first
            assert index[first : first + 4].tolist() == [4] * 4
            assert len(set(index[first + 4 :].tolist())) > 1
        halves = Phase(steps=1, batch=5, approach_share=0.7, change_share=0.3)
        assert drawn._drawn(halves, np.random.default_rng(0)).tolist() == [7] * 4 + [4]
        steady = run._batches(replace(run.data, since=np.full(len(chunks), dataset.UNCHANGED)), run.stats, 3)
        with pytest.raises(ConfigError, match="in no demonstration of the data does the prompt change"):
            steady.end_to_end(Phase(steps=1, batch=8, change_share=0.5), 0)

    def test_shares_are_shares(self):
        for shares in ({"approach_share": 0.6, "change_share": 0.5}, {"change_share": -0.1}):
            with pytest.raises(ConfigError, match="together 1 at most"):
                Phase(steps=1, batch=8, **shares)

    def test_a_phase_that_draws_from_all_frames_takes_no_share(self, tmp_path, encoder):
        config = config_for(tmp_path / "data", encoder, CHANGES)
        with pytest.raises(ConfigError, match="the other phases draw from all"):
            replace(config, see=replace(config.see, approach_share=0.5))
        with pytest.raises(ConfigError, match="the other phases draw from all"):
            replace(config, see=replace(config.see, change_share=0.5))


def test_actions_after_a_change_of_prompt_teach_nothing(tmp_path, encoder):
    run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
    batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=2), 0)
    second = batches.ASKED_AT_ONCE  # the first one's other prompts come between
    batch = batch._replace(told=torch.tensor([1, 0, 0, 4, 0, 0]))
    policy = act.folded(run.policy)
    changed = batch.chunks.clone()
    changed[:second, 1:] += 100.0
    assert learner.loss_of(policy, batch) == learner.loss_of(policy, batch._replace(chunks=changed))
    changed[second, 3] += 100.0
    assert learner.loss_of(policy, batch) < learner.loss_of(policy, batch._replace(chunks=changed))


def test_a_sentence_that_nobody_knows_is_named(tmp_path, encoder):
    run = train.Run(config_for(tmp_path / "data", encoder, ("dance",) * 8), tmp_path / "run")
    with pytest.raises(ConfigError, match="'dance' is no known phrase"):
        run._batches(run.data, run.stats, 3)


def test_an_encoder_without_room_for_its_vector_is_refused(tmp_path, encoder):
    config = config_for(tmp_path / "data", encoder, CHANGES)
    with pytest.raises(ConfigError, match="go together"):
        replace(config, prompt_encoder=None)


def test_places_move_with_the_part_of_the_picture_that_is_kept():
    cubes = np.zeros((1, 3, 4), np.float32)
    cubes[0, :, :2] = [(0.25, 0.5), (0.5, 1 / 6), (0.5, 0.1)]
    found = batches.in_cropped(cubes, 192, 96)  # keeps two thirds of the height
    assert found[0, 0, :2] == pytest.approx([0.25, 0.5])
    assert found[0, 1, :2] == pytest.approx([0.5, 0.0], abs=1e-6)
    assert np.isnan(found[0, 2]).all()


class TestCubeHead:
    def test_it_learns_where_cubes_are_and_that_they_are_not(self):
        torch.manual_seed(0)
        features = torch.rand(8, 160, 3, 6)  # more channels than cells: a head without layers can tell all apart
        labels = torch.full((8, 2, 4), float("nan"))
        labels[:, 0] = torch.rand(8, 4)
        head = eyes.CubeHead(160, 2)
        optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
        before = eyes.misses(head(features), labels, 192, 96).mean()
        for _ in range(300):
            optimiser.zero_grad()
            loss = eyes.cube_loss(head(features), labels)
            loss.backward()
            optimiser.step()
        said = head(features)
        assert eyes.misses(said, labels, 192, 96).mean() < before / 4
        assert (said[:, 1, 0] < 0).all()  # the second colour is nowhere

    def test_a_picture_without_cubes_has_a_loss_too(self):
        said = torch.zeros(2, 6, 5, 3, 6, requires_grad=True)
        loss = eyes.cube_loss(said, torch.full((2, 6, 4), float("nan")))
        loss.backward()
        assert torch.isfinite(loss)


class TestPointer:
    LABELS = torch.tensor([[[0.5, 0.25, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]], [[torch.nan] * 4, [0.5, 0.5, 1.0, 0.0]]])
    ASKED = torch.tensor([0, 1, 1, 0])

    def test_it_must_tell_the_place_in_cells_and_the_turn_of_what_is_asked_for(self):
        said = torch.tensor([[3.0, 1.0, 1.0, 0.0], [0.0, 4.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0], [9.0] * 4])
        assert eyes.pointing_loss(said, self.LABELS, self.ASKED, (4, 6)) == 0.0, "nobody knows where the last one is"
        said[0, 0] += 0.6
        assert eyes.pointing_loss(said, self.LABELS, self.ASKED, (4, 6)) == pytest.approx(0.1)
        said[1, 3] -= 1.2
        assert eyes.pointing_loss(said, self.LABELS, self.ASKED, (4, 6)) == pytest.approx(0.3)

    def test_nothing_to_point_at_is_no_loss(self):
        said = torch.ones(2, 4, requires_grad=True)
        loss = eyes.pointing_loss(said, self.LABELS[1:], torch.tensor([0, 0]), (4, 6))
        loss.backward()
        assert loss == 0.0
        assert torch.isfinite(said.grad).all()

    def test_the_loss_reaches_the_transformer_and_what_it_is_told(self, tmp_path, encoder):
        run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
        batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=8), 0)
        sum(run._learner.losses(batch._replace(told=torch.zeros_like(batch.told))).values()).backward()
        for part in (run.policy.model.encoder_env_state_input_proj, run.policy.model.encoder.layers[0].linear1):
            assert part.weight.grad.abs().max() > 0

    def test_it_is_the_prompts_token_that_points(self, tmp_path, encoder):
        run = train.Run(pointing_config(tmp_path, encoder), tmp_path / "run")
        batch = run._batches(run.data, run.stats, 3).end_to_end(Phase(steps=1, batch=8), 0)
        tokens, prompts = [], []
        run.policy.model.encoder.register_forward_pre_hook(lambda _module, inputs: tokens.append(inputs[0]))
        run.policy.model.encoder_env_state_input_proj.register_forward_hook(
            lambda _module, _inputs, output: prompts.append(output)
        )
        assert list(run._learner.losses(batch)) == ["imitation", "cubes", "pointing"]
        assert torch.equal(tokens[0][eyes.PROMPT_TOKEN], prompts[0])

    def test_the_log_has_every_loss(self, tmp_path, encoder):
        run = train.Run(replace(pointing_config(tmp_path, encoder), see=None), tmp_path / "run")
        run.best()
        (line,) = map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
        parts = [line[f"{name}_loss"] for name in ("imitation", "cubes", "pointing")]
        assert min(parts) > 0
        assert line["loss"] == pytest.approx(sum(parts), abs=1e-5)

    def test_it_needs_prompts(self, tmp_path, encoder):
        config = config_for(tmp_path / "data", encoder, CHANGES)
        with pytest.raises(ConfigError, match="pointing is for a policy with a prompt_encoder"):
            replace(config, prompt_encoder=None, policy=replace(config.policy, prompt_dim=0), pointing=True)


class TestSeveralPromptsAPicture:
    @staticmethod
    def make(folder: Path, encoder: Path) -> tuple[train.Run, batches.Batches, dataset.Dataset]:
        rng = np.random.default_rng(1)
        episodes = []
        for seed in range(6):
            goals = rng.uniform(-1, 1, (1, len(NAMED), 6)).astype(np.float32)
            goals[0, [1, 3, *range(4, 4 + seed % 3)]] = np.nan
            picture = rng.integers(0, 256, (1, 32, 64, 3), dtype=np.uint8)
            cubes = np.full((1, len(NAMED), 4), 0.5, np.float32)
            prompts = (known(NAMED[0])[0],)
            state = np.full((1, 6), seed / 10, np.float32)
            episodes.append(
                dataset.Episode(seed, state, goals[:, 0], np.zeros(1, np.int64), picture, prompts, cubes, goals)
            )
        dataset.write_shard(folder, "a", episodes)
        data = dataset.load([folder], 4)
        run = train.Run(config_for(folder.parent / "other", encoder, CHANGES), folder.parent / "run")
        stats = batches.compute_stats(data, run.config.policy.image_key)
        vectors = train.prompt_vectors(data.texts, encoder)
        return run, batches.Batches(data, stats, run.config.policy.image_key, 5, vectors), data

    def test_each_answer_is_of_the_colour_that_its_prompt_asks_for(self, tmp_path, encoder):
        run, drawn, data = self.make(tmp_path / "data", encoder)
        stats = batches.compute_stats(data, run.config.policy.image_key)["action"]
        batch = drawn.end_to_end(Phase(steps=1, batch=16, state_noise_rad=0.0), 0)
        assert len(batch.pictures) == 16
        assert len(batch.states) == len(batch.chunks) == len(batch.prompts) == 16 * batches.ASKED_AT_ONCE
        answers = (batch.chunks * stats["std"] + stats["mean"]).numpy()
        asked = batch.prompts.argmax(1).numpy()  # the encoder's vectors are those of a unit matrix
        scenes = [
            next(i for i in range(len(data)) if np.isclose(data.goals[i, colour], answer[0], atol=1e-5).all())
            for colour, answer in zip(asked, answers, strict=True)
        ]
        for first in range(0, len(scenes), batches.ASKED_AT_ONCE):
            assert len(set(scenes[first : first + batches.ASKED_AT_ONCE])) == 1, "of one picture"
            assert len(set(asked[first : first + batches.ASKED_AT_ONCE])) > 1
        assert (answers == answers[:, :1]).all()

    def test_phase_h_begins_a_new_transformer_and_keeps_the_resnet(self, tmp_path, encoder):
        self.make(tmp_path / "scenes", encoder)
        config = config_for(tmp_path / "data", encoder, CHANGES)
        phase = replace(config.end_to_end, learning_rate=1e-9)  # what begins anew shows; what is learnt does not
        far = replace(config.end_to_end, learning_rate=3e-3)
        config = replace(config, end_to_end=far, see_data=(tmp_path / "scenes",), hear=phase, head=phase, finish=phase)
        checkpoint = train.Run(config, tmp_path / "trained").best()
        assert checkpoint.name == "F-00002"
        last, after, before = (act.load_checkpoint(checkpoint.with_name(f"{phase}-00002"))[0].model for phase in "FBA")
        ends = ((value, last.state_dict()[key]) for key, value in after.state_dict().items() if "running" not in key)
        assert all(torch.allclose(*pair, rtol=2e-3, atol=1e-4) for pair in ends), "phase F goes on from phase B"
        moved = {
            key: float((value - before.state_dict()[key]).abs().max()) for key, value in after.state_dict().items()
        }
        assert max(far for key, far in moved.items() if key.startswith("backbone.")) == 0.0
        assert moved["action_head.weight"] > 0.002, "as it was before phase A"
        phases = [json.loads(line)["phase"] for line in (tmp_path / "trained/log.jsonl").read_text().splitlines()]
        assert phases == ["A", "H", "B", "F"]

    def test_phase_h_alone_is_refused(self, tmp_path, encoder):
        config = config_for(tmp_path / "data", encoder, CHANGES)
        with pytest.raises(ConfigError, match="hear prepares phase head"):
            replace(config, hear=config.end_to_end)

    def test_looking_once_is_as_good_as_looking_for_each(self, tmp_path, encoder):
        run, drawn, _ = self.make(tmp_path / "data", encoder)
        looking = learner.Learner(act.build(run.config.policy)).eval()
        batch = drawn.end_to_end(Phase(steps=1, batch=3), 0)
        alone = batch._replace(pictures=batch.pictures.repeat_interleave(batches.ASKED_AT_ONCE, 0), cubes=None)
        with torch.inference_mode():
            once, each = (looking.losses(given) for given in (batch._replace(cubes=None), alone))
            assert once["imitation"].item() == pytest.approx(each["imitation"].item(), rel=1e-5)
            assert once.keys() == each.keys() == {"imitation"}
