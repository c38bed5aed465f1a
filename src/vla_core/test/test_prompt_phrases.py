"""What a prompt's vector is taken for, and the file that the known phrases come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vla_core.errors import ConfigError, ModelError
from vla_core.prompt_phrases import Match, Phrases

BLACK, WHITE, NOTHING = np.eye(3, dtype=np.float32)
PHRASES = Phrases(
    texts=("the black cube", "the white cube", "sing"),
    targets=("black", "white", ""),
    vectors=np.stack([BLACK, WHITE, NOTHING]),
    centroids={"black": BLACK, "white": WHITE},
    least_similarity=0.6,
    least_lead=0.3,
    encoder_sha256="0" * 64,
)


def towards(*weights: float) -> np.ndarray:
    vector = np.array(weights, np.float32)
    return vector / np.linalg.norm(vector)


def test_near_one_target() -> None:
    match = PHRASES.match("the dark one", towards(0.9, 0.2, 0.1))
    assert (match.target, match.phrase, match.reason) == ("black", "the black cube", "")
    assert match.similarity == pytest.approx(0.97, abs=0.01)


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (towards(0.1, 0.1, 0.9), "asks for nothing known: it is nearest to 'sing'"),
        (towards(0.5, 0.1, 0.7), "asks for nothing known"),
        (towards(0.9, 0.7, 0.1), "is not clear: nearest is 'the black cube'"),
        (towards(0.5, 0.0, 0.49, 0.6)[:3], "is not clear: nearest is 'the black cube'"),
        (towards(-1, -1, -0.5), "asks for nothing known"),
    ],
)
def test_near_none(vector: np.ndarray, reason: str) -> None:
    match = PHRASES.match("hm", vector)
    assert match.target == ""
    assert reason in match.reason


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_said_asks_for_nothing_wherever_it_is_encoded_to(text: str) -> None:
    assert "empty" in PHRASES.match(text, BLACK).reason


@pytest.mark.parametrize("text", ["please don't take the dark one", "Don\u2019t!", "do NOT pick it", "never the black"])
def test_what_denies_is_not_acted_on_wherever_it_is_encoded_to(text: str) -> None:
    match = PHRASES.match(text, towards(0.9, 0.2, 0.1))
    assert match.target == ""
    assert "say what to do instead" in match.reason


def test_a_word_that_denies_within_another_is_none() -> None:
    assert PHRASES.match("the knotty one", towards(0.9, 0.2, 0.1)).target == "black"


def test_a_page_is_not_repeated_in_the_reason() -> None:
    assert len(PHRASES.match("x" * 100_000, NOTHING).reason) < 300


def test_to_the_wire_and_back() -> None:
    for vector in (BLACK, NOTHING):
        match = PHRASES.match("hm", vector)
        assert Match.from_wire(match.to_wire()) == match


@pytest.mark.parametrize(
    "raw", [None, "black", {}, {"text": "x", "target": "", "phrase": "", "similarity": 1, "reason": ""}]
)
def test_what_other_servers_may_send_is_no_match(raw: object) -> None:
    assert Match.from_wire(raw) is None


def test_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(PHRASES.to_json())
    read = Phrases.load(path)
    assert read.texts == PHRASES.texts
    assert read.targets == PHRASES.targets
    np.testing.assert_array_equal(read.vectors, PHRASES.vectors)
    np.testing.assert_array_equal(read.vector_of("white"), WHITE)
    with pytest.raises(ConfigError, match="knows black, white"):
        read.vector_of("pink")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2 is another release's"),
        ({"vectors": "AAAA"}, "lists no phrases"),
        ({"vectors": "?"}, "lists no phrases"),
        ({"dim": 0}, "lists no phrases"),
        ({"least_similarity": 1.5}, "not between 0 and 1"),
        ({"targets": {}}, "at least one target"),
        ({"phrases": [["the black cube", "black"]]}, "as many targets"),
        ({"phrases": [["a", "black"], ["b", "pink"], ["c", ""]]}, "ask for 'pink'"),
        ({"phrases": 7}, "lists no phrases"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, change: dict, reason: str) -> None:
    path = tmp_path / "phrases.json"
    path.write_text(json.dumps(json.loads(PHRASES.to_json()) | change))
    with pytest.raises(ModelError, match=reason):
        Phrases.load(path)
    with pytest.raises(ModelError, match="cannot be read"):
        Phrases.load(tmp_path / "absent.json")
