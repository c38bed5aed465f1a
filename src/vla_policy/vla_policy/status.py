"""What `/policy/status` and `/diagnostics` say about the policy; plain values, so that nodes and tests need no more."""

from __future__ import annotations

from dataclasses import dataclass, replace

DRIVING = "driving"
HOLDING = "holding"
ACTIVE = frozenset({DRIVING, HOLDING})


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """The policy's present state.

    Attributes:
        state: lifecycle state (`unconfigured`, `configuring`, `inactive`, …), or while active `driving` or `holding`.
        active_model: `name@version` of what runs, empty where nothing does.
        model: what the parameter `model` asks for.
        server: `local` or an address.
        prompt: the instruction in force.
        prompt_target: what it was taken for; empty where it was not understood, or the model reads the text itself.
        prompt_phrase, prompt_similarity: the nearest phrase that the model knows, and how near that is, up to 1.
        prompt_note: what people should know who send prompts: that the model does not listen, say.
        stage: of a swap of models; empty where none is under way.
        request_id: of the swap that was asked for last.
        outcome: how that ended; empty while it is under way.
        outcome_reason: why it ended so.
        passing: `true` where it was refused for what may be over later.
        timeline: JSON: stage to seconds since the request.
        reason: why it holds, or why it refused; of the last time where it drives again.
    """

    state: str = "unconfigured"
    active_model: str = ""
    model: str = ""
    server: str = ""
    prompt: str = ""
    prompt_target: str = ""
    prompt_phrase: str = ""
    prompt_similarity: str = ""
    prompt_note: str = ""
    stage: str = ""
    request_id: str = ""
    reason: str = ""
    outcome: str = ""
    outcome_reason: str = ""
    passing: str = "false"
    timeline: str = "{}"

    @property
    def is_well(self) -> bool:
        """Whether nothing needs anybody's attention."""
        return self.state == DRIVING or (self.state != HOLDING and not self.reason)

    @property
    def sentence(self) -> str:
        """For people."""
        if self.state == DRIVING:
            return f"driving {self.active_model}"
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """How the chunks went since the node started.

    Attributes:
        chunks: commanded.
        gaps: times that the arm had stood still waiting for a chunk.
        longest_gap_s: the longest of these.
        holds: reasons to hold.
    """

    chunks: int = 0
    gaps: int = 0
    longest_gap_s: float = 0.0
    holds: int = 0

    def with_chunk(self, gap_s: float) -> ChunkCounts:
        """One more chunk, for which the arm stood still for `gap_s`."""
        longest_s = max(self.longest_gap_s, gap_s)
        return replace(self, chunks=self.chunks + 1, gaps=self.gaps + (gap_s > 0), longest_gap_s=longest_s)

    def with_hold(self) -> ChunkCounts:
        """One more reason to hold."""
        return replace(self, holds=self.holds + 1)
