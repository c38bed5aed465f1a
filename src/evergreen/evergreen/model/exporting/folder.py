"""The new model's folder: what is taken over of a checkpoint, and the folders of models that it names."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vla_core import checkpoint, manifest
from vla_core.checkpoint import PROCESSOR_FILES, Checkpoint
from vla_core.errors import ConfigError, ModelError

ONNX_FILE = "policy.onnx"
NOT_NEEDED = frozenset({manifest.FILE_NAME, ONNX_FILE, "train_config.json"})
"""Written anew, or of no use for running."""
WEIGHTS_MODE = 0o644
"""LeRobot writes 0600, which another user's policy server could not read."""
BACKBONE_SUFFIXES = frozenset({".json", ".txt"})
"""Configuration and tokenizer; the weights are in the checkpoint."""


def prepare(
    info: Checkpoint, out: Path | None, backbones: Sequence[tuple[str, Path]], undo: contextlib.ExitStack
) -> tuple[Path, list[str]]:
    """Make the folder; returns it and the files of the checkpoint that were left out.

    Args:
        info: the checkpoint.
        out: where the model goes; None makes the checkpoint itself the model.
        backbones: name in the checkpoint's configuration (empty for every unresolved one) and the folder that it means.
        undo: is given what to do where the model does not come about: whatever was written goes.

    Raises:
        ConfigError: there is something already.
        ModelError: the checkpoint is incomplete, or names a model that is not there.
    """
    folder, left_out = (info.folder, []) if out is None else _copy(info.folder, out, undo)
    if (folder / manifest.FILE_NAME).exists():
        raise ConfigError(f"{folder} is a model already; change it with `evergreen model pack`, or give --out FOLDER")
    for name in (manifest.FILE_NAME, ONNX_FILE):
        if not (folder / name).exists():
            undo.callback((folder / name).unlink, missing_ok=True)
    for name, source in backbones:
        _add_backbone(folder, name, source, undo)
    for origin, config in _configurations(folder):
        checkpoint.localised(folder, origin, config)
    checkpoint.check_safe(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(WEIGHTS_MODE)
    return folder, left_out


def _copy(source: Path, out: Path, undo: contextlib.ExitStack) -> tuple[Path, list[str]]:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is there already and not empty; choose another folder")
    undo.callback(_empty, out, itself=not out.exists())
    left_out = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_dir():
            continue
        if path.suffix not in manifest.ALLOWED_SUFFIXES or name.name in NOT_NEEDED:
            left_out.append(name.as_posix())
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)  # a hub's cache is made of links: their targets are copied
    return out, left_out


def _configurations(folder: Path) -> Iterator[tuple[Path, Mapping[str, object]]]:
    """Every configuration that may name another model, with its file."""
    path = folder / checkpoint.CONFIG_FILE
    yield path, checkpoint.read_json(path)
    for name in PROCESSOR_FILES:
        for step in checkpoint.processor_steps(folder, name):
            yield folder / name, step.get("config") or {}


def _empty(folder: Path, *, itself: bool) -> None:
    """Remove what is in a folder that was empty, and `itself` where it was not there."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if itself and folder.is_dir():
        folder.rmdir()


def _add_backbone(folder: Path, name: str, source: Path, undo: contextlib.ExitStack) -> None:
    if not (source / checkpoint.CONFIG_FILE).is_file():
        raise ConfigError(f"--backbone {source}: there is no {checkpoint.CONFIG_FILE} in it")
    wanted = {value for _, config in _configurations(folder) for _, value in checkpoint.references(config)}
    named = {value for value in wanted if not _is_inside(folder, value)} if not name else {name} & wanted
    if not named:
        raise ConfigError(
            f"--backbone {name or source}: the checkpoint names {', '.join(sorted(wanted)) or 'no model'}"
        )
    for value in named:
        target = folder / Path(value).name
        if not target.exists():
            undo.callback(shutil.rmtree, target, ignore_errors=True)
        target.mkdir(exist_ok=True)
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix in BACKBONE_SUFFIXES and not path.name.endswith(".index.json"):
                shutil.copyfile(path, target / path.name)


def _is_inside(folder: Path, value: str) -> bool:
    try:
        checkpoint.find_inside(folder, folder / checkpoint.CONFIG_FILE, "", value)
    except ModelError:
        return False
    return True
