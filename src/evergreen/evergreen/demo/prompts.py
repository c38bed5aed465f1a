"""Prompts of a demo: what one asks for, and a line in the terminal where a person types the next."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from evergreen.demo.asked import Request
from evergreen.demo.models import Choice
from vla_core.errors import ConfigError
from vla_core.metadata import DEAF
from vla_sim.targets import MOST_CUBES, target_of

LOOK_S = 0.2
"""How soon the reader sees that the demo ends."""


def asked_for(choice: Choice, prompt: str, option: str = "--prompt") -> str:
    """The cube that `prompt`, given by `option`, asks the chosen model for; the model's own prompt where it is empty.

    Raises:
        ConfigError: the model does not understand it, or it names no cube.
    """
    manifest = choice.manifest
    if manifest.prompt_encoder is None:
        if manifest.policy_type in DEAF and prompt not in ("", manifest.prompt):
            raise ConfigError(f"{option}: {manifest.label} does not listen: it always does {manifest.prompt!r}")
        return target_of(prompt or manifest.prompt)
    from vla_policy.serving.prompt_encoder import Listener  # noqa: PLC0415  ONNX Runtime, for models that listen only

    match = Listener.load(choice.folder, manifest).understand(prompt or manifest.prompt)
    if match.reason:
        raise ConfigError(f"{option}: {match.reason}")
    return match.target


def asked_next(choice: Choice, prompts: Sequence[str], first: str) -> tuple[Request, ...]:
    """What the prompts that follow ask the chosen model for, after the cube `first`.

    Raises:
        ConfigError: the model does not listen or does not understand one, or they ask for a cube twice or for too many.
    """
    manifest = choice.manifest
    if prompts and manifest.prompt_encoder is None and manifest.policy_type in DEAF:
        raise ConfigError(f"--then: {manifest.label} does not listen: it always does {manifest.prompt!r}")
    if not all(prompt.strip() for prompt in prompts):
        raise ConfigError("--then needs a sentence")
    requests = tuple(Request(prompt, asked_for(choice, prompt, "--then")) for prompt in prompts)
    targets = [first, *(request.target for request in requests)]
    if len(set(targets)) < len(targets) or len(targets) > MOST_CUBES:
        raise ConfigError(f"--then: {', '.join(targets)} are asked for; name each once, and {MOST_CUBES} at most")
    return requests


class PromptLine:
    """Reads lines from a terminal in a thread of its own; a context manager. Elsewhere it reads nothing.

    The terminal stays in its ordinary mode: Ctrl-C stops the demo as ever, and nothing is left to restore.
    """

    def __init__(self, say: Callable[[str], None], stream: TextIO | None = None) -> None:
        """`say` hears each line that is not empty, in the reader's thread."""
        self._say = say
        self._stream = sys.stdin if stream is None else stream
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def listens(self) -> bool:
        """Whether somebody can type."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def __enter__(self) -> Self:
        if self.listens:
            self._thread = threading.Thread(target=self._read, name="prompts", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        while not self._end.is_set():
            ready, _, _ = select.select([self._stream], [], [], LOOK_S)
            if not ready:
                continue
            line = self._stream.readline()
            if not line:  # Ctrl-D: nobody types any more
                return
            if text := line.strip():
                self._say(text)
