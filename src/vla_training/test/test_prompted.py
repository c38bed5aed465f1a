"""Episodes in which a policy is told what to do, the table of prompts, and the expert as the proof of the harness."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vla_core.errors import ConfigError
from vla_sim.layout import Aspect
from vla_sim.world import HOME_RAD, World
from vla_training import measure, prompt_rows
from vla_training.evaluate import HELD_OUT_SEED, EpisodeResult, LoopSettings
from vla_training.phrases import known, unseen
from vla_training.prompted import ExpertPolicy, Kind, Row, Trial, run_trial, trials_of

pytestmark = pytest.mark.sim

SETTINGS = LoopSettings(variety="varied")
ROWS = (
    Row(Kind.OTHER_COLOUR, ("red please",), ("red",)),
    Row(Kind.ABSENT, ("green please",), ("green",)),
    Row(Kind.BEFORE_GRASP, ("black please", "white please"), ("black", "white")),
    Row(Kind.CARRYING, ("blue please", "red please"), ("blue", "red")),
)
MEANINGS = prompt_rows.meanings_of(ROWS)


@pytest.fixture(scope="module")
def world():
    made = World(cameras=("front",))
    yield made
    made.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind.value)
def test_the_expert_succeeds_in_every_kind(world, row):
    trial = Trial(row, HELD_OUT_SEED + 1)
    result = run_trial(world, ExpertPolicy(world, MEANINGS, SETTINGS), trial, SETTINGS)
    assert result.success, result
    assert not result.wrong_lifted
    assert set(world.truth().cubes) == set(trial.names("varied"))
    if row.kind is Kind.CARRYING:
        assert world.was_lifted("blue")
        assert world.was_lifted("red")
    elif row.kind is not Kind.ABSENT:
        assert not any(world.was_lifted(name) for name in world.truth().cubes if name != row.targets[-1])


class Deaf(ExpertPolicy):
    """Does what it was told first, whatever it is told afterwards."""

    told = False

    def prompt(self, text):
        if self.told:
            return ""
        self.told = True
        return super().prompt(text)


@pytest.mark.parametrize("row", ROWS[2:], ids=lambda row: row.kind.value)
def test_who_does_not_listen_to_the_change_fails(world, row):
    trial = Trial(row, HELD_OUT_SEED + 1)
    result = run_trial(world, Deaf(world, MEANINGS, SETTINGS), trial, replace(SETTINGS, limit_s=8.0))
    assert not result.success
    assert not result.placed
    assert result.wrong_lifted == (row.kind is Kind.BEFORE_GRASP)


def test_who_fetches_something_else_where_the_cube_is_absent_fails(world):
    trial = Trial(ROWS[1], HELD_OUT_SEED + 1)
    other = next(name for name in trial.names("varied") if name in ("black", "white", "red", "blue", "yellow"))
    result = run_trial(world, ExpertPolicy(world, {"green please": other}, SETTINGS), trial, SETTINGS)
    assert not result.success
    assert result.note == "the arm did not stay at rest"
    assert result.time_s < 8


class Still:
    """Rests, and understands nothing but what is green."""

    def prompt(self, text):
        return "" if "green" in text else f"{text!r} is not clear"

    def __call__(self, picture, state):
        return np.tile(HOME_RAD, (20, 1))


def test_resting_is_right_where_the_cube_is_absent_and_a_prompt_that_is_not_understood_is_a_failure(world):
    rests = run_trial(world, Still(), Trial(ROWS[1], HELD_OUT_SEED), SETTINGS)
    assert rests.success
    refused = run_trial(world, Still(), Trial(ROWS[0], HELD_OUT_SEED), SETTINGS)
    assert not refused.success
    assert measure.why(refused) == "not understood: 'red please' is not clear"
    waits = Row(Kind.CARRYING, ("green please", "red please"), ("green", "red"))
    never = run_trial(world, Still(), Trial(waits, HELD_OUT_SEED), replace(SETTINGS, limit_s=1.0))
    assert not never.success
    assert "never lifted" in never.note


def test_trials_are_the_same_every_time_and_their_cubes_are_what_is_asked_for():
    for row in ROWS:
        for seed in range(30):
            names = Trial(row, seed).names("varied")
            assert names == Trial(row, seed).names("varied")
            assert 2 <= len(names) <= 4
            assert all((target in names) == (row.kind is not Kind.ABSENT) for target in row.targets)
            assert len(Trial(row, seed).names(Aspect.DISTRACTORS)) == 4


def test_rows_do_not_share_scenes():
    first, few, many = (
        {(trial.row, trial.seed) for trial in trials_of(ROWS, range(start, start + count), 1000)}
        for start, count in ((HELD_OUT_SEED, 1), (HELD_OUT_SEED, 5), (HELD_OUT_SEED, 20))
    )
    assert first < few < many
    assert len(many) == len({seed for _, seed in many}) == 20 * len(ROWS)


def test_processes_play_trials_as_one_does():
    trials = [Trial(ROWS[1], seed) for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 2)]
    subject = measure.Subject(None, meanings=MEANINGS)
    alone, together = (list(measure.play(subject, trials, replace(SETTINGS, limit_s=0.5), jobs)) for jobs in (1, 2))
    assert [each.result for each in alone] == [each.result for each in together]


class TestRows:
    def test_the_shipped_ones_have_every_kind_and_are_what_they_say(self):
        rows = prompt_rows.load_rows(prompt_rows.SHIPPED)
        assert {row.kind for row in rows} == set(Kind)
        for row in rows:
            for prompt, target in zip(row.prompts, row.targets, strict=True):
                assert prompt in (unseen(target) if row.kind is Kind.UNSEEN else known(target)), prompt

    def test_json_lines_are_read_like_yaml(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        change = {
            "kind": "changed before grasp",
            "prompt": "a",
            "target": "red",
            "then": {"prompt": "b", "target": "blue"},
        }
        path.write_text(json.dumps(change) + "\n\n" + json.dumps({"kind": "known", "prompt": "a", "target": "red"}))
        first, second = prompt_rows.load_rows(path)
        assert (first.prompts, first.targets) == (("a", "b"), ("red", "blue"))
        assert (second.kind, second.prompts) == (Kind.KNOWN, ("a",))

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("", "list of rows"),
            ("- {kind: sung, prompt: a, target: red}", "row 1.*sung"),
            ("- {kind: known, target: red}", "row 1.*prompt"),
            ("- {kind: known, prompt: a, target: pink}", "pink"),
            ("- {kind: known, prompt: a, target: red, colour: b}", "'colour' is none of"),
            ("- {kind: changed before grasp, prompt: a, target: red}", "has 2 prompts"),
            ("- {kind: known, prompt: a, target: red, then: {prompt: b, target: blue}}", "has 1 prompts"),
            ("- just text", "row 1"),
            ("{", "cannot be read"),
        ],
    )
    def test_a_bad_file_is_one_line(self, tmp_path, text, word):
        path = tmp_path / "rows.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=word) as found:
            prompt_rows.load_rows(path)
        assert "\n" not in str(found.value)

    def test_the_summary_counts_by_row_and_by_kind(self):
        good = EpisodeResult(1, True, True, True, False, False, 0.01, 0.0, 5.0, 0.05)
        bad = replace(good, success=False, wrong_lifted=True, note="not understood: x")
        played = [(Trial(row, seed), good if seed else bad) for row in ROWS[:2] for seed in range(3)]
        summary = json.loads(json.dumps(prompt_rows.summarise_rows("m", "", played, SETTINGS)))
        assert (summary["episodes"], summary["successes"], summary["wrong_object"]) == (6, 4, 2)
        assert summary["kinds"]["absent"] == {
            "episodes": 3,
            "successes": 2,
            "success_rate": 0.6667,
            "interval_95": summary["rows"][1]["interval_95"],
            "failed_but_placed": 1,
            "wrong_object": 1,
            "not_understood": 1,
            "median_s": 5.0,
        }
        assert [row["prompts"] for row in summary["rows"]] == [["red please"], ["green please"]]


@pytest.mark.parametrize(
    ("change", "word"), [({"targets": ("pink",)}, "pink"), ({"prompts": ("a", "b")}, "has 1 prompts")]
)
def test_an_impossible_row_is_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        replace(ROWS[0], **change)
