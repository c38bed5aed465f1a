"""A backend that listens: before a prompted policy is asked, the prompt becomes the vector that it was trained with.

What the prompt was taken for travels back with every answer. One that is not understood is answered with no actions and
the reason, and the policy is not asked at all: its client holds the arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_core.errors import WireError
from vla_core.manifest import Manifest
from vla_core.observation import ENVIRONMENT_KEY, PROMPT_KEY
from vla_policy.serving.backends import Backend, Session
from vla_policy.serving.prompt_encoder import Listener

MATCH_KEY = "prompt"
"""In an answer."""


class ListeningBackend:
    """Puts a listener before another backend."""

    def __init__(self, backend: Backend, listener: Listener, prompt: str, dof: int) -> None:
        """Take both; `prompt` is the model's own, for clients that send none."""
        self._backend, self._listener = backend, listener
        self._prompt, self._dof = prompt, dof

    def metadata(self) -> dict[str, Any]:
        """As the backend's, and what can be asked for."""
        return self._backend.metadata() | {"targets": list(self._listener.phrases.centroids)}

    def open_session(self) -> Session:
        """A session of the backend, behind the listener."""
        return _ListeningSession(self._backend.open_session(), self._listener, self._prompt, self._dof)


def listen_before(backend: Backend, folder: Path, manifest: Manifest) -> ListeningBackend:
    """Put the prompt encoder of a model's folder before its backend.

    Raises:
        ManifestError, ModelError: the folder's encoder is not the one that its policy was trained with.
    """
    return ListeningBackend(backend, Listener.load(folder, manifest), manifest.prompt, manifest.dof)


class _ListeningSession:
    def __init__(self, session: Session, listener: Listener, prompt: str, dof: int) -> None:
        self._session, self._listener = session, listener
        self._prompt, self._dof = prompt, dof

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        prompt = observation.get(PROMPT_KEY, self._prompt)
        if not isinstance(prompt, str):
            raise WireError(f"observation {PROMPT_KEY!r} must be text, not {type(prompt).__name__}")
        match = self._listener.understand(prompt)
        if match.reason:
            return {"actions": np.zeros((0, self._dof), np.float32), MATCH_KEY: match.to_wire()}
        vector = self._listener.phrases.vector_of(match.target)
        return self._session.infer({**observation, ENVIRONMENT_KEY: vector}) | {MATCH_KEY: match.to_wire()}
