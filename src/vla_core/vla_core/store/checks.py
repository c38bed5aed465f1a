"""Everything that is asked of a model's folder before a robot may run it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vla_core import manifest as manifests
from vla_core.contents import check_content
from vla_core.errors import ManifestError
from vla_core.manifest import Manifest
from vla_core.signing import Trust


def verify_folder(folder: Path, trust: Trust) -> Manifest:
    """Check a model whole: manifest, signature, no file too many, sizes, hashes, contents.

    Raises:
        ManifestError: the folder and its manifest do not belong together.
        SignatureError: not signed as `trust` demands.
    """
    manifest = inspect_folder(folder, trust)
    manifests.verify(folder, manifest)
    for name in manifest.files:
        check_content(folder / name)
    return manifest


def inspect_folder(folder: Path, trust: Trust) -> Manifest:
    """The part of `verify_folder` that reads no large file: manifest, signature, no file too many or missing, sizes.

    Raises:
        ManifestError: no manifest, or the folder does not hold what it lists.
        SignatureError: not signed as `trust` demands.
    """
    manifest = manifests.load(folder)
    path = folder / manifests.FILE_NAME
    trust.check(manifests.read_text(path), str(path))
    refuse_strangers(folder, frozenset({manifests.FILE_NAME, *manifest.files}))
    manifests.verify_sizes(folder, manifest)
    return manifest


def refuse_strangers(folder: Path, listed: frozenset[str]) -> None:
    """Let no file through that is not in `listed`, and nothing that is neither a plain file nor a folder.

    Raises:
        ManifestError: naming the first one found.
    """
    for parent, folders, files in os.walk(folder):
        for name in sorted((*folders, *files)):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
                raise ManifestError(f"{path} is {kind}; a model holds plain files only")
            if path.relative_to(folder).as_posix() not in listed:
                raise ManifestError(
                    f"{path} is not in the manifest; remove it, or list it with `evergreen model pack {folder}`"
                )
