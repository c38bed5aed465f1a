"""Pack and sign the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evergreen.model.packing import Wanted, describe_differences, pack
from evergreen.release.journal import Leftover
from evergreen.release.steps import View
from evergreen.release.work import Work
from vla_core import manifest as manifests
from vla_core import signing
from vla_core.contents import check_content
from vla_core.errors import ManifestError, SignatureError
from vla_core.store.checks import refuse_strangers
from vla_core.store.space import human


class Pack:
    """Looks at every file, brings the manifest up to date, signs it, makes an archive where one is needed."""

    title = "pack and sign"
    settles = False

    def __init__(self, work: Work, folder: Path, wanted: Wanted, key: Path | None, archive: Path | None) -> None:
        self._work, self._folder, self._wanted, self._key, self._archive = work, folder, wanted, key, archive

    def would(self) -> Sequence[str]:
        """See `Step`."""
        lines = [f"check the files of {self._folder} and bring its manifest.json up to date"]
        lines += [f"set {key} = {value!r}" for key, value in self._wanted.fields.items()]
        lines.append(f"sign it with {self._key}" if self._key else "not signed anew: no --key")
        return lines + (["write an archive of it"] if self._archive else [])

    def foresee(self) -> Sequence[str]:
        """See `Step`; the files are read."""
        if self._key:
            signing.load_private(self._key)
        _demand_packable(self._folder, self._wanted.fields, signed_anew=self._key is not None)
        return []

    def needless(self) -> str:
        """Never: whether the files are right is worth a look."""
        return ""

    def leaves(self) -> Leftover | None:
        """Nothing: the manifest is the folder's own."""
        return None

    def run(self, view: View) -> str:
        """See `Step`."""
        view.say(str(self._folder))
        packed = pack(self._folder, self._wanted, key_file=self._key, archive=self._archive)
        work = self._work
        work.label, work.manifest, work.manifest_sha256 = packed.manifest.label, packed.manifest, packed.sha256
        work.archive, work.archive_sha256 = packed.archive, packed.archive_sha256
        signature = packed.manifest.signature
        signed = f"signed by {signature.key_id}" if signature else "not signed"
        return f"{work.label}, {human(packed.manifest.size_bytes)}, {signed}"


def _demand_packable(folder: Path, wanted: Mapping[str, Any], *, signed_anew: bool) -> None:
    """Look as `pack` does, and write nothing.

    Raises:
        ManifestError: a file may not be in a model, or the recorded ones are others under the same version.
        SignatureError: the model would lose its signature.
    """
    manifest = manifests.load(folder)
    refuse_strangers(folder, frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*")))
    present = {name: asdict(entry) for name, entry in manifests.list_files(folder).items()}
    recorded = {name: asdict(entry) for name, entry in manifest.files.items()}
    for name in present:
        manifests.check_path(name)
        check_content(folder / name)
    is_same_version = wanted.get("version", manifest.version) == manifest.version
    if is_same_version and (differences := describe_differences(recorded, present)):
        raise ManifestError(
            f"{folder} is not what its {manifests.FILE_NAME} says: {', '.join(differences)}. If that is damage, bring "
            "them here again; if it is meant, give it a new version with --model-version V"
        )
    if manifest.signature and not signed_anew and not (is_same_version and present == recorded):
        raise SignatureError(f"{folder} would lose its signature, which does not fit what it becomes: give --key FILE")
