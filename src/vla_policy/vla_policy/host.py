"""What swaps want of the node that they happen in."""

from __future__ import annotations

from typing import Protocol

from vla_policy.loaded import Loaded
from vla_policy.model import ModelSpec
from vla_policy.settings import Settings
from vla_policy.swap import Swap


class Host(Protocol):
    """The node; called in the swapper's thread unless said otherwise."""

    def settings(self) -> Settings:
        """The parameters in force."""
        ...

    def settle(self) -> None:
        """Wait for transitions under way: the model of the start may be loading."""
        ...

    def told(self, swap: Swap) -> None:
        """Publish where a swap is; from any thread."""
        ...

    def see(self, *specs: ModelSpec) -> None:
        """Listen to these models' cameras, and to no others."""
        ...

    def runs(self, loaded: Loaded | None) -> None:
        """What is loaded has changed, or has not: the parameters shall say so; None: what will be when it starts."""
        ...

    def configure(self, loaded: Loaded) -> bool:
        """Leave `unconfigured` with this model; and drive, where that is wanted. False where it was not possible."""
        ...

    def warn(self, text: str) -> None:
        """Say what nobody asked for."""
        ...

    def log(self, text: str) -> None:
        """For people; from any thread."""
        ...
