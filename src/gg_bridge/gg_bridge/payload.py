"""The model that the component itself brings along: in its image, as its artifact, or fetched by its install script.

A version of the component then stands for a version of the model, and its recipe's run script or its image says where
the model is, by environment variables: the configuration cannot, since Greengrass keeps the values of earlier
deployments and would go on naming the old model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gg_bridge.configuration import SECTION, parse
from gg_bridge.fetch.source import LocalPlace, Source, without_secrets
from gg_bridge.fetch.source import parse as parse_source
from vla_core import manifest as manifests
from vla_core.errors import ConfigError

URI_VARIABLE = "EVERGREEN_PAYLOAD"
VERSION_VARIABLE = "EVERGREEN_PAYLOAD_VERSION"
SHA256_VARIABLE = "EVERGREEN_PAYLOAD_SHA256"


@dataclass(frozen=True, slots=True)
class Payload:
    """What is wished for where the configuration names no model; with an empty `uri` nothing is."""

    uri: str = ""
    version: str = ""
    sha256: str = ""

    def complete(self, document: Any) -> Any:
        """The configuration, with this model where it names none; its prompt and `swap` stay."""
        if not self.uri or not isinstance(document, Mapping):
            return document
        section = document.get(SECTION) or {}
        if not isinstance(section, Mapping) or section.get("uri"):
            return document
        return {**document, SECTION: {**section, "uri": self.uri, "version": self.version, "sha256": self.sha256}}

    def warning(self, document: Any) -> str:
        """Why this model will not run; empty where it will."""
        section = document.get(SECTION) if isinstance(document, Mapping) else None
        named = section.get("uri") if isinstance(section, Mapping) else None
        if not self.uri or not isinstance(named, str) or not named or named == self.uri:
            return ""
        return (
            f"the configuration names {without_secrets(named)}, so that the model which this component brings along "
            f'({self.uri}) does not run; deploy with "reset": ["/{SECTION}"] to change that'
        )


NO_PAYLOAD: Final = Payload()


def from_environment(environment: Mapping[str, str]) -> Payload:
    """The payload that the variables name; of a folder, version and hash are read from its manifest where not given.

    Raises:
        EvergreenError: a variable is wrong, or the folder holds no model.
    """
    uri, version, sha256 = (environment.get(name, "") for name in (URI_VARIABLE, VERSION_VARIABLE, SHA256_VARIABLE))
    if not uri:
        return NO_PAYLOAD
    place = parse_source(Source(uri, version, sha256))
    if isinstance(place, LocalPlace) and place.path.is_dir():
        version, sha256 = _described(place.path, version, sha256)
    payload = Payload(uri, version, sha256)
    parse(payload.complete({}))
    return payload


def _described(folder: Path, version: str, sha256: str) -> tuple[str, str]:
    """What a folder's manifest says; the same place holds another model in the next version of the component."""
    manifest = manifests.load(folder)
    if version and manifest.version != version:
        raise ConfigError(f"{VERSION_VARIABLE} is {version}, but {folder} holds {manifest.label}")
    try:
        found = hashlib.sha256((folder / manifests.FILE_NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{URI_VARIABLE} names {folder}, which cannot be read: {error}") from error
    return manifest.version, sha256 or found
