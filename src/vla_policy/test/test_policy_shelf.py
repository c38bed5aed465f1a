"""Which instruction goes with which model of a store."""

from __future__ import annotations

from pathlib import Path

import pytest
from policy_support import write_model

from vla_core.store import Store
from vla_policy.settings import Settings
from vla_policy.shelf import PROMPT_FILE, Stored, to_go_back


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for version in "123":
        store.adopt(write_model(tmp_path / version, version=version))
    store.set_current("tiny@1")
    store.mark_good("tiny@1")
    return store


def test_a_model_that_failed_takes_its_instruction_along(store: Store):
    """Only the newest was kept: the last good model went on with its successor's, and a policy killed between noting
    the instruction and the model started with the launch file's."""
    shelf = Stored(store)
    shelf.asked_with("tiny@1", "pick the black cube")
    shelf.asked_with("tiny@2", "wave")
    assert shelf.prompt_of("tiny@1") == "pick the black cube"  # killed here, tiny@1 is still current
    shelf.drives("tiny@2")
    settings = to_go_back(Settings(model="tiny@2", prompt="wave"), "tiny@1", shelf)
    assert (settings.model, settings.prompt) == ("tiny@1", "pick the black cube")


def test_one_that_was_never_told_anything(store: Store):
    shelf = Stored(store)
    launched = Settings(model="tiny@2", prompt="the launch file's")
    assert to_go_back(launched, "tiny@1", shelf).prompt == "the launch file's"
    shelf.asked_with("tiny@2", "wave")
    assert to_go_back(Settings(model="tiny@2", prompt="wave"), "tiny@1", shelf).prompt == "", "its own"


def test_no_more_is_kept_than_may_be_needed(store: Store):
    shelf = Stored(store)
    shelf.asked_with("tiny@2", "wave")
    shelf.asked_with("tiny@3", "nod")
    assert (shelf.prompt_of("tiny@2"), shelf.prompt_of("tiny@3")) == (None, "nod")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1, "model": "tiny@1", "prompt": "wave"}'])
def test_a_file_that_says_nothing(store: Store, text: str):
    (store.root / PROMPT_FILE).write_text(text)
    assert Stored(store).prompt_of("tiny@1") is None
