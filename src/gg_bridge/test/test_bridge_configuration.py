"""The component's configuration."""

from __future__ import annotations

import contextlib
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gg_bridge.configuration import ModelConfiguration, digest_of, parse, schema, unknown_keys
from vla_core.errors import ConfigError

ONE_LINE = re.compile(r"\A[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+\Z")
SHA = "ab" * 32
FULL = {"uri": "https://host/m", "version": "1.2.0", "sha256": SHA, "prompt": "lift it", "swap": "restart"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_defaults_of_schema_and_dataclass_are_the_same() -> None:
    properties = schema()["properties"]["model"]["properties"]
    assert {key: rule["default"] for key, rule in properties.items()} == asdict(ModelConfiguration())


@pytest.mark.parametrize("text", ["lift\0it", "lift \ud83d it"])
def test_what_no_text_can_hold_is_refused_here(text: str) -> None:
    """Half a surrogate passed, then could be neither sent nor reported: the bridge ended with it at each start."""
    with pytest.raises(ConfigError, match=r"model\.prompt holds") as caught:
        parse({"model": {"uri": "file:/m", "prompt": text}})
    assert str(caught.value).encode()


def test_a_malformed_address_is_named_without_its_query() -> None:
    """The first 80 characters of the value were logged and reported, with whatever token was among them."""
    with pytest.raises(ConfigError) as caught:
        parse({"model": {"uri": "https://h/m?sig=sec\nret"}})
    assert "sig=" not in str(caught.value)


def test_all_keys_are_read() -> None:
    assert parse({"model": FULL}) == ModelConfiguration(**FULL)


@pytest.mark.parametrize("document", [None, {}, {"model": None}, {"model": {}}, {"other": 1}, {"model": {"uri": ""}}])
def test_a_missing_value_asks_for_nothing(document: object) -> None:
    assert parse(document) == ModelConfiguration()
    assert parse(document).is_empty


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "the configuration is []; it has to be an object"),
        ({"model": "x"}, 'configuration model is "x"; it has to be an object'),
        ({"model": {"version": 2}}, "configuration model.version is 2; it has to be text, that is, in quotation marks"),
        ({"model": {"uri": None}}, "configuration model.uri is null; it has to be text"),
        ({"model": {"uri": "a\nb"}}, r'configuration model.uri is "a\nb"; it has to be of the form'),
        ({"model": {"sha256": "AB" * 32}}, "SHA-256 of its manifest.json"),
        ({"model": {"version": "../x"}}, "configuration model.version"),
        ({"model": {"swap": "now"}}, 'configuration model.swap is "now"; it has to be blue_green or restart'),
        ({"model": {"prompt": "x" * 1001}}, "…; it has to be at most 1000 characters long"),
    ],
)
def test_a_malformed_value_is_named_with_what_is_allowed(document: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_keys_are_told_of_and_do_no_harm() -> None:
    document = {"model": {"uri": "file:/m", "promt": "x", "zzz": 1}, "camera": 2}
    assert parse(document).uri == "file:/m"
    first, second = unknown_keys(document)
    assert "model.promt" in first
    assert "did you mean 'prompt'?" in first
    assert "there are uri, version" in second


@given(JSON)
def test_whatever_is_in_the_configuration_it_is_read_or_refused_in_one_line(document: object) -> None:
    for whole in (document, {"model": document}, {"model": {"uri": document}}):
        unknown_keys(whole)
        assert len(digest_of(whole)) == 16
        with contextlib.suppress(ConfigError):
            parse(whole)
            continue
        with pytest.raises(ConfigError, match=ONE_LINE):
            parse(whole)


def test_digests_tell_wishes_apart_and_know_them_again() -> None:
    wish = ModelConfiguration(**FULL)
    assert wish.digest == ModelConfiguration(**FULL).digest
    others = [ModelConfiguration(**(FULL | {key: ""})) for key in ("uri", "version", "sha256", "prompt", "swap")]
    assert len({wish.digest, *(other.digest for other in others)}) == 6
    same_payload = [other for other in others if other.payload_digest == wish.payload_digest]
    assert same_payload == [others[3]]
