"""What is asked for in one episode of a demo, one thing after another: pure bookkeeping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A sentence, and the colour of the cube that it asks for; empty where it asks for nothing known."""

    prompt: str
    target: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A request that came into force: when, in seconds of the episode, and in ns of the system's clock."""

    request: Request
    at_s: float
    stamp_ns: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"prompt": self.request.prompt, "target": self.request.target, "at_s": round(self.at_s, 2)}


class Conversation:
    """Follows the prompts in force, and knows which of a plan is to be said next.

    A person may type a prompt of their own, which ends the plan.
    """

    def __init__(self, plan: Sequence[Request], stamp_ns: int, target: str = "") -> None:
        """Begin with the first request of the plan, which is in force; `target` counts where that asks for nothing."""
        self._target = target
        self._to_say = list(plan[1:])
        self._meant = {request.prompt: request.target for request in plan}
        self._said = plan[0].prompt
        self.turns = [Turn(plan[0], 0.0, stamp_ns)]

    @property
    def target(self) -> str:
        """The cube that was asked for last: it counts until a prompt asks for another."""
        return next((turn.request.target for turn in reversed(self.turns) if turn.request.target), self._target)

    @property
    def goes_on(self) -> bool:
        """Whether the plan has more to say, or what was said last is not in force yet."""
        spoken = [turn.request.prompt for turn in self.turns]
        return self._said not in spoken or (bool(self._to_say) and spoken[-1] == self._said)

    @property
    def excused(self) -> tuple[str, ...]:
        """Cubes that were asked for before: the arm may have moved them."""
        before = dict.fromkeys(turn.request.target for turn in self.turns if turn.request.target)
        return tuple(colour for colour in before if colour != self.target)

    def hear(self, prompt: str, target: str, at_s: float, stamp_ns: int) -> None:
        """Take what the policy says of the prompt in force.

        `target` follows a moment after `prompt`, or not at all: then what the plan means by it counts.
        """
        target = target or self._meant.get(prompt, "")
        newest = self.turns[-1]
        if not prompt or (prompt, target) == (newest.request.prompt, newest.request.target):
            return
        if prompt != newest.request.prompt:
            self.turns.append(Turn(Request(prompt, target), at_s, stamp_ns))
        elif target:
            self.turns[-1] = replace(newest, request=Request(prompt, target))

    def next(self, *, lifted: bool) -> str | None:
        """What to say now, if anything: the plan goes on once the arm has lifted what it was asked for last."""
        newest = self.turns[-1].request
        if not (lifted and self._to_say and newest.target and newest.prompt == self._said):
            return None
        self._said = self._to_say.pop(0).prompt
        return self._said
