"""Teaches a ResNet to find every cube at once, with a head that is thrown away after training.

A policy that is told which cube to fetch must see all of them. Left to the imitation loss alone, whichever colour is
found first keeps the ResNet to itself: the others stay unseen, since the mean of all places is a poor but stable
answer.
So each cell of the ResNet's last map (stride 32) also answers, for each colour: is a cube's centre here, where in the
cell, and how does it lie. Dense, and the same for all colours, as in one-stage detectors (Redmon et al. 2016).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

PLACE, TURN = 2, 2
LABELS: Final = PLACE + TURN
"""Numbers of a cube's label: u, v in 0..1 of the policy's picture; cosine and sine of four times its yaw."""
_OUTPUTS: Final = 1 + LABELS
_PRESENCE_SHARE: Final = 0.2
"""Of the loss, per cube. As a mean over cells and colours it was too weak: cubes were found, their colours mixed up."""


class CubeHead(nn.Module):
    """From a feature map `(batch, channels, rows, columns)` to what each cell says of each colour."""

    def __init__(self, channels: int, colours: int) -> None:
        """Make the head for `colours` colours."""
        super().__init__()
        self._colours = colours
        self.read = nn.Conv2d(channels, colours * _OUTPUTS, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, colours, 5, rows, columns)`: presence logit, place in the cell in 0..1, turn."""
        batch, _, rows, columns = features.shape
        said: Tensor = self.read(features)
        return said.view(batch, self._colours, _OUTPUTS, rows, columns)


def cube_loss(said: Tensor, labels: Tensor) -> Tensor:
    """How wrong a `CubeHead` is.

    Args:
        said: of `CubeHead`.
        labels: `(batch, colours, 4)`; NaN where a colour is not there (or twice, which one label cannot say).
    """
    rows, columns = said.shape[-2:]
    there = ~labels[..., 0].isnan()
    known = labels.nan_to_num()
    column, in_column = _cell(known[..., 0], columns)
    row, in_row = _cell(known[..., 1], rows)
    present = torch.zeros_like(said[:, :, 0])
    batch, colour = torch.nonzero(there, as_tuple=True)
    here = (batch, colour, row[there], column[there])
    present[here] = 1.0
    presence = functional.binary_cross_entropy_with_logits(said[:, :, 0].float(), present.float(), reduction="sum")
    presence = _PRESENCE_SHARE * presence / max(1, len(batch))
    if not len(batch):
        return presence
    wanted = torch.cat([in_column[there, None], in_row[there, None], known[..., PLACE:][there]], dim=1)
    answers = said[batch, colour, 1:, row[there], column[there]].float()
    # A cell of 32 px is wide: half a px is 1/64 of it, a turn of 2 degrees 1/7.
    errors = functional.l1_loss(answers, wanted, reduction="none") * answers.new_tensor([4.0, 4.0, 1.0, 1.0])
    return presence + errors.mean()


def _cell(share: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The cell that a share 0..1 of the picture's side falls into, and the share of that cell."""
    scaled = share.clamp(0, 1 - 1e-6) * cells
    cell = scaled.floor()
    return cell.long(), scaled - cell


def misses(said: Tensor, labels: Tensor, width: int, height: int) -> Tensor:
    """Distance in px between every cube that is there and where the most certain cell of its colour puts it."""
    rows, columns = said.shape[-2:]
    best = said[:, :, 0].flatten(2).argmax(-1)
    picked = said[:, :, 1:3].flatten(3).gather(3, best[:, :, None, None].expand(-1, -1, 2, 1))[..., 0]
    u = (best % columns + picked[:, :, 0]) * width / columns
    v = (torch.div(best, columns, rounding_mode="floor") + picked[:, :, 1]) * height / rows
    there = ~labels[..., 0].isnan()
    far: Tensor = torch.hypot(u - labels[..., 0] * width, v - labels[..., 1] * height)[there]
    return far
