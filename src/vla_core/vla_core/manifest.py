"""`manifest.json`: what a model folder holds, what it needs of a robot and where it came from.

A model is a folder: the manifest, an ONNX graph or a LeRobot checkpoint, and text. Only safetensors, ONNX, JSON and
text are accepted: nothing in a model is ever unpickled or executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from vla_core.errors import ConfigError, ManifestError
from vla_core.joints import Conversion, JointLimits, Units
from vla_core.observation import IMAGE_KEY
from vla_core.pipeline import PIPELINE_ID

FILE_NAME = "manifest.json"
FORMAT = 1
ALLOWED_SUFFIXES = frozenset({".onnx", ".safetensors", ".json", ".txt", ".md", ".yaml"})
MAX_BYTES = 4 << 20
"""A manifest with more is no manifest: 4096 files need about 1 MB."""
MAX_FILES = 4096
MAX_PATH_BYTES, MAX_PART_BYTES = 1024, 255
"""Linux's limit for a name, and a quarter of that for a path, so that a store's own folder fits before it."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model's name and a version may be; never `.`, `..` or an option."""
_LEFT_OUT_WHEN_EMPTY = ("signature", "joint_units", "joint_ranges", "camera_keys", "action_offset", "prompt_encoder")
"""Came after the first manifests; where they say nothing, older releases still read the file."""
_REQUIRED = ("name", "version", "policy_type", "backend", "joint_names")
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
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
        if type(self.size) is not int or self.size < 0 or not _SHA256.fullmatch(self.sha256):
            raise ManifestError(f"file entry needs a size in bytes and 64 hex digits, not {self.size}, {self.sha256!r}")


@dataclass(frozen=True, slots=True)
class Signature:
    """Who vouches for a manifest: the key's id and, in base64, its Ed25519 signature (see `vla_core.signing`)."""

    key_id: str
    value: str

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.key_id) or not 0 < len(self.value) <= 128:
            raise ManifestError(f"signature needs a key_id and 64 bytes in base64, not {self.key_id!r}, {self.value!r}")


@dataclass(frozen=True, slots=True)
class PromptEncoding:
    """The prompt encoder that a policy was trained with: another would feed it vectors that it never saw.

    Attributes:
        id: for people.
        sha256: of the file `prompt_encoder.onnx`.
        dim: numbers in the vector that the policy is fed.
    """

    id: str
    sha256: str
    dim: int

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.id) or not _SHA256.fullmatch(self.sha256):
            raise ManifestError(f"prompt_encoder needs an id and 64 hex digits, not {self.id!r}, {self.sha256!r}")
        if type(self.dim) is not int or not 1 <= self.dim <= 4096:
            raise ManifestError(f"prompt_encoder's dim {self.dim!r} is not between 1 and 4096")


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
        joint_units: joints whose units are others, such as LeRobot's gripper.
        joint_ranges: calibrated range in rad of each joint that speaks percent of it.
        camera_keys: camera name to the checkpoint's feature, where that is not `observation.images.<camera>`.
        action_offset: periods from the observation to the first action that the checkpoint gives; 0 is the
            observation's own time. What is served always begins there.
        rate_hz: rate of its actions.
        chunk_size: actions in a chunk.
        open_loop_s: how much of a chunk should be played before the next replaces it.
        n_obs_steps, observation_period_s: history that the policy looks at.
        image_pipeline: identity of the decode-and-resize function it was trained with.
        prompt: default language instruction.
        files: relative path to size and hash; all files of the folder but the manifest itself.
        provenance: data, seed, commit, success with counts: free form, for people.
        prompt_encoder: what turns a prompt into the vector that the policy is fed; None: it does not listen, or reads
            the text itself.
        signature: of everything else in the manifest, which through the hashes is of every file; None: unsigned.
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
    signature: Signature | None = None
    joint_units: Mapping[str, Units] = field(default_factory=dict)
    joint_ranges: Mapping[str, JointLimits] = field(default_factory=dict)
    camera_keys: Mapping[str, str] = field(default_factory=dict)
    action_offset: int = 0
    prompt_encoder: PromptEncoding | None = None

    def __post_init__(self) -> None:
        for label, value in (("name", self.name), ("version", self.version)):
            if not isinstance(value, str) or not NAME.fullmatch(value):
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
        if len(self.files) > MAX_FILES:
            raise ManifestError(f"{len(self.files)} files are more than the {MAX_FILES} that a model may have")
        for path in self.files:
            check_path(path)
            for above in PurePosixPath(path).parents:
                if str(above) in self.files:
                    raise ManifestError(f"file {path!r} lies below {str(above)!r}, which is a file too")
        self._check_checkpoint()

    def _check_checkpoint(self) -> None:
        """What only a LeRobot checkpoint needs."""
        if unknown := [name for name in (*self.joint_units, *self.joint_ranges) if name not in self.joint_names]:
            raise ManifestError(f"joint_units or joint_ranges name {unknown[0]!r}, which is not in joint_names")
        if unknown := [name for name in self.camera_keys if name not in self.cameras]:
            raise ManifestError(f"camera_keys name {unknown[0]!r}, which is not in cameras")
        if abs(self.action_offset) > self.chunk_size:
            raise ManifestError(f"action_offset {self.action_offset} is longer than the chunk of {self.chunk_size}")
        try:
            self.conversion()
        except ConfigError as error:
            raise ManifestError(f"{error}; give it in joint_ranges") from error

    def conversion(self) -> Conversion:
        """Between the checkpoint's units and rad, in the order of `joint_names`."""
        return Conversion.by_name(self.joint_names, self.units, self.joint_units, self.joint_ranges)

    def camera_key(self, camera: str) -> str:
        """The checkpoint's feature that `camera` feeds."""
        return self.camera_keys.get(camera, IMAGE_KEY + camera)

    @property
    def dof(self) -> int:
        """Number of joints."""
        return len(self.joint_names)

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def size_bytes(self) -> int:
        """Of all listed files together."""
        return sum(entry.size for entry in self.files.values())

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        fields = {"format": FORMAT, **asdict(self)}
        for name in _LEFT_OUT_WHEN_EMPTY:
            if not fields[name]:
                del fields[name]
        return json.dumps(fields, indent=2) + "\n"


