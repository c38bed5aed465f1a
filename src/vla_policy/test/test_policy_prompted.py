"""A real policy server with a model that listens: encoder, phrases and policy belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_prompts
from tiny_prompts import TURN_RAD, change_manifest, write_encoder, write_prompted

from vla_core import manifest as manifests
from vla_core.errors import ManifestError, ModelError, WireError
from vla_core.prompt_phrases import FILE_NAME, Match
from vla_policy.serving.backends import load_backend
from vla_policy.serving.prompt_encoder import ENCODER_FILE, Listener


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_prompted(tmp_path / "tiny")


def observation(prompt: object = "") -> Mapping[str, object]:
    picture = np.zeros((tiny_prompts.HEIGHT, tiny_prompts.WIDTH, 3), np.uint8)
    state = np.zeros(6, np.float32)
    return {"observation.images.front": picture, "observation.state": state, "prompt": prompt}


@pytest.mark.parametrize(
    ("prompt", "target"), [("pick the black cube", "black"), ("The DARK cube!", "black"), ("a pale cube", "white")]
)
def test_the_policy_is_fed_the_vector_of_what_the_prompt_asks_for(folder: Path, prompt: str, target: str) -> None:
    answer = load_backend(folder).open_session().infer(observation(prompt))
    np.testing.assert_allclose(answer["actions"][:, 0], TURN_RAD[target], atol=0.03)
    match = Match.from_wire(answer["prompt"])
    assert match is not None
    assert (match.target, match.text, match.reason) == (target, prompt, "")


@pytest.mark.parametrize("prompt", ["sing a song", "", "the black white cube", "xyz"])
def test_an_unclear_prompt_is_answered_with_no_actions(folder: Path, prompt: str) -> None:
    answer = load_backend(folder).open_session().infer(observation(prompt))
    assert answer["actions"].shape == (0, 6)
    match = Match.from_wire(answer["prompt"])
    assert match is not None
    assert match.reason


def test_a_prompt_is_encoded_once(folder: Path) -> None:
    listener = Listener.load(folder, manifests.load(folder))
    assert listener.understand("the pale cube") is listener.understand("the pale cube")
    assert listener.understand("the dark cube").target == "black"


def test_what_is_no_text(folder: Path) -> None:
    with pytest.raises(WireError, match="'prompt' must be text, not int"):
        load_backend(folder).open_session().infer(observation(7))


def test_a_client_without_a_prompt_gets_the_models_own(folder: Path) -> None:
    given = {key: value for key, value in observation().items() if key != "prompt"}
    assert len(load_backend(folder).open_session().infer(given)["actions"]) == tiny_prompts.HORIZON


def test_the_metadata_say_what_can_be_asked_for(folder: Path) -> None:
    about = load_backend(folder).metadata()
    assert about["listens"] is True
    assert about["targets"] == ["black", "white"]


def test_another_encoder_is_refused(folder: Path) -> None:
    """Its vectors would mean other things to the policy."""
    write_encoder(folder, noise=0.05)
    change_manifest(folder)
    with pytest.raises(ModelError, match="belong to different prompt encoders: the manifest wants words"):
        load_backend(folder)


def test_other_phrases_than_the_encoders_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_encoder(other, noise=0.05)
    (folder / FILE_NAME).write_text((other / FILE_NAME).read_text())
    change_manifest(folder)
    with pytest.raises(ModelError, match="belong to different prompt encoders"):
        load_backend(folder)


@pytest.mark.parametrize("name", [ENCODER_FILE, FILE_NAME])
def test_a_damaged_or_missing_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ManifestError, match="does not match its SHA-256"):
        load_backend(folder)
    (folder / name).unlink()
    change_manifest(folder)
    with pytest.raises(ManifestError, match=f"lists no {name}"):
        load_backend(folder)


def test_a_graph_that_wants_a_prompts_vector_needs_an_encoder(folder: Path) -> None:
    manifest = manifests.load(folder)
    manifests.write(folder, replace(manifest, prompt_encoder=None))
    with pytest.raises(ModelError, match=r"wants observation\.environment_state.*name the prompt_encoder there"):
        load_backend(folder)


def test_a_manifest_through_its_text(folder: Path) -> None:
    manifest = manifests.load(folder)
    assert manifests.parse(manifest.to_json()) == manifest
    assert manifest.prompt_encoder is not None
    for wrong in ({"id": "x", "sha256": "0", "dim": 3}, {"id": "x", "sha256": "0" * 64, "dim": 0}, {"id": "x"}):
        manifests.write(folder, manifest)
        change_manifest(folder, prompt_encoder=wrong)
        with pytest.raises(ManifestError):
            manifests.load(folder)
