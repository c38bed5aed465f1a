"""What a policy learns from a batch: the chunk and, where it listens, where cubes lie and which one is asked for."""

from __future__ import annotations

import torch
from lerobot.policies.act.modeling_act import ACTPolicy
from torch import Tensor, nn
from torch.nn import functional

from vla_core.observation import ENVIRONMENT_KEY
from vla_sim.layout import NAMED
from vla_training.eyes import PROMPT_TOKEN, CubeHead, Pointer, cube_loss, pointing_loss
from vla_training.onnx_policy import IMAGES, STATE
from vla_training.optimise import Batch

IMITATION = "imitation"
"""Name of the loss of the chunk."""


def loss_of(policy: ACTPolicy, batch: Batch) -> Tensor:
    """Mean absolute error of the normalised chunk, as far as it is an answer: ACT's loss without the VAE part."""
    each = len(batch.states) // len(batch.pictures)
    seen = {IMAGES: [batch.pictures.repeat_interleave(each, 0) if each > 1 else batch.pictures], STATE: batch.states}
    if batch.prompts is not None:
        seen[ENVIRONMENT_KEY] = batch.prompts
    predicted = policy.model(seen)[0].float()
    if batch.told is None:
        return functional.l1_loss(predicted, batch.chunks)
    counts = torch.arange(predicted.shape[1]) < batch.told[:, None]
    errors = functional.l1_loss(predicted, batch.chunks, reduction="none").mean(-1)
    return (errors * counts).sum() / counts.sum().clamp(min=1)


class Learner(nn.Module):
    """A policy that listens, and beside it a head that must find every cube, see `vla_training.eyes`.

    With `pointing`, there is another that must find the one that is asked for.

    From then on the ResNet of the policy sees only what `losses` gives it; `act.folded` makes a policy without that.
    """

    def __init__(self, policy: ACTPolicy, *, pointing: bool = False) -> None:
        """Add heads to the ResNet and the encoder of `policy`, which is trained in place."""
        super().__init__()
        self.policy = policy
        self.head = CubeHead(policy.model.encoder_img_feat_input_proj.in_channels, len(NAMED))
        self.pointer = Pointer(policy.config.dim_model) if pointing else None
        self._pictures = self._features = self._heard = torch.empty(0)
        self._each = 1
        policy.model.backbone.register_forward_pre_hook(lambda _module, _inputs: (self._pictures,))
        policy.model.backbone.register_forward_hook(self._share)
        if pointing:
            policy.model.encoder.register_forward_hook(self._hear)

    def _hear(self, _module: nn.Module, _inputs: object, tokens: Tensor) -> None:
        self._heard = tokens[PROMPT_TOKEN]

    def _share(self, _module: nn.Module, _inputs: object, output: dict[str, Tensor]) -> dict[str, Tensor]:
        self._features = output["feature_map"]
        return {"feature_map": self._features.repeat_interleave(self._each, 0) if self._each > 1 else self._features}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Of the chunk, of where all cubes are, and of where the one is that the prompt asks for.

        The ResNet looks once at a picture that several prompts share.
        """
        self._pictures, self._each = batch.pictures, len(batch.states) // len(batch.pictures)
        # What the policy hands to the ResNet only counts the answers.
        imitation = loss_of(
            self.policy, batch._replace(pictures=batch.pictures[:1].expand(len(batch.states), -1, -1, -1))
        )
        found = {IMITATION: imitation}
        if batch.cubes is None:
            return found
        found["cubes"] = cube_loss(self.head(self._features), batch.cubes)
        if self.pointer is not None and batch.asked is not None:
            rows, columns = self._features.shape[-2:]
            found["pointing"] = pointing_loss(self.pointer(self._heard), batch.cubes, batch.asked, (rows, columns))
        return found
