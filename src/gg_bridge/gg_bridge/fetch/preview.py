"""Looking at a model's manifest without fetching the model."""

from __future__ import annotations

import hashlib
import io

from gg_bridge.fetch.errors import FetchError
from gg_bridge.fetch.run import model_folder, open_remote
from gg_bridge.fetch.source import HttpPlace, LocalPlace, Place, S3Place, Source, is_delta, parse
from gg_bridge.fetch.transfer import Remote
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.delta.header import length_with_header, read
from vla_core.delta.rebuild import read_header
from vla_core.manifest import Manifest
from vla_core.signing import Trust


def preview(source: Source, trust: Trust) -> Manifest | None:
    """The manifest at `source`, which fits version, hash and trust; None for an archive elsewhere, which is there.

    Nothing is tried twice: whoever looks ahead has little time.

    Raises:
        EvergreenError: it cannot be had, or is not what was asked for.
    """
    place = parse(source)
    if is_delta(place):
        return _of_delta(source, trust, place)
    if isinstance(place, LocalPlace) and place.path.is_file():
        manifest, text = archives.read_manifest(place.path)
        return _checked(source, trust, manifest, text)  # the archive's hash takes as long as fetching it
    if isinstance(place, LocalPlace):
        content = (model_folder(place.path) / manifests.FILE_NAME).read_bytes()
    else:
        remote = open_remote(place)
        if isinstance(place, HttpPlace | S3Place) and place.is_archive:
            with remote.open("", 0, ""):
                return None
        content = _read(remote)
    if source.sha256 and (found := hashlib.sha256(content).hexdigest()) != source.sha256:
        raise FetchError(
            f"the manifest at {source.shown} has SHA-256 {found} where {source.sha256} was asked for", retryable=False
        )
    text = content.decode("utf-8", errors="replace")
    return _checked(source, trust, manifests.parse(text, source.shown), text)


def _read(remote: Remote) -> bytes:
    content = bytearray()
    with remote.open(manifests.FILE_NAME, 0, "") as opened:
        for block in opened.blocks:
            content += block
            if len(content) > manifests.MAX_BYTES:
                raise FetchError(f"{remote.shown(manifests.FILE_NAME)} is too long for a manifest", retryable=False)
    return bytes(content)


def _of_delta(source: Source, trust: Trust, place: Place) -> Manifest:
    """The manifest that a delta leads to, from its first bytes."""
    if isinstance(place, LocalPlace):
        header = read_header(place.path)
    else:
        beginning = bytearray()
        with open_remote(place).open("", 0, "") as opened:
            for block in opened.blocks:
                beginning += block
                if len(beginning) >= length_with_header(beginning):
                    break
        header = read(io.BytesIO(beginning), source.shown)
    if source.sha256 and hashlib.sha256(header.text.encode()).hexdigest() != source.sha256:
        raise FetchError(f"the manifest in {source.shown} is another than was asked for by SHA-256", retryable=False)
    return _checked(source, trust, header.manifest, header.text)


def _checked(source: Source, trust: Trust, manifest: Manifest, text: str) -> Manifest:
    if source.version not in ("", manifest.version):
        raise FetchError(
            f"{source.shown} holds {manifest.label} where version {source.version} was asked for", retryable=False
        )
    trust.check(text, source.shown)
    return manifest
