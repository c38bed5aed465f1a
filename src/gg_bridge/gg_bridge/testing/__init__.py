"""A stand-in for a Greengrass nucleus, to test components against: see docs/greengrass_testing.md."""

from gg_bridge.testing.character import Timing
from gg_bridge.testing.deployments import Deployment
from gg_bridge.testing.faults import Faults
from gg_bridge.testing.operations import Published
from gg_bridge.testing.stand_in import StandInNucleus

__all__ = ["Deployment", "Faults", "Published", "StandInNucleus", "Timing"]
