"""Where a model comes from: `file:`, `https:`, `s3:`, `hf:`, `greengrass:` or a path."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from vla_core.archives import is_archive
from vla_core.delta.header import SUFFIX
from vla_core.errors import ConfigError

KINDS = "file:/path, https://host/path, s3://bucket/prefix, hf:owner/name@revision, greengrass:/path, or a path"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?P<folder>(?:/[\w.-]+)*)(?:@(?P<revision>[\w./-]+))?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Source:
    """A model to fetch, and what is known of it beforehand.

    Attributes:
        uri: where it is.
        version: that its manifest must name; "" takes any.
        sha256: of its manifest.json, also where a delta leads to it, or of the archive; "" takes any.
    """

    uri: str
    version: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.uri:
            raise ConfigError(f"a source is needed: {KINDS}")
        if not self.uri.isprintable():
            raise ConfigError(f"source {self.uri[:60]!r} holds characters that no address has")
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(f"sha256 {self.sha256!r} must be 64 lower-case hex digits")

    @property
    def key(self) -> str:
        """Name of the staging folder: the same for the same source, so that a fetch finds its earlier try."""
        return hashlib.sha256(json.dumps([self.uri, self.version, self.sha256]).encode()).hexdigest()[:32]

    @property
    def shown(self) -> str:
        """For people and logs: without what may be a secret."""
        return without_secrets(self.uri)


DELTAS = ".deltas"
"""Ends the name of the folder beside a model where deltas to it lie."""


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A folder or an archive on this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class HttpPlace:
    """A folder's URL, or an archive's."""

    url: str

    @property
    def is_archive(self) -> bool:
        """Whether one file holds the model."""
        return is_archive(urllib.parse.urlsplit(self.url).path)


@dataclass(frozen=True, slots=True)
class S3Place:
    """A folder (key prefix) in a bucket, or an archive."""

    bucket: str
    key: str

    @property
    def is_archive(self) -> bool:
        """Whether one object holds the model."""
        return is_archive(self.key)


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A folder of a model repository on the Hugging Face hub; "" is its root."""

    repository: str
    revision: str = "main"
    folder: str = ""


Place: TypeAlias = LocalPlace | HttpPlace | S3Place | HubPlace


def is_delta(place: Place) -> bool:
    """Whether the address is that of a delta (`vla_core.delta`)."""
    return not isinstance(place, HubPlace) and _path_of(place).endswith(SUFFIX)


def deltas_of(place: HttpPlace | S3Place | HubPlace) -> HttpPlace | S3Place | HubPlace:
    """Where deltas to the model at `place` lie; at the root of a bucket or repository that is the folder `deltas`."""
    if isinstance(place, HubPlace):
        return replace(place, folder=f"{place.folder}{DELTAS}" if place.folder else DELTAS[1:])
    if isinstance(place, S3Place):
        return replace(place, key=f"{place.key}{DELTAS}" if place.key else DELTAS[1:])
    path = _path_of(place).rstrip("/")
    return _at(place, f"{path}{DELTAS}" if path else f"/{DELTAS[1:]}")


def whole_of(place: Place) -> Place | None:
    """Where the model lies to which the delta at `place` leads; None where its address does not tell."""
    if isinstance(place, HubPlace):
        return None
    above = _path_of(place).rpartition("/")[0]
    if not above.endswith(DELTAS):
        return None
    path = above.removesuffix(DELTAS)
    if isinstance(place, LocalPlace):
        return LocalPlace(Path(path))
    return S3Place(place.bucket, path) if isinstance(place, S3Place) else _at(place, path)


def _path_of(place: LocalPlace | HttpPlace | S3Place) -> str:
    if isinstance(place, LocalPlace):
        return str(place.path)
    return place.key if isinstance(place, S3Place) else urllib.parse.urlsplit(place.url).path


def _at(place: HttpPlace, path: str) -> HttpPlace:
    return HttpPlace(urllib.parse.urlunsplit(urllib.parse.urlsplit(place.url)._replace(path=path)))


def parse(source: Source) -> Place:
    """Read a source's address.

    Raises:
        ConfigError: no such kind of address, or a malformed one.
    """
    uri = source.uri
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else ""
    if not match:
        return LocalPlace(Path(uri).expanduser())
    rest = uri[match.end() :]
    if scheme in ("http", "https"):
        return _http(source, scheme)
    if scheme == "s3":
        return _s3(uri)
    if scheme == "hf":
        return _hub(rest, uri)
    if scheme in ("file", "greengrass"):
        return _local(rest, uri)
    raise ConfigError(f"source {source.shown!r} begins with {scheme!r}:, which is none of {KINDS}")


def without_secrets(uri: str) -> str:
    """An address without its query, which holds a presigned address's credentials."""
    return re.sub(r"(://)[^/@]*@", r"\1", uri.split("?", 1)[0].split("#", 1)[0])


def _local(rest: str, uri: str) -> LocalPlace:
    path = rest
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise ConfigError(f"source {uri!r} names the host {host!r}; write file:/path for a file of this machine")
        path = slash + tail
    path = urllib.parse.unquote(path) if uri.lower().startswith("file:") else path
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(f"source {uri!r} needs an absolute path, for example file:/models/evergreen-black")
    return LocalPlace(Path(path))


def _http(source: Source, scheme: str) -> HttpPlace:
    try:
        parts = urllib.parse.urlsplit(source.uri)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError as error:
        raise ConfigError(f"source {source.shown!r} is no address: {error}") from error
    if not host:
        raise ConfigError(f"source {source.shown!r} names no host")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"source {source.shown!r} holds a password, which would end in logs; use a presigned address")
    if scheme == "http" and host not in LOOPBACK and not source.sha256:
        raise ConfigError(
            f"source {source.shown!r}: anybody on the way could change plain http; use https, or give sha256"
        )
    return HttpPlace(urllib.parse.urlunsplit(parts._replace(fragment="")))


def _s3(uri: str) -> S3Place:
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"source {uri!r} names no bucket; write s3://bucket/prefix")
    return S3Place(bucket, key.strip("/"))


def _hub(rest: str, uri: str) -> HubPlace:
    match = _HUB.fullmatch(rest.removeprefix("//"))
    if not match or any(set(part) <= {"."} for part in re.split(r"[/@]", match.group(0))):
        raise ConfigError(
            f"source {uri!r} is malformed; write hf:owner/name@revision, or hf:owner/name/folder@revision"
        )
    return HubPlace(match["repository"], match["revision"] or "main", match["folder"].strip("/"))
