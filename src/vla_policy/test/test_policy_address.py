import pytest

from vla_core.errors import ConfigError
from vla_policy.serving.address import parse_address


@pytest.mark.parametrize(
    ("text", "uri", "local"),
    [
        ("unix:/run/evergreen/policy.sock", "ws://localhost/", True),
        ("tcp:127.0.0.1:8765", "ws://127.0.0.1:8765/", True),
        ("tcp:[::1]:8765", "ws://[::1]:8765/", True),
        ("ws://robot.local:8000/pi0", "ws://robot.local:8000/pi0", False),
        ("ws://robot.local", "ws://robot.local:80/", False),
        ("wss://models.example.org", "wss://models.example.org:443/", False),
        ("wss://models.example.org/v1?a=b", "wss://models.example.org:443/v1?a=b", False),
    ],
)
def test_addresses(text: str, uri: str, local: bool):
    address = parse_address(text)
    assert address.uri == uri
    assert address.is_local is local
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no address"),
        ("http://x:1", "is no address"),
        ("robot:8000", "is no address"),
        ("ws://", "is no address"),
        ("ws://user:secret@host:1", "is no address"),
        ("tcp:host", "lacks a port"),
        ("tcp:host:99999", "out of range"),
        ("tcp:host:http", "could not be cast"),
        ("unix:relative.sock", "must be absolute"),
        ("unix:/" + "x" * 120, "EVERGREEN_RUN_DIR"),
    ],
)
def test_what_is_none(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        parse_address(text)
