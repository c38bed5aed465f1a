"""How each of LeRobot's policies is asked for a chunk of actions.

Three kinds. Most answer `predict_action_chunk` from one batch. Those that look back (diffusion, VQ-BeT, TDMPC,
multi-task DiT) read observation queues, which LeRobot fills only in `select_action`: here they are filled from the
session's history before each inference, so that the one policy serves every session and remembers none. Those that know
single actions only are asked with `select_action`, once for each action of the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from lerobot.policies.utils import populate_queues
from lerobot.utils.constants import ACTION, OBS_IMAGE, OBS_IMAGES
from numpy.typing import NDArray

from vla_core.errors import ModelError
from vla_policy.serving.torch_checkpoint import Loaded

SEED = 0
"""Noise of policies that draw their answers. The same for every chunk: the same observation gets the same answer, and
two chunks that overlap do not differ by luck."""
PIXEL_MAX = 255.0

Batch: TypeAlias = dict[str, Any]
"""One observation after the policy's own processor: tensors with a batch dimension of 1, and text."""


class ChunkPolicy:
    """One loaded policy. Remembers nothing from one chunk to the next; one thread uses it."""

    def __init__(self, loaded: Loaded, chunk_size: int) -> None:
        """Take the policy; one that knows single actions only is made to fill `chunk_size` of them."""
        self._loaded = loaded
        self._chunk_size = chunk_size
        self._single = False

    def prepare(
        self, images: Mapping[str, NDArray[np.uint8]], vectors: Mapping[str, NDArray[np.float32]], task: str
    ) -> Batch:
        """Run one observation through the policy's processor.

        Args:
            images: feature to `(h, w, 3)` uint8 RGB.
            vectors: feature to `(n,)`: joints in the checkpoint's units, and what else it looks at.
            task: the prompt.
        """
        raw: dict[str, Any] = {
            key: torch.from_numpy(image.copy()).permute(2, 0, 1).to(torch.float32) / PIXEL_MAX
            for key, image in images.items()
        }
        raw |= {key: torch.from_numpy(vector.copy()) for key, vector in vectors.items()}
        with torch.inference_mode():
            batch = dict(self._loaded.before(raw | {"task": task, "robot_type": ""}))
        batch.pop(ACTION, None)  # the processor's empty place for it would be taken for a recorded one
        return batch

    def chunk(self, steps: Sequence[Batch]) -> NDArray[np.float32]:
        """The actions that follow `steps`, oldest first: `(n, action_dim)` in the checkpoint's units."""
        torch.manual_seed(SEED)
        with torch.inference_mode():
            self._loaded.policy.reset()
            actions = self._loaded.after(self._ask(steps))
        return self._in_time(actions.detach().to("cpu", torch.float32).numpy()[0])

    def _in_time(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """One row a period: TDMPC plays each of its actions several times, and a lone action lasts the whole chunk."""
        if len(rows) == 1:
            return np.repeat(rows, self._chunk_size, axis=0)
        return np.repeat(rows, getattr(self._loaded.policy.config, "n_action_repeats", 1), axis=0)

    def _ask(self, steps: Sequence[Batch]) -> torch.Tensor:
        """`(1, n, action_dim)`, normalised."""
        if not self._single:
            try:
                return _in_order(self._loaded.policy.predict_action_chunk(self._remember(steps)))
            except NotImplementedError:
                self._single = True
                self._loaded.policy.reset()
        return self._roll(steps)

    def _remember(self, steps: Sequence[Batch]) -> Batch:
        """Fill the policy's observation queues, where it has some; gives the batch to ask with."""
        queues = getattr(self._loaded.policy, "_queues", None)
        if not isinstance(queues, dict) or not queues.keys() - {ACTION}:
            return dict(steps[-1])
        batches = [self._stacked(step, queues) for step in steps]
        for batch in batches:
            populate_queues(queues, batch, exclude_keys=[ACTION])
        return batches[-1]

    def _stacked(self, step: Batch, queues: Mapping[str, Any]) -> Batch:
        """With the pictures under the key that the queues want, as `select_action` of these policies puts them."""
        batch = dict(step)
        features = list(self._loaded.policy.config.image_features)
        if OBS_IMAGES in queues and features:
            batch[OBS_IMAGES] = torch.stack([batch[key] for key in features], dim=-4)
        if OBS_IMAGE in queues and features:
            batch[OBS_IMAGE] = batch[features[0]]
        return batch

    def _roll(self, steps: Sequence[Batch]) -> torch.Tensor:
        """One action a period, as if the world stood still after the newest observation."""
        select = self._loaded.policy.select_action
        for step in steps[:-1]:
            select(dict(step))
        return torch.stack([select(dict(steps[-1])).reshape(1, -1) for _ in range(self._chunk_size)], dim=1)


def _in_order(actions: torch.Tensor) -> torch.Tensor:
    """Bring a chunk to `(1, n, action_dim)`: TDMPC gives `(n, 1, action_dim)`.

    Raises:
        ModelError: it is no chunk for one observation.
    """
    if actions.ndim == 2:
        return actions.unsqueeze(0) if actions.shape[0] != 1 else actions.unsqueeze(1)
    if actions.ndim == 3 and actions.shape[0] == 1:
        return actions
    if actions.ndim == 3 and actions.shape[1] == 1:
        return actions.transpose(0, 1)
    raise ModelError(f"the policy answered a tensor of shape {tuple(actions.shape)}, which is no chunk of actions")
