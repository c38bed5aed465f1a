"""Building, folding and storing the ACT policy."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from vla_core.errors import ConfigError, ModelError
from vla_training import act
from vla_training.onnx_policy import ACTION, IMAGES, STATE

pytestmark = pytest.mark.train

TINY = act.ActSettings(
    width=64, height=32, chunk_size=4, dim_model=32, n_heads=2, dim_feedforward=32, n_encoder_layers=1
)


def stats():
    image = {"mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2)}
    joints = {"mean": torch.linspace(-0.5, 0.5, 6), "std": torch.linspace(0.1, 0.6, 6)}
    return {TINY.image_key: image, STATE: joints, ACTION: joints}


def batch(count=3):
    maker = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, TINY.height, TINY.width, generator=maker)
    return {IMAGES: [images], STATE: torch.randn(count, TINY.dof, generator=maker)}


@pytest.fixture
def trained():
    """A policy whose batch normalisation has seen something."""
    torch.manual_seed(0)
    policy = act.build(TINY)
    policy.train()
    with torch.no_grad():
        for _ in range(3):
            policy.model(batch(8))
    return policy


def test_training_uses_real_batch_normalisation(trained):
    kinds = [type(module) for module in trained.modules()]
    assert nn.BatchNorm2d in kinds
    assert FrozenBatchNorm2d not in kinds


def test_folding_changes_no_output(trained):
    stock = act.folded(trained)
    trained.eval()
    with torch.no_grad():
        difference = (trained.model(batch())[0] - stock.model(batch())[0]).abs().max()
    assert float(difference) < 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in stock.modules())


def test_thawing_and_folding_in_place_are_inverse(trained):
    stock = act.folded(trained)
    with torch.no_grad():
        before = stock.model(batch())[0]
        act.thaw_batchnorm(stock)
        act.fold_batchnorm(stock)
        stock.eval()
        assert torch.allclose(before, stock.model(batch())[0], atol=1e-6)


def test_checkpoint_loads_into_stock_lerobot(trained, tmp_path: Path):
    act.save_checkpoint(act.folded(trained), stats(), tmp_path)
    ours, _ = act.load_checkpoint(tmp_path)
    theirs = ACTPolicy.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(ours.model(batch())[0], theirs.model(batch())[0])
    assert (tmp_path / act.WEIGHTS_FILE).stat().st_mode & 0o777 == 0o644


def test_half_storage_halves_the_file_and_keeps_the_output(trained, tmp_path: Path):
    stock = act.folded(trained)
    sizes = {}
    for half in (False, True):
        act.save_checkpoint(stock, stats(), tmp_path / str(half), half=half)
        sizes[half] = (tmp_path / str(half) / act.WEIGHTS_FILE).stat().st_size
    assert sizes[True] < 0.55 * sizes[False]
    stored, _ = act.load_checkpoint(tmp_path / "True")
    with torch.no_grad():
        difference = (stored.model(batch())[0] - stock.model(batch())[0]).abs().max()
    assert float(difference) < 0.02


def test_statistics_survive_the_processors(trained, tmp_path: Path):
    act.save_checkpoint(act.folded(trained), stats(), tmp_path)
    _, processors = act.load_checkpoint(tmp_path)
    found = act.stats_of(processors, TINY.image_key)
    for feature, values in stats().items():
        for kind, value in values.items():
            assert torch.allclose(found[feature][kind].flatten(), value.flatten())


def test_unfolded_policy_is_refused(trained, tmp_path: Path):
    with pytest.raises(ModelError, match="folded"):
        act.save_checkpoint(trained, stats(), tmp_path)


def test_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="no LeRobot checkpoint"):
        act.load_checkpoint(tmp_path)


@pytest.mark.parametrize("wrong", [{"width": 100}, {"dim_model": 30, "n_heads": 4}, {"chunk_size": 0}])
def test_impossible_shapes_are_refused(wrong):
    with pytest.raises(ConfigError):
        act.ActSettings(**wrong)


class TestWarmStart:
    def test_a_policy_begins_with_what_another_knows(self, trained, tmp_path):
        act.save_checkpoint(act.folded(trained), stats(), tmp_path, half=False)
        torch.manual_seed(9)
        policy = act.build(TINY)
        act.warm_start(policy, tmp_path)
        with torch.no_grad():
            assert torch.equal(policy.eval().model(batch())[0], trained.eval().model(batch())[0])

    def test_what_is_new_keeps_its_own_weights(self, trained, tmp_path):
        act.save_checkpoint(act.folded(trained), stats(), tmp_path, half=False)
        policy = act.build(replace(TINY, prompt_dim=8))
        positions = policy.model.encoder_1d_feature_pos_embed.weight
        projection = policy.model.encoder_env_state_input_proj.weight
        before = positions.detach().clone(), projection.detach().clone()
        act.warm_start(policy, tmp_path)
        known = len(trained.model.encoder_1d_feature_pos_embed.weight)
        assert len(positions) == known + 1
        assert torch.equal(positions[:known], trained.model.encoder_1d_feature_pos_embed.weight)
        assert torch.equal(positions[known:], before[0][known:])
        assert torch.equal(projection, before[1])

    def test_another_network_is_refused(self, trained, tmp_path):
        act.save_checkpoint(act.folded(trained), stats(), tmp_path)
        with pytest.raises(ModelError, match="of another network"):
            act.warm_start(act.build(replace(TINY, dim_model=64)), tmp_path)

    def test_a_folder_without_weights_is_named(self, tmp_path):
        with pytest.raises(ModelError, match=f"{tmp_path}.*cannot be read"):
            act.warm_start(act.build(TINY), tmp_path)
