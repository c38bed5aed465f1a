"""What `evergreen eval --prompts` plays, and the table that it prints."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from evergreen import prompt_evaluation
from evergreen.evaluation import SCENES_A_SEED, Options, seeds_of
from vla_training import prompt_rows
from vla_training.evaluate import EpisodeResult, LoopSettings
from vla_training.prompted import Kind, Row, Trial, trials_of

pytestmark = pytest.mark.sim

ROWS = (
    Row(Kind.KNOWN, ("the red one",), ("red",)),
    Row(Kind.BEFORE_GRASP, ("the red one", "the blue one"), ("red", "blue")),
)


def options(seed: int) -> Options:
    return Options(
        subject=None, taught=False, target="", episodes=3, seed=seed, variety="varied", time_limit_s=20.0,
        latency_s=0.1, jobs=1, failures=None,
    )  # fmt: skip


def test_no_seed_plays_the_scenes_of_another() -> None:
    played = [
        trial.seed for seed in range(3) for trial in trials_of(ROWS, seeds_of(options(seed), len(ROWS)), SCENES_A_SEED)
    ]
    assert len(set(played)) == len(played) == 3 * 3 * len(ROWS)


def test_what_ends_on_the_spot_and_fails_all_the_same_is_shown() -> None:
    good = EpisodeResult(1, True, True, True, False, False, 0.01, 0.0, 5.0, 0.05)
    results = [good, replace(good, success=False), replace(good, success=False, placed=False)]
    played = [(Trial(row, seed), result) for row in ROWS for seed, result in enumerate(results)]
    out = io.StringIO()
    summary = prompt_rows.summarise_rows("m", "", played, LoopSettings())
    prompt_evaluation.show(summary, Console(file=out, width=140))
    assert [counts["failed_but_placed"] for counts in (summary, *summary["rows"])] == [2, 1, 1]
    (line,) = [line for line in out.getvalue().splitlines() if "the red one → the blue one" in line]
    assert [cell.strip() for cell in line.split("│")[2:5]] == ["1 of 3", "6%-79%", "1"]
