"""Who plays in the story: the model before, the model after, and the broken one; and their archives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from evergreen.demo.models import EXPERT, Choice, choose
from evergreen.update import broken
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.errors import ConfigError
from vla_sim.targets import target_of

BLACK: Final = ("evergreen-black", "act-black", EXPERT)
WHITE: Final = ("evergreen-white", "act-white")
"""The first of each that there is."""
WHITE_PROMPT: Final = "pick the white cube and put it on the spot"


@dataclass(frozen=True, slots=True)
class Part:
    """One model of the story.

    Attributes:
        choice: the model, its folder and why it plays.
        target: the cube that its prompt names.
        uri: where deployments say that it is: an archive, or a folder.
    """

    choice: Choice
    target: str
    uri: str = ""

    @property
    def label(self) -> str:
        """`name@version`."""
        return self.choice.manifest.label


@dataclass(frozen=True, slots=True)
class Cast:
    """All three; `broken` is a broken copy of one of the others."""

    before: Part
    after: Part
    broken: Part

    def lines(self) -> list[str]:
        """For people: who plays what, and why."""
        parts = {"before": self.before, "after": self.after, "broken": self.broken}
        return [f"{name:7} {part.label} ({part.choice.reason})" for name, part in parts.items()]


def assemble(before: str, after: str, kind: str, folder: Path, models: Path) -> Cast:
    """Find the models and pack them into archives in `folder`.

    Args:
        before: name or folder of the model that drives first; empty: the best-suited one in `models`.
        after: of the one that takes over; empty likewise, or else the scripted expert with a prompt of its own.
        kind: how the third one is broken, see `evergreen.update.broken`.
        folder: for archives and made-up models.
        models: folder of the shipped models.

    Raises:
        ConfigError: there is no such model, or it cannot be broken.
    """
    first = _part(_find(before, BLACK, models))
    second = _part(_find(after, WHITE, models) if after or first_of(WHITE, models) else _made_up_white(folder, models))
    if first.label == second.label:
        raise ConfigError(f"{first.label} cannot take over from itself; name another model with --from or --to")
    return Cast(first, _packed(second, folder), _broken(kind, (second, first), folder, models))


def _part(choice: Choice) -> Part:
    return Part(choice, target_of(choice.manifest.prompt))


def first_of(names: Sequence[str], models: Path) -> str:
    """The first of these that there is in `models`; empty where there is none."""
    return next((name for name in names if (models / name / manifests.FILE_NAME).is_file()), "")


def _find(wanted: str, usual: tuple[str, ...], models: Path) -> Choice:
    if wanted:
        return choose(wanted, models)
    name = first_of(usual, models)
    if not name:
        raise ConfigError(f"none of the models {', '.join(usual)} is in {models}; name one with --from and --to")
    missing = usual[: usual.index(name)]
    reason = f"{models} has no {' and no '.join(missing)}" if missing else f"the first choice in {models}"
    return replace(choose(name, models), reason=reason)


def _made_up_white(folder: Path, models: Path) -> Choice:
    """The scripted expert under another name and prompt."""
    expert = manifests.load(models / EXPERT)
    made = folder / "expert-white"
    made.mkdir()
    manifests.write(made, replace(expert, name="expert-white", prompt=WHITE_PROMPT))
    reason = f"the scripted expert, sent for the white cube, since {models} has no {' and no '.join(WHITE)}"
    return Choice(made, manifests.load(made), reason)


def _packed(part: Part, folder: Path) -> Part:
    archive = folder / f"{part.choice.manifest.name}-{part.choice.manifest.version}.tar"
    archives.pack(part.choice.folder, part.choice.manifest, archive)
    return replace(part, uri=f"file:{archive}")


def _broken(kind: str, parts: Sequence[Part], folder: Path, models: Path) -> Part:
    """A broken copy of the model that drives by then; where that has no weights, of another one."""
    name = first_of((*WHITE, *BLACK), models)
    others = [_part(choose(name, models))] if name else []
    sound = next((part for part in (*parts, *others) if broken.ONNX in part.choice.manifest.files), None)
    if sound is None:
        raise ConfigError(f"neither model has weights that could be broken, nor has one in {models}; name another --to")
    made = folder / "broken"
    manifest = broken.make(kind, sound.choice.folder, made)
    reason = {broken.NAN: "its weights are NaN", broken.HASH: "a byte is not what its manifest says"}[kind]
    return Part(Choice(made, manifest, f"{sound.label}, but {reason}"), sound.target, f"file:{made}")
