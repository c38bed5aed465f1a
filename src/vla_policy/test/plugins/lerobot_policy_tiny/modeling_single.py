"""Action k after a reset is the state plus (k + 1) times a weight."""

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import nn

from lerobot_policy_tiny.configuration_single import SingleConfig


class SinglePolicy(PreTrainedPolicy):
    config_class = SingleConfig
    name = "single"

    def __init__(self, config, **kwargs):
        super().__init__(config)
        self.step = nn.Parameter(torch.full((6,), 0.01))
        self.reset()

    def reset(self):
        self.asked = 0

    def get_optim_params(self):
        return self.parameters()

    def forward(self, batch):
        raise NotImplementedError

    def predict_action_chunk(self, batch, **kwargs):
        raise NotImplementedError("single actions only")

    @torch.no_grad()
    def select_action(self, batch, **kwargs):
        self.asked += 1
        return batch["observation.state"] + self.asked * self.step
