"""What a policy server can run: the port that every backend fills, and how one is found by name.

A backend is a class that is called as `Class(folder, threads=…)` and then has the methods of `Backend`. Evergreen's own
are in BUILT_IN; another package adds one through the entry point group `evergreen.backends`. Each is imported only when
asked for, so that no server pays for, or needs, what it does not use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, cast

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, ModelError

ENTRY_POINT_GROUP = "evergreen.backends"

BUILT_IN: Mapping[str, str] = {
    "onnx": "vla_policy.serving.onnx_backend:OnnxBackend",
    "torch": "vla_policy.serving.torch_backend:TorchBackend",
    "expert": "vla_sim.expert_backend:ExpertBackend",
}
"""Looked up first: scanning the installed distributions for entry points takes longer than loading a model."""


class Session(Protocol):
    """One client's conversation: what a policy remembers of earlier observations lives and dies with it."""

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one observation.

        Args:
            observation: as on the wire (`Observation.to_wire`): `observation.images.<camera>` `(h, w, 3)` uint8 RGB,
                `observation.state` `(dof,)` float32 rad, `prompt`, `stamp_ns`.

        Returns:
            `actions`: `(horizon, dof)` float32, rad. A policy that looked at something newer than the observation says
            so with `stamp_ns`.

        Raises:
            WireError: the observation lacks something or has another shape.
        """
        ...


class Backend(Protocol):
    """A loaded model, ready to answer at once: whatever warming it needs was done when it was built."""

    def metadata(self) -> dict[str, Any]:
        """What clients are told when they connect; see `vla_core.metadata`."""
        ...

    def open_session(self) -> Session:
        """A session without history."""
        ...


class BackendFactory(Protocol):
    """What a backend's class looks like from here."""

    def __call__(self, folder: Path | None, *, threads: int) -> Backend:
        """Load the model in `folder` (None for backends without one), with `threads` compute threads.

        Raises:
            EvergreenError: the model cannot be loaded; the message is for the user.
        """
        ...


def default_threads() -> int:
    """Half the cores that this process may use: the other half feeds the policy and moves the arm."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def load_backend(folder: Path | None, name: str = "", threads: int = 0) -> Backend:
    """Load a model: `folder`'s manifest names its backend unless `name` does.

    Raises:
        EvergreenError: no such backend, or it cannot load the model.
    """
    threads = threads or default_threads()
    if folder is None:
        if not name:
            raise ConfigError("give a model folder or the name of a backend")
        return _factory(name)(None, threads=threads)
    manifest = manifests.load(folder)
    backend = _factory(name or manifest.backend)(folder, threads=threads)
    if manifest.prompt_encoder is None:
        return backend
    from vla_policy.serving.listening import listen_before  # noqa: PLC0415  imports ONNX Runtime

    return listen_before(backend, folder, manifest)


def _factory(name: str) -> BackendFactory:
    if target := BUILT_IN.get(name):
        module, _, attribute = target.partition(":")
        try:
            return cast("BackendFactory", getattr(import_module(module), attribute))
        except ModuleNotFoundError as error:
            raise ModelError(f"backend {name!r} needs the Python package {error.name!r}, which is missing") from error
    others = entry_points(group=ENTRY_POINT_GROUP)
    if name in others.names:
        return cast("BackendFactory", others[name].load())
    known = ", ".join(sorted({*BUILT_IN, *others.names}))
    raise ModelError(f"backend {name!r} is not installed; this server has {known}")
