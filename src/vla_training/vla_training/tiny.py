"""Tiny checkpoints of LeRobot's policy types, with random weights, built without a network.

They are what LeRobot itself saves, so that the torch backend, the exporter and the benchmark can be tried on every type
in seconds. Those with a vision-language model bring its folder: see `vla_training.tiny_backbones`.

    python -m vla_training.tiny smolvla /tmp/smolvla
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before LeRobot is imported: nothing here may ask a hub

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies import get_policy_class, make_policy_config, make_pre_post_processors

from vla_core import manifest as manifests
from vla_core.checkpoint import CONFIG_FILE, inspect
from vla_core.joints import SO101_JOINTS
from vla_training.onnx_policy import ACTION, IMAGES, STATE
from vla_training.tiny_backbones import CLIP_FOLDER, VLM_FOLDER, VOCABULARY, write_clip, write_tokenizer, write_vlm

WIDTH = HEIGHT = 64
DOF = len(SO101_JOINTS)
RATE_HZ = 10.0
ACTION_SPREAD = 0.05
"""Of an action, in the checkpoint's units: small enough that an arm hardly moves for a random policy in rad."""
CENTRE = (0.1, -0.2, 0.3, -0.4, 0.5, 0.6)
"""Mean of states and actions: each joint its own, so that a swapped column shows."""

_RESNET: Mapping[str, Any] = {"pretrained_backbone_weights": None}
_FLOW: Mapping[str, Any] = {"chunk_size": 10, "n_action_steps": 10, "max_state_dim": 8, "max_action_dim": 8}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "act": {
        **_RESNET, "chunk_size": 20, "n_action_steps": 20, "dim_model": 32, "n_heads": 2, "dim_feedforward": 32,
        "n_encoder_layers": 1, "n_decoder_layers": 1, "use_vae": False,
    },
    "diffusion": {
        **_RESNET, "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "down_dims": (16, 32), "n_groups": 4,
        "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 4, "num_train_timesteps": 10,
        "num_inference_steps": 3,
    },
    "vqbet": {
        **_RESNET, "n_obs_steps": 3, "n_action_pred_token": 2, "action_chunk_size": 5, "crop_shape": None,
        "spatial_softmax_num_keypoints": 4, "vqvae_n_embed": 4, "vqvae_embedding_dim": 8, "vqvae_enc_hidden_dim": 8,
        "gpt_block_size": 32, "gpt_input_dim": 16, "gpt_output_dim": 16, "gpt_n_layer": 1, "gpt_n_head": 2,
        "gpt_hidden_dim": 16,
    },
    "tdmpc": {
        "horizon": 5, "latent_dim": 8, "mlp_dim": 16, "image_encoder_hidden_dim": 4, "state_encoder_hidden_dim": 8,
        "n_gaussian_samples": 16, "n_pi_samples": 4, "n_elites": 4, "cem_iterations": 2, "q_ensemble_size": 2,
    },
    "smolvla": {
        **_FLOW, "resize_imgs_with_padding": (32, 32), "num_steps": 3, "load_vlm_weights": False, "num_vlm_layers": 2,
        "expert_width_multiplier": 0.5, "tokenizer_max_length": 64,
    },
    "xvla": {
        "chunk_size": 10, "n_action_steps": 10, "action_mode": "auto", "max_state_dim": 8, "max_action_dim": 8,
        "hidden_size": 32, "depth": 1, "num_heads": 2, "num_domains": 2, "len_soft_prompts": 2, "dim_time": 8,
        "max_len_seq": 256, "num_denoising_steps": 3, "tokenizer_max_length": 64,
        "florence_config": {
            "vision_config": {
                "depths": [1], "patch_size": [16], "patch_stride": [16], "patch_padding": [0], "patch_prenorm": [False],
                "embed_dim": [16], "num_heads": [2], "num_groups": [2], "window_size": 4, "projection_dim": 16,
            },
            "text_config": {
                "vocab_size": VOCABULARY, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 0,
                "eos_token_id": 0, "decoder_start_token_id": 0, "forced_eos_token_id": None,
            },
            "pad_token_id": 0, "image_token_id": VOCABULARY - 1,
        },
        "normalization_mapping": {
            "VISUAL": NormalizationMode.IDENTITY, "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        },
    },
    "multi_task_dit": {
        "n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "num_train_timesteps": 10, "num_inference_steps": 3,
        "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "timestep_embed_dim": 16, "image_crop_shape": None,
    },
}  # fmt: skip
"""Policy type to what is smaller than LeRobot's own."""

FRONT = f"{IMAGES}.front"
ONLY_PICTURE: Mapping[str, str] = {"tdmpc": "observation.image"}
"""LeRobot's TDMPC finds its picture under no other name."""
BACKBONES: Mapping[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "smolvla": (write_vlm, VLM_FOLDER, ("vlm_model_name",)),
    "xvla": (write_tokenizer, VLM_FOLDER, ("tokenizer_name",)),
    "multi_task_dit": (write_clip, CLIP_FOLDER, ("vision_encoder_name", "text_encoder_name")),
}
"""Policy type to what writes the folder that it looks at beside its weights, that folder, and who names it."""


