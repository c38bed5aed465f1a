"""A plugin for LeRobot, as a third party would install one; the tests give it a distribution's metadata.

`tiny_pi0` and `tiny_pi05` are LeRobot's own pi0 and pi05, every line of them, with smaller layers: their configurations
have no sizes, and the smallest variant holds over a billion weights. `single` knows single actions only, as LeRobot's
actor-critic does.
"""

from lerobot_policy_tiny.configuration_single import SingleConfig
from lerobot_policy_tiny.configuration_tiny_pi0 import TinyPI0Config
from lerobot_policy_tiny.configuration_tiny_pi05 import TinyPI05Config

__all__ = ["SingleConfig", "TinyPI0Config", "TinyPI05Config"]
