"""A folder becomes a model: its manifest is made or brought up to date, signed and put into an archive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from vla_core import archives, manifest, signing
from vla_core.contents import check_content
from vla_core.errors import ConfigError, ManifestError, SignatureError
from vla_core.manifest import Manifest
from vla_core.signing import Trust
from vla_core.store.checks import refuse_strangers, verify_folder
from vla_core.store.space import human

_OWN = frozenset({"format", "files", "signature"})
"""Fields that packing writes itself."""
Entries: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Path of each file to its size and SHA-256, as a manifest has them."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What packing may do to a model that has a manifest already; by default it only adds.

    Attributes:
        repack: take other files under the same name and version.
        drop_signature: let the signature go that does not fit any more.
    """

    repack: bool = False
    drop_signature: bool = False


ONLY_ADD = Allowed()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Fields of the manifest that the user gives."""

    fields: Mapping[str, Any]

    @classmethod
    def parse(cls, name: str | None, version: str | None, prompt: str | None, settings: Sequence[str]) -> Wanted:
        """Read the command line.

        Raises:
            ConfigError: a setting is no KEY=JSON, or is of a field that packing writes itself.
        """
        fields: dict[str, Any] = {}
        for setting in settings:
            key, assigned, text = setting.partition("=")
            if not assigned or key in _OWN:
                raise ConfigError(f"--set {setting}: write KEY=JSON; {', '.join(sorted(_OWN))} are written by packing")
            try:
                fields[key] = json.loads(text)
            except ValueError as error:
                raise ConfigError(f"--set {setting}: {text!r} is no JSON ({error}); texts need their quotes") from error
        named = {"name": name, "version": version, "prompt": prompt}
        return cls(fields | {key: value for key, value in named.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Packed:
    """What came out.

    Attributes:
        folder: of the model.
        manifest: as it is now.
        sha256: of manifest.json: what `sha256` of a deployment may name.
        unsigned: whether it lost a signature.
        archive: its file, if there is one.
        archive_sha256: of that file.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    unsigned: bool
    archive: Path | None
    archive_sha256: str

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "label": self.manifest.label,
            "folder": str(self.folder),
            "files": len(self.manifest.files),
            "size_bytes": self.manifest.size_bytes,
            "manifest_sha256": self.sha256,
            "signed_by": self.manifest.signature.key_id if self.manifest.signature else "",
            "archive": str(self.archive) if self.archive else "",
            "archive_sha256": self.archive_sha256,
        }

    def lines(self) -> list[str]:
        """For people."""
        size = human(self.manifest.size_bytes)
        lines = [f"{self.manifest.label}: {len(self.manifest.files)} files, {size}, manifest sha256 {self.sha256}"]
        if self.manifest.signature:
            lines.append(f"signed by key {self.manifest.signature.key_id}")
        elif self.unsigned:
            lines.append("it changed, so its signature was removed; sign it with `evergreen model sign`")
        if self.archive:
            lines.append(f"{self.archive}: {human(self.archive.stat().st_size)}, sha256 {self.archive_sha256}")
        return lines


def pack(
    folder: Path, wanted: Wanted, *, key_file: Path | None, archive: Path | None, allowed: Allowed = ONLY_ADD
) -> Packed:
    """Check the folder, bring its manifest up to date, sign it and write the archive, as asked.

    Raises:
        ManifestError: the folder holds what a model may not, its manifest lacks something, or its recorded files are
            damaged or changed under the same version.
        SignatureError: it would lose its signature.
        ConfigError: no such key.
    """
    key = signing.load_private(key_file) if key_file else None  # before anything is written
    before = _read(folder)
    document = _bring_up_to_date(folder, before, wanted, allowed)
    changed = before is None or _body(document) != _body(before)
    if before is not None and changed and key is None and not allowed.drop_signature:
        _refuse_to_unsign(folder, before)
    if changed:
        document.pop("signature", None)
    text = json.dumps({"format": manifest.FORMAT, **document}, indent=2) + "\n"
    manifest.parse(text, str(folder / manifest.FILE_NAME))
    if changed:
        manifest.write_text(folder, text)
    if key:
        signing.sign_folder(folder, key)
    packed = verify_folder(folder, Trust())
    if archive:
        archives.pack(folder, packed, archive)
    return Packed(
        folder,
        packed,
        manifest.sha256_file(folder / manifest.FILE_NAME),
        changed and before is not None and "signature" in before,
        archive,
        manifest.sha256_file(archive) if archive else "",
    )


