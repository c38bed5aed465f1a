"""Addresses: which are understood, which refused, and what of them is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gg_bridge.fetch.source import HttpPlace, HubPlace, LocalPlace, Place, S3Place, Source, parse
from vla_core.errors import ConfigError


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models/evergreen-black", LocalPlace(Path("models/evergreen-black"))),
        ("/models/a b", LocalPlace(Path("/models/a b"))),
        ("~/m", LocalPlace(Path("~/m").expanduser())),
        ("file:/models/a%20b", LocalPlace(Path("/models/a b"))),
        ("file:///models/x", LocalPlace(Path("/models/x"))),
        ("file://localhost/models/x", LocalPlace(Path("/models/x"))),
        ("greengrass:/gg/artifacts/a%20b", LocalPlace(Path("/gg/artifacts/a%20b"))),
        ("https://host/a/b?x=1#frag", HttpPlace("https://host/a/b?x=1")),
        ("HTTPS://host/a", HttpPlace("https://host/a")),
        ("http://127.0.0.1:80/a", HttpPlace("http://127.0.0.1:80/a")),
        ("s3://bucket/a/b/", S3Place("bucket", "a/b")),
        ("s3://bucket", S3Place("bucket", "")),
        ("hf:owner/name", HubPlace("owner/name")),
        ("hf:owner/na.me-1@v1.0", HubPlace("owner/na.me-1", "v1.0")),
        ("hf:owner/name@refs/pr/1", HubPlace("owner/name", "refs/pr/1")),
        ("hf:owner/name/sub/folder@main", HubPlace("owner/name", "main", "sub/folder")),
        ("hf://owner/name", HubPlace("owner/name")),
    ],
)
def test_addresses(uri: str, expected: Place):
    assert parse(Source(uri)) == expected


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ftp://host/x", "none of"),
        ("https:///x", "names no host"),
        ("https://host:port/x", "is no address"),
        ("https://user:secret@host/x", "holds a password"),
        ("http://host/x", "use https, or give sha256"),
        ("file://host/x", "names the host"),
        ("file:x", "absolute path"),
        ("greengrass:x", "absolute path"),
        ("s3:bucket", "names no bucket"),
        ("s3://B_/x", "names no bucket"),
        ("hf:name", "malformed"),
        ("hf:owner/name/../x", "malformed"),
        ("hf:owner/name@..", "malformed"),
        ("hf:owner/..", "malformed"),
        ("hf:owner/name@a?b", "malformed"),
    ],
)
def test_addresses_that_are_refused(uri: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        parse(Source(uri))
    assert "secret" not in str(caught.value)


def test_sources_that_are_none():
    for uri in ("", "a\nb", "a\0b"):
        with pytest.raises(ConfigError):
            Source(uri)
    with pytest.raises(ConfigError, match="64 lower-case hex digits"):
        Source("/x", sha256="abc")


def test_plain_http_with_a_hash_is_taken():
    assert parse(Source("http://host/x", sha256="0" * 64)) == HttpPlace("http://host/x")


def test_archives_are_known_by_their_suffix():
    assert HttpPlace("https://host/x.tar.gz?y=1").is_archive
    assert not HttpPlace("https://host/x?y=.tar.gz").is_archive
    assert S3Place("bucket", "a/x.zip").is_archive


def test_staging_is_the_same_for_the_same_wish_only():
    one = Source("/x")
    assert one.key == Source("/x").key
    assert len({one.key, Source("/y").key, Source("/x", "1").key, Source("/x", "", "0" * 64).key}) == 4
    assert Source("https://host/x?token=SECRET").shown == "https://host/x"
