"""Which model a demo runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_core import manifest
from vla_core.errors import ConfigError, ManifestError
from vla_core.manifest import Manifest

AUTO = "auto"
EXPERT = "expert"
TARGET = "black"
"""The cube that the demo is about unless somebody names a model."""
BETTER_THAN = 0.5
"""A learned model takes over from the scripted expert once it succeeds more often than not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The model's folder, its manifest, and why it was chosen."""

    folder: Path
    manifest: Manifest
    reason: str


def measured_success(model: Manifest) -> tuple[int, int] | None:
    """Successes and episodes, from the manifest's provenance; None where nobody measured."""
    success = model.provenance.get("success")
    if not isinstance(success, dict):
        return None
    successes, episodes = success.get("successes"), success.get("episodes")
    if not isinstance(successes, int) or not isinstance(episodes, int) or episodes < 1:
        return None
    return successes, episodes


def choose(wanted: str, folder: Path) -> Choice:
    """Find `wanted` (`auto`, a name below `folder`, or a path).

    `auto` takes the learned model with the best measured success with the black cube, if it is above one half, else the
    expert.

    Raises:
        ConfigError: there is no such model; the message lists those that there are.
        ManifestError: its manifest is broken.
    """
    if wanted == AUTO:
        return _best(folder)
    for path in (folder / wanted, Path(wanted)):
        if (path / manifest.FILE_NAME).is_file():
            return Choice(path, manifest.load(path), "asked for")
    known = ", ".join(_known(folder)) or "none"
    raise ConfigError(f"no model {wanted!r}: neither a folder with {manifest.FILE_NAME} nor one of {known} in {folder}")


def _known(folder: Path) -> Sequence[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{manifest.FILE_NAME}"))


def _best(folder: Path) -> Choice:
    rated: list[tuple[float, str, Manifest]] = []
    for name in _known(folder):
        try:
            model = manifest.load(folder / name)
        except ManifestError:
            continue  # a broken neighbour is no reason not to run a sound one
        success = measured_success(model)
        if name != EXPERT and success is not None and TARGET in model.prompt.lower():
            rated.append((success[0] / success[1], name, model))
    best = max(rated, default=None, key=lambda entry: entry[:2])
    if best and best[0] > BETTER_THAN:
        successes, episodes = measured_success(best[2]) or (0, 0)
        return Choice(folder / best[1], best[2], f"placed {successes} of {episodes} when it was evaluated")
    reason = f"no learned model in {folder} beats {BETTER_THAN:.0%}"
    return Choice(folder / EXPERT, manifest.load(folder / EXPERT), reason)
