"""Teaches a ResNet to find every cube, and a transformer to look at one, with heads that only training has.

A policy that is told which cube to fetch must see all of them. Left to the imitation loss alone, whichever colour is
found first keeps the ResNet to itself: the others stay unseen, since the mean of all places is a poor but stable
answer.
So each cell of the ResNet's last map (stride 32) also answers, for each colour: is a cube's centre here, where in the
picture, and how does it lie. Dense, and the same for all colours, as in one-stage detectors (Redmon et al. 2016).

The transformer can be taught to look where the prompt says: as its encoder leaves it, the prompt's own token must tell
the place of the cube that is asked for, and how it lies. Any cube in the picture can be asked for, with no
demonstration of it.

"Where" is from the picture's corner, not from the cell's: ACT adds the positions of its tokens to queries and keys,
never to values, so that what a token says must itself say where it is.
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
_ERROR_WEIGHT: Final = 3.0
"""Of the loss, for places in cells and for turns alike. With places weighed four times as much as turns, turns were
still 16 degrees off (median; 22 is chance) after 2,500 steps."""
_PRESENCE_SHARE: Final = 0.2
"""Of the loss, per cube. As a mean over cells and colours it was too weak: cubes were found, their colours mixed up."""

_POINTING_WEIGHT: Final = 1 / 2
"""Of each of the four numbers: a turn whose cosine and sine are off by 1 counts as much as a place a cell away."""

PROMPT_TOKEN: Final = 2
"""Of LeRobot's ACT: the latent, the state and the prompt come before the picture's cells."""


class Pointer(nn.Linear):
    """From the prompt's token `(answers, dim_model)`, to place, in cells, and turn `(answers, 4)`."""

    def __init__(self, dim_model: int) -> None:
        """Make one for tokens of `dim_model` numbers."""
        super().__init__(dim_model, LABELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast("cpu", enabled=False):  # bfloat16 rounds a place to 1 px
            return super().forward(tokens.float())


def pointing_loss(said: Tensor, labels: Tensor, asked: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far a `Pointer` is off: mean over answers of the error of the place, in cells, and of that of the turn.

    Each is the mean of its two numbers.

    Args:
        said: of the pointer.
        labels: `(pictures, colours, 4)`, NaN where one place cannot be told; such answers do not count.
        asked: colours `(answers,)`; as many for each picture.
        grid: rows and columns of the feature map.
    """
    cells = torch.tensor([grid[1], grid[0], *[1] * TURN])
    wanted = labels.repeat_interleave(len(asked) // len(labels), 0)[torch.arange(len(asked)), asked] * cells
    known = ~wanted[:, 0].isnan()
    errors = (said - wanted.nan_to_num()).abs().sum(1) * _POINTING_WEIGHT
    return (errors * known).sum() / known.sum().clamp(min=1)


class CubeHead(nn.Module):
    """From a feature map `(batch, channels, rows, columns)` to what each cell says of each colour."""

    def __init__(self, channels: int, colours: int) -> None:
        """Make the head for `colours` colours."""
        super().__init__()
        self._colours = colours
        self.read = nn.Conv2d(channels, colours * _OUTPUTS, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, colours, 5, rows, columns)`: presence logit, place in the picture in cells, turn."""
        batch, _, rows, columns = features.shape
        with torch.autocast("cpu", enabled=False):  # bfloat16 rounds a place to 1 px
            said: Tensor = self.read(features.float())
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
    across, down = (_scaled(known[..., axis], cells) for axis, cells in enumerate((columns, rows)))
    present = torch.zeros_like(said[:, :, 0])
    batch, colour = torch.nonzero(there, as_tuple=True)
    row, column = down[there].long(), across[there].long()
    here = (batch, colour, row, column)
    present[here] = 1.0
    presence = functional.binary_cross_entropy_with_logits(said[:, :, 0].float(), present.float(), reduction="sum")
    presence = _PRESENCE_SHARE * presence / max(1, len(batch))
    if not len(batch):
        return presence
    wanted = torch.cat([across[there, None], down[there, None], known[..., PLACE:][there]], dim=1)
    answers = said[batch, colour, 1:, row, column].float()
    errors = functional.l1_loss(answers, wanted, reduction="none") * _ERROR_WEIGHT
    return presence + errors.mean()


def _scaled(share: Tensor, cells: int) -> Tensor:
    """A share 0..1 of the picture's side in cells; its whole part is the cell's number."""
    return share.clamp(0, 1 - 1e-6) * cells


def misses(said: Tensor, labels: Tensor, width: int, height: int) -> Tensor:
    """Distance in px between every cube that is there and where the most certain cell of its colour puts it."""
    rows, columns = said.shape[-2:]
    best = said[:, :, 0].flatten(2).argmax(-1)
    picked = said[:, :, 1:3].flatten(3).gather(3, best[:, :, None, None].expand(-1, -1, 2, 1))[..., 0]
    u, v = picked[:, :, 0] * width / columns, picked[:, :, 1] * height / rows
    there = ~labels[..., 0].isnan()
    far: Tensor = torch.hypot(u - labels[..., 0] * width, v - labels[..., 1] * height)[there]
    return far
