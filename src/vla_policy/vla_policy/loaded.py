"""A model whose server is there, and how to drive with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from vla_core.chunk import JoinRules
from vla_policy.model import ModelSpec
from vla_policy.observe import AgeLimits
from vla_policy.schedule import Rhythm
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.link import Link


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop drives.

    Attributes:
        rules: how chunks are joined.
        rhythm: how often they are asked for.
        ages: how old inputs may be.
        request_timeout_s: how long an answer may take.
        prompt: instead of the model's own.
        max_chunk_age_s: how old may be what a chunk answers, when it is to be commanded.
        follow_timeout_s: how soon the driver must report what it took up; 0 where it never does.
    """

    rules: JoinRules
    rhythm: Rhythm
    ages: AgeLimits
    request_timeout_s: float
    prompt: str
    max_chunk_age_s: float
    follow_timeout_s: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that can drive.

    Attributes:
        model: as the parameter `model` names it.
        spec: what it wants and answers.
        link: the way to its server, which ends when this is closed.
        settings: how to drive with it.
        identify: the spec of whatever a new session talks to.
        let_go: called once it is closed.
    """

    model: str
    spec: ModelSpec
    link: Link
    settings: LoopSettings
    identify: Callable[[PolicyClient], ModelSpec]
    let_go: Callable[[], object]

    @property
    def prompt(self) -> str:
        """Its instruction, unless the topic overrides it."""
        return self.settings.prompt or self.spec.prompt

    def objection_to(self, prompt: str) -> str:
        """Why `prompt` will change nothing; empty where it may."""
        spec = self.spec
        if spec.listens or prompt == spec.prompt:
            return ""
        own = f": it always does {spec.prompt!r}" if spec.prompt else ""
        return f"model {spec.label} does not listen to prompts{own}"

    def told(self, prompt: str) -> Loaded:
        """The same with another instruction."""
        return replace(self, settings=replace(self.settings, prompt=prompt))

    def close(self) -> None:
        """End its server, where it is ours."""
        self.link.close()
        self.let_go()
