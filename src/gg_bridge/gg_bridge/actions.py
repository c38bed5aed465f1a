"""What the reconciler wants done, in this order; plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gg_bridge.configuration import ModelConfiguration
from gg_bridge.memory import Memory
from vla_core.swap import Outcome, SwapRequest

FAILED = frozenset({Outcome.REFUSED, Outcome.ROLLED_BACK})
"""Ends after which the model that ran before runs on."""
RETRYING = "retrying"
"""Not an end: it takes longer, for a reason that somebody may want to know."""
NOTHING = "nothing"
"""The end of an empty wish."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Write the memory to disk, after what stands before it and before what follows."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the model into the store; any other fetch has been cancelled before."""

    request_id: str
    wish: ModelConfiguration


@dataclass(frozen=True, slots=True)
class CancelFetch:
    """End the fetch under way; what it has stays staged."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the policy for a swap. The same `request_id` may be asked again: it makes no second swap."""

    request: SwapRequest


@dataclass(frozen=True, slots=True)
class Allow:
    """Let the store forget that it refused this model: it was asked for anew."""

    label: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Let the store remember that this model must not run."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Report to whoever deployed it, and to the nucleus; `outcome` is one of `Outcome`, or RETRYING."""

    request_id: str
    wish: ModelConfiguration
    label: str
    outcome: str
    reason: str = ""
    durations_s: Mapping[str, float] = field(default_factory=dict)


Action: TypeAlias = Remember | Fetch | CancelFetch | Ask | Allow | Refuse | Tell
