"""`evergreen eval` and `evergreen train` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import ROOT, Commands

SHIPPED = sorted(path.parent for path in (ROOT / "models").glob("*/policy.onnx"))


@pytest.fixture
def commands(tmp_path: Path):
    made = Commands(tmp_path)
    yield made
    made.close()


@pytest.mark.sim
def test_a_shipped_model_is_measured_and_the_figures_hold_what_is_promised(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "figures" / "eval.json"
    words = ["eval", "--model", SHIPPED[0], "--episodes", 4, "--plain", "--json", path]
    running = commands([*words, "--failures", tmp_path / "failures.png"])
    assert running.finish(120) == 0, running.text()
    found = json.loads(path.read_text())
    assert {"model", "episodes", "successes", "interval_95", "wrong_object", "median_s", "shift", "seeds"} <= set(found)
    assert found["model"] == SHIPPED[0].name
    assert found["episodes"] == 4
    assert found["successes"] >= 3, found
    assert found["seeds"] == [1_000_000, 1_000_003]
    assert f"{found['successes']} of 4 placed" in running.text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "--model", "nowhere"], "model folder nowhere does not exist"),
        (["eval", "--model", "models/expert"], "has no policy.onnx"),
        (["eval", "--model", "models/expert", "--shift", "colour"], "invalid choice: 'colour'"),
        (["eval", "--taught", "nowhere.json", "--target", "black", "--episodes", 1], "nowhere.json"),
        (["eval", "--taught", "nowhere.json", "--graph"], "evergreen teach replay"),
        (["eval"], "--model"),
        (["train", "nowhere"], "neither a file nor one of evergreen_black"),
    ],
)
def test_what_cannot_be_measured_or_trained_is_one_line(commands: Commands, words: list[object], said: str) -> None:
    running = commands(words)
    assert running.finish(60) in (1, 2)
    assert said in running.text()
    assert "Traceback" not in running.text()
