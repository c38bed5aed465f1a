"""The model that a component brings along, and the configuration of the nucleus."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from gg_bridge.configuration import parse
from gg_bridge.payload import NO_PAYLOAD, Payload, from_environment
from vla_core import manifest as manifests
from vla_core.errors import ConfigError, EvergreenError
from vla_core.manifest import Manifest

CARRIED = Payload("file:/opt/evergreen/payload", "1.1.0", "a" * 64)


def model_folder(folder: Path, version: str = "1.1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(name="white", version=version, policy_type="expert", backend="expert", joint_names=("pan",))
    manifests.write(folder, manifest)
    return folder


@pytest.mark.parametrize("document", [{}, {"model": {}}, {"model": None}, {"model": {"uri": ""}}, {"other": 1}])
def test_a_configuration_without_an_address_is_completed(document: dict[str, object]) -> None:
    wish = parse(CARRIED.complete(document))
    assert (wish.uri, wish.version, wish.sha256) == (CARRIED.uri, CARRIED.version, CARRIED.sha256)
    assert not CARRIED.warning(document)


def test_prompt_and_swap_stay_the_configurations() -> None:
    document = {"model": {"prompt": "pick", "swap": "restart", "version": "0.9", "sha256": "b" * 64}}
    wish = parse(CARRIED.complete(document))
    assert (wish.prompt, wish.swap, wish.version, wish.sha256) == ("pick", "restart", "1.1.0", "a" * 64)


def test_an_address_of_the_configuration_wins_and_is_warned_of() -> None:
    document = {"model": {"uri": "s3://bucket/old"}}
    assert CARRIED.complete(document) is document
    assert '"reset": ["/model"]' in CARRIED.warning(document)
    assert not NO_PAYLOAD.warning(document)


@pytest.mark.parametrize("document", [None, 3, {"model": 7}])
def test_nonsense_is_left_to_who_complains_about_it(document: object) -> None:
    assert CARRIED.complete(document) == document
    assert not CARRIED.warning(document)


def test_a_folders_version_and_hash_come_from_its_manifest(tmp_path: Path) -> None:
    """Else the same folder in the next image would be the same wish, and nothing would be swapped."""
    folder = model_folder(tmp_path / "payload")
    first = from_environment({"EVERGREEN_PAYLOAD": f"file:{folder}"})
    assert first.version == "1.1.0"
    assert first.sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    second = from_environment({"EVERGREEN_PAYLOAD": f"file:{model_folder(folder, '1.2.0')}"})
    assert parse(first.complete({})).digest != parse(second.complete({})).digest


def test_an_archive_is_taken_as_described(tmp_path: Path) -> None:
    uri = f"file:{tmp_path}/white.tar.gz"
    given = {"EVERGREEN_PAYLOAD": uri, "EVERGREEN_PAYLOAD_VERSION": "2", "EVERGREEN_PAYLOAD_SHA256": "c" * 64}
    assert from_environment(given) == Payload(uri, "2", "c" * 64)


def test_no_variable_is_no_payload() -> None:
    assert from_environment({"EVERGREEN_PAYLOAD": ""}) == NO_PAYLOAD
    assert NO_PAYLOAD.complete({}) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"EVERGREEN_PAYLOAD": "ftp://host/model"},
        {"EVERGREEN_PAYLOAD": "file:/m.tar", "EVERGREEN_PAYLOAD_SHA256": "short"},
        {"EVERGREEN_PAYLOAD": "file:/m.tar", "EVERGREEN_PAYLOAD_VERSION": "a b"},
    ],
)
def test_wrong_variables_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        from_environment(wrong)


def test_a_folder_that_is_no_model_or_another_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvergreenError):
        from_environment({"EVERGREEN_PAYLOAD": str(tmp_path)})
    folder = model_folder(tmp_path / "payload")
    with pytest.raises(ConfigError, match=r"white@1\.1\.0"):
        from_environment({"EVERGREEN_PAYLOAD": str(folder), "EVERGREEN_PAYLOAD_VERSION": "9"})


def test_a_payload_is_a_value() -> None:
    assert replace(CARRIED) == CARRIED