def check_path(path: str) -> None:
    """Let through what may name a file of a model: relative, below its folder, of an accepted kind.

    Raises:
        ManifestError: the path leaves the folder, is not written in its shortest form, is too long, or could hold code.
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not parts.parts:
        raise ManifestError(f"file {path!r} would lie outside the model's folder")
    if str(parts) != path or not path.isprintable() or path == FILE_NAME:
        raise ManifestError(f"file {path!r} is no plain relative path of a file beside {FILE_NAME}")
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts.parts):
        raise ManifestError(f"file {path[:60]!r}… has a longer name than {MAX_PART_BYTES} bytes a part")
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
    except (ValueError, RecursionError) as error:  # RecursionError: nested a thousand deep
        raise ManifestError(f"{origin}: not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ManifestError(f"{origin}: must be a JSON object")
    if raw.pop("format", None) != FORMAT:
        raise ManifestError(f"{origin}: key 'format' must be {FORMAT}; this file was written for another release")
    _check_fields(raw, origin)
    try:
        return Manifest(**_typed(raw))
    except (TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{origin}: {error}") from error
    except (ManifestError, ConfigError) as error:
        raise ManifestError(f"{origin}: {error}") from error


def _typed(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of JSON as a manifest's own."""
    if "cameras" in raw:
        raw["cameras"] = {name: CameraInput(**size) for name, size in raw["cameras"].items()}
    if "files" in raw:
        raw["files"] = {path: FileEntry(**entry) for path, entry in raw["files"].items()}
    if "units" in raw:
        raw["units"] = Units(raw["units"])
    if "joint_units" in raw:
        raw["joint_units"] = {name: Units(units) for name, units in raw["joint_units"].items()}
    if "joint_ranges" in raw:
        raw["joint_ranges"] = {name: JointLimits(**limits) for name, limits in raw["joint_ranges"].items()}
    if raw.get("signature") is not None:
        raw["signature"] = Signature(**raw["signature"])
    if raw.get("prompt_encoder") is not None:
        raw["prompt_encoder"] = PromptEncoding(**raw["prompt_encoder"])
    raw["joint_names"] = tuple(raw.get("joint_names", ()))
    return raw


def _check_fields(raw: Mapping[str, Any], origin: str) -> None:
    """Name what is missing or unknown as the one who wrote the file knows it."""
    if missing := [name for name in _REQUIRED if name not in raw]:
        raise ManifestError(f"{origin}: lacks {', '.join(missing)}")
    if unknown := [name for name in raw if name not in Manifest.__dataclass_fields__]:
        raise ManifestError(f"{origin}: unknown field {unknown[0]!r}; docs/models.md lists those that there are")


def load(folder: Path) -> Manifest:
    """Read the manifest of a model folder; hashes are left to `verify`.

    Raises:
        ManifestError: no such folder, no manifest in it, or a malformed one.
    """
    if not folder.is_dir():
        raise ManifestError(f"model folder {folder} does not exist; `ls {folder.parent}` shows what is there")
    path = folder / FILE_NAME
    try:
        return parse(read_text(path), str(path))
    except FileNotFoundError as error:
        raise ManifestError(f"{folder} is no model: it has no {FILE_NAME}") from error


def read_text(path: Path) -> str:
    """The text of a manifest; FileNotFoundError where it is absent, ManifestError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{path}: has more than the {MAX_BYTES} bytes that a manifest may have")
    return text


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
    verify_sizes(folder, manifest)
    for name, entry in manifest.files.items():
        if sha256_file(folder / name) != entry.sha256:
            raise ManifestError(f"{folder / name} does not match its SHA-256 in the manifest: fetch it again")


def verify_sizes(folder: Path, manifest: Manifest) -> None:
    """The part of `verify` that reads no file.

    Raises:
        ManifestError: the first file that is missing or cut short.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ManifestError(f"{path} is missing; fetch {manifest.label} again")
        size = path.stat().st_size
        if size != entry.size:
            raise ManifestError(f"{path} has {size} bytes where the manifest says {entry.size}: fetch it again")


def verify_file(folder: Path, manifest: Manifest, name: str) -> None:
    """As `verify`, one file.

    Raises:
        ManifestError: it is not listed, missing, cut short or changed.
    """
    if name not in manifest.files:
        raise ManifestError(f"{folder}: its manifest lists no {name}; fetch {manifest.label} again, or export it again")
    verify(folder, replace(manifest, files={name: manifest.files[name]}))


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Size and hash of every file below `folder` but the manifest, for writing one."""
    return {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / FILE_NAME
    }


def write(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` into `folder` and return its path."""
    return write_text(folder, manifest.to_json())


def write_text(folder: Path, text: str) -> Path:
    """Put `text` in the place of the manifest at one stroke: nobody ever reads half of one."""
    path = folder / FILE_NAME
    temporary = path.with_suffix(".json.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