def build(
    kind: str,
    folder: Path,
    *,
    pictures: Sequence[str] = (),
    more_inputs: Mapping[str, PolicyFeature] = MappingProxyType({}),
    seed: int = 0,
    make: Callable[..., Any] = make_policy_config,
    **settings: Any,
) -> Path:
    """Write a checkpoint of type `kind` into `folder`, exactly as LeRobot saves one.

    Args:
        kind: one of SETTINGS, or a plugin's with all its `settings`.
        folder: is made where it is missing.
        pictures: image features that it sees; one in front where none are given.
        more_inputs: what else it looks at, unnormalised.
        seed: of the weights.
        make: gives the configuration of a type.
        settings: replace those of SETTINGS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = dict(SETTINGS.get(kind, {})) | settings
    if kind in BACKBONES:
        write, name, keys_of_it = BACKBONES[kind]
        write(folder / name)
        own |= dict.fromkeys(keys_of_it, str(folder / name))
    keys = pictures or (ONLY_PICTURE.get(kind, FRONT),)
    seen = features(keys)
    seen["input_features"] |= more_inputs
    config = make(kind, **own, **seen)
    torch.manual_seed(seed)
    policy = get_policy_class(kind)(config)
    _stir(policy)
    policy.eval()
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=stats(keys)):
        processor.save_pretrained(folder)
    _make_relative(folder)
    return folder


def features(pictures: Sequence[str]) -> dict[str, Any]:
    """What a policy for this arm sees and does, and where it runs."""
    return {
        "input_features": {
            **{key: PolicyFeature(FeatureType.VISUAL, (3, HEIGHT, WIDTH)) for key in pictures},
            STATE: PolicyFeature(FeatureType.STATE, (DOF,)),
        },
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (DOF,))},
        "device": "cpu",
        "push_to_hub": False,
    }


def stats(pictures: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    """What a data set of such pictures and joints would say."""
    centre = torch.tensor(CENTRE)
    joints = {
        "mean": centre,
        "std": torch.full((DOF,), ACTION_SPREAD),
        **dict.fromkeys(("min", "q01"), centre - ACTION_SPREAD),
        **dict.fromkeys(("max", "q99"), centre + ACTION_SPREAD),
    }
    picture = {
        "mean": torch.full((3, 1, 1), 0.4),
        "std": torch.full((3, 1, 1), 0.2),
        **dict.fromkeys(("min", "q01"), torch.zeros(3, 1, 1)),
        **dict.fromkeys(("max", "q99"), torch.ones(3, 1, 1)),
    }
    return {**dict.fromkeys(pictures, picture), STATE: joints, ACTION: joints}


def describe(folder: Path, *, cameras: Mapping[str, str] | None = None, **changes: Any) -> manifests.Manifest:
    """Write a manifest for the torch backend beside a tiny checkpoint.

    Args:
        folder: the checkpoint.
        cameras: robot's camera to the checkpoint's feature; LeRobot's own names where it is not given.
        changes: replace fields of the manifest.
    """
    info = inspect(folder)
    named = cameras or {
        "front" if key in ONLY_PICTURE.values() else name: key for key, name in info.camera_names.items()
    }
    fields: dict[str, Any] = {
        "name": f"tiny-{info.policy_type}",
        "version": "1",
        "policy_type": info.policy_type,
        "backend": "torch",
        "joint_names": SO101_JOINTS,
        "cameras": {name: info.cameras[key] for name, key in named.items()},
        "camera_keys": {name: key for name, key in named.items() if key != f"{IMAGES}.{name}"},
        "rate_hz": RATE_HZ,
        "chunk_size": info.chunk_size,
        "open_loop_s": min(0.5, info.chunk_size / RATE_HZ),
        "n_obs_steps": info.n_obs_steps,
        "observation_period_s": 1.0 / RATE_HZ,
        "prompt": "put the black cube on the spot",
        "files": manifests.list_files(folder),
    }
    made = manifests.Manifest(**(fields | changes))
    manifests.write(folder, made)
    return made


def _stir(policy: Any) -> None:
    """Wake what is as good as nothing: a policy that ignores its inputs would prove nothing.

    Last layers start at zero (TDMPC), and transformers with weights so small (0.02 in VQ-BeT) that with one layer the
    past moves an action by a millionth.
    """
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            starts_at_zero = parameter.numel() > 1 and not parameter.any()
            if starts_at_zero or (name.startswith("vqbet.policy.") and parameter.ndim > 1):
                parameter.normal_(std=0.2)


def _make_relative(folder: Path) -> None:
    """Name backbones' folders relative to the checkpoint, so that both can move."""
    for path in (*folder.glob("policy_*.json"), folder / CONFIG_FILE):
        text = path.read_text(encoding="utf-8")
        for name in (VLM_FOLDER, CLIP_FOLDER):
            text = text.replace(json.dumps(str(folder / name)), json.dumps(name))
        path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one tiny model."""
    parser = argparse.ArgumentParser(prog="python -m vla_training.tiny", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=sorted(SETTINGS), help="LeRobot's type")
    parser.add_argument("folder", type=Path, help="where to write it")
    options = parser.parse_args(arguments)
    describe(build(options.kind, options.folder))
    print(options.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