def _read(folder: Path) -> dict[str, Any] | None:
    """The manifest as it is, if there is one."""
    if not folder.is_dir():
        raise ManifestError(f"model folder {folder} does not exist")
    path = folder / manifest.FILE_NAME
    if not path.exists():
        return None
    try:
        document = json.loads(manifest.read_text(path))
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{path}: must be a JSON object")
    return document


def _bring_up_to_date(
    folder: Path, before: Mapping[str, Any] | None, wanted: Wanted, allowed: Allowed
) -> dict[str, Any]:
    """The manifest's fields with those that are wanted, and with the files that are there."""
    everything = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    refuse_strangers(folder, frozenset(everything))  # links and devices
    files = manifest.list_files(folder)
    for name in files:
        manifest.check_path(name)
    entries = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in files.items()}
    if before is not None and not allowed.repack and _is_same_version(before, wanted):
        _refuse_other_content(folder, before, entries)
    for name in files:
        check_content(folder / name)
    if before is None and not {"name", "version", "policy_type", "backend", "joint_names"} <= wanted.fields.keys():
        raise ManifestError(
            f"{folder} has no {manifest.FILE_NAME}: give --name, --version, --set policy_type=…, --set backend=… and "
            "--set joint_names=[…] to make one, and the rest of docs/models.md where its defaults do not fit"
        )
    fields = {key: value for key, value in (before or {}).items() if key != "format"} | dict(wanted.fields)
    return fields | {"files": entries}


def _is_same_version(before: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether name and version stay."""
    return all(wanted.fields.get(key, before.get(key)) == before.get(key) for key in ("name", "version"))


def _refuse_other_content(folder: Path, before: Mapping[str, Any], entries: Entries) -> None:
    """A version never changes: files that it recorded must be there, as they were.

    Raises:
        ManifestError: naming all that are not, and what to do.
    """
    recorded = before.get("files")
    if not isinstance(recorded, dict):
        return
    if differences := describe_differences(recorded, entries):
        raise ManifestError(
            f"{folder} is not what its {manifest.FILE_NAME} says: {', '.join(differences)}. If that is damage, bring "
            "them here again; if it is meant, give it a new version (`evergreen model pack --version V`, `evergreen "
            "release deploy --model-version V`), or, if no robot ever got it, `evergreen model pack --repack`"
        )


def describe_differences(recorded: Entries, present: Entries) -> list[str]:
    """Each recorded file that is missing or another, and in what; files that came are no difference."""
    return [
        f"{name} {_difference(entry, present.get(name))}"
        for name, entry in sorted(recorded.items())
        if present.get(name) != entry
    ]


def _difference(recorded: Any, present: Mapping[str, Any] | None) -> str:
    if present is None:
        return "is missing"
    size = recorded.get("size") if isinstance(recorded, dict) else None
    if size is not None and present["size"] != size:
        return f"has {present['size']} bytes instead of {size}"
    return "has other content"


def _refuse_to_unsign(folder: Path, before: Mapping[str, Any]) -> None:
    """Keep a signature from vanishing unasked.

    Raises:
        SignatureError: there is one.
    """
    if signature := before.get("signature"):
        by = f" by key {signature.get('key_id')}" if isinstance(signature, dict) else ""
        raise SignatureError(
            f"{folder} would lose its signature{by}, which does not fit what it becomes: sign it anew with --key FILE, "
            "or let the signature go with `evergreen model pack --drop-signature`"
        )


def _body(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("format", "signature")}
