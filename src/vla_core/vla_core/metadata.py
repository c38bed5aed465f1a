"""What a policy server tells its clients when they connect."""

from __future__ import annotations

from typing import Any

from vla_core.manifest import Manifest
from vla_core.observation import IMAGE_KEY, PROMPT_KEY, STATE_KEY
from vla_core.pipeline import PIPELINE_ID

DEAF = frozenset({"act", "diffusion", "tdmpc", "vqbet"})
"""LeRobot's policies that read no text: only a prompt encoder before them makes them listen."""


def describe(manifest: Manifest) -> dict[str, Any]:
    """Metadata of a model with a manifest: what it is, what it wants under which key, what it answers."""
    observation: dict[str, Any] = {
        IMAGE_KEY + name: {"shape": [size.height, size.width, 3], "dtype": "uint8", "content": "RGB"}
        for name, size in manifest.cameras.items()
    }
    observation[STATE_KEY] = {"shape": [manifest.dof], "dtype": "float32", "unit": "rad"}
    observation[PROMPT_KEY] = {"dtype": "str"}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "policy_type": manifest.policy_type,
        "backend": manifest.backend,
        "joint_names": list(manifest.joint_names),
        "units": "rad",
        "cameras": {name: {"width": size.width, "height": size.height} for name, size in manifest.cameras.items()},
        "rate_hz": manifest.rate_hz,
        "chunk_size": manifest.chunk_size,
        "open_loop_s": manifest.open_loop_s,
        "n_obs_steps": manifest.n_obs_steps,
        "observation_period_s": manifest.observation_period_s,
        "image_pipeline": manifest.image_pipeline or PIPELINE_ID,
        "prompt": manifest.prompt,
        "listens": manifest.prompt_encoder is not None or manifest.policy_type not in DEAF,
        "observation": observation,
        "answer": {
            "actions": {"shape": [manifest.chunk_size, manifest.dof], "dtype": "float32", "unit": "rad"},
        },
    }
