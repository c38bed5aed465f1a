"""pi05 with layers small enough for a test."""

from lerobot.policies.pi05 import modeling_pi05
from lerobot.policies.pi05.modeling_pi05 import PI05Policy

from lerobot_policy_tiny.configuration_tiny_pi05 import TinyPI05Config
from lerobot_policy_tiny.modeling_tiny_pi0 import small


class TinyPI05Policy(PI05Policy):
    config_class = TinyPI05Config
    name = "tiny_pi05"

    def __init__(self, config: TinyPI05Config, **kwargs):
        with small(modeling_pi05):
            super().__init__(config, **kwargs)
