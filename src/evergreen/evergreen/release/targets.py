"""What is deployed to: things and thing groups, and the core devices in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evergreen.release.errors import ReleaseError

CLASSIC, LITE = "classic", "lite"


@dataclass(frozen=True, slots=True)
class Target:
    """A thing or a thing group.

    Attributes:
        kind: `thing` or `group`.
        name, arn: of it.
        things: the core devices in it, by name.
    """

    kind: str
    name: str
    arn: str
    things: tuple[str, ...]

    @property
    def shown(self) -> str:
        """For people and for `--thing` or `--group`."""
        return f"{self.kind} {self.name}"

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.kind} {self.name}"


def one_nucleus(kinds: Sequence[str], wanted: str) -> str:
    """The nucleus that the devices have, of which there may be only one kind.

    Args:
        kinds: of the devices, `classic` or `lite`.
        wanted: what the user said; empty: nothing.

    Raises:
        ReleaseError: there are both, or no device and no word of the user's.
    """
    if wanted:
        return wanted
    found = set(kinds)
    if not found:
        raise ReleaseError(
            "no core device in the target, so that its nucleus is unknown: give --nucleus classic or lite"
        )
    if len(found) > 1:
        raise ReleaseError(
            "the target has devices with the classic nucleus and with Lite, which need different recipes: deploy to "
            "each kind by a thing group of its own"
        )
    return found.pop()


def disjoint(targets: Sequence[Target]) -> None:
    """See that no device is in two targets.

    Raises:
        ReleaseError: one is; with two deployments that name different versions of a component it would run neither.
    """
    seen: dict[str, Target] = {}
    for target in targets:
        for thing in target.things:
            if other := seen.get(thing):
                raise ReleaseError(
                    f"{thing} is in {other.shown} and in {target.shown}: while these have different versions "
                    "Greengrass could apply neither; name targets without a common device"
                )
            seen[thing] = target
