"""`manifest.json`: what a model folder holds, what it needs of a robot and where it came from.

A model is a folder: the manifest, an ONNX graph or a LeRobot checkpoint, and text. Only safetensors, ONNX, JSON and
text are accepted: nothing in a model is ever unpickled or executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vla_core.errors import ManifestError
from vla_core.joints import Units
from vla_core.pipeline import PIPELINE_ID

FILE_NAME = "manifest.json"
FORMAT = 1
ALLOWED_SUFFIXES = frozenset({".onnx", ".safetensors", ".json", ".txt", ".md", ".yaml", ".png", ".model"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CameraInput:
    """Size in px at which the model sees one camera."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if not (0 < self.width <= 8192 and 0 < self.height <= 8192):
            raise ManifestError(f"camera size {self.width}x{self.height} px is not between 1 and 8192")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the model: size in bytes and SHA-256 in lower-case hex."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0 or not _SHA256.fullmatch(self.sha256):
            raise ManifestError(f"file entry needs a size in bytes and 64 hex digits, not {self.size}, {self.sha256!r}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is, and what it needs of the robot that runs it.

    Attributes:
        name, version: together they name one immutable set of files.
        policy_type: LeRobot's type (`act`, `smolvla`, …) or `expert`.
        backend: which backend of the policy server runs it (`onnx`, `torch`, `expert`).
        cameras: camera name to the size at which the model sees it.
        joint_names: order of the state's and the actions' columns.
        units: of the checkpoint; an ONNX graph always speaks rad.
        rate_hz: rate of its actions.
        chunk_size: actions in a chunk.
        open_loop_s: how much of a chunk should be played before the next replaces it.
        n_obs_steps, observation_period_s: history that the policy looks at.
        image_pipeline: identity of the decode-and-resize function it was trained with.
        prompt: default language instruction.
        files: relative path to size and hash; all files of the folder but the manifest itself.
        provenance: data, seed, commit, success with counts: free form, for people.
    """

    name: str
    version: str
    policy_type: str
    backend: str
    joint_names: tuple[str, ...]
    cameras: Mapping[str, CameraInput] = field(default_factory=dict)
    units: Units = Units.RAD
    rate_hz: float = 10.0
    chunk_size: int = 20
    open_loop_s: float = 0.5
    n_obs_steps: int = 1
    observation_period_s: float = 0.1
    image_pipeline: str = PIPELINE_ID
    prompt: str = ""
    licence: str = "Apache-2.0"
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, value in (("name", self.name), ("version", self.version)):
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise ManifestError(f"{label} {value!r} may hold letters, digits, '.', '_' and '-', at most 64")
        if not self.joint_names or len(set(self.joint_names)) != len(self.joint_names):
            raise ManifestError(f"joint_names must be present and distinct, not {list(self.joint_names)}")
        if not 0.5 <= self.rate_hz <= 1000:
            raise ManifestError(f"rate_hz {self.rate_hz} is not between 0.5 and 1000")
        if not 1 <= self.chunk_size <= 10_000:
            raise ManifestError(f"chunk_size {self.chunk_size} is not between 1 and 10000")
        if not 0 < self.open_loop_s <= self.chunk_size / self.rate_hz:
            raise ManifestError(
                f"open_loop_s {self.open_loop_s} must lie within the chunk, 0 to {self.chunk_size / self.rate_hz} s"
            )
        if self.n_obs_steps < 1 or self.observation_period_s <= 0:
            raise ManifestError("n_obs_steps must be at least 1 and observation_period_s positive")
        for path in self.files:
            _check_path(path)

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.joint_names)

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def _check_path(path: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not parts.parts:
        raise ManifestError(f"file {path!r} would lie outside the model's folder")
    if parts.suffix not in ALLOWED_SUFFIXES:
        raise ManifestError(
            f"file {path!r}: models may hold {', '.join(sorted(ALLOWED_SUFFIXES))}; nothing that could run code"
        )


def parse(text: str, origin: str = FILE_NAME) -> Manifest:
    """Build a manifest from JSON text.

    Raises:
        ManifestError: not JSON, unknown or missing keys, or values out of range; the message starts with `origin`.
    """
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{origin}: not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"{origin}: must be a JSON object")
    if raw.pop("format", None) != FORMAT:
        raise ManifestError(f"{origin}: key 'format' must be {FORMAT}; this file was written for another release")
    try:
        if "cameras" in raw:
            raw["cameras"] = {name: CameraInput(**size) for name, size in raw["cameras"].items()}
        if "files" in raw:
            raw["files"] = {path: FileEntry(**entry) for path, entry in raw["files"].items()}
        if "units" in raw:
            raw["units"] = Units(raw["units"])
        raw["joint_names"] = tuple(raw.get("joint_names", ()))
        return Manifest(**raw)
    except (TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{origin}: {error}") from error
    except ManifestError as error:
        raise ManifestError(f"{origin}: {error}") from error


def load(folder: Path) -> Manifest:
    """Read the manifest of a model folder; hashes are left to `verify`.

    Raises:
        ManifestError: no such folder, no manifest in it, or a malformed one.
    """
    if not folder.is_dir():
        raise ManifestError(f"model folder {folder} does not exist; `ls {folder.parent}` shows what is there")
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ManifestError(f"{folder} is no model: it has no {FILE_NAME}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every listed file's size and SHA-256 with the manifest.

    Raises:
        ManifestError: the first file that is missing, cut short or changed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ManifestError(f"{path} is missing; fetch {manifest.label} again")
        size = path.stat().st_size
        if size != entry.size:
            raise ManifestError(f"{path} has {size} bytes where the manifest says {entry.size}: fetch it again")
        if sha256_file(path) != entry.sha256:
            raise ManifestError(f"{path} does not match its SHA-256 in the manifest: fetch it again")


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below `folder` but the manifest, for writing one."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }


def write(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` into `folder` and return its path."""
    path = folder / FILE_NAME
    path.write_text(manifest.to_json(), encoding="utf-8")
    return path
