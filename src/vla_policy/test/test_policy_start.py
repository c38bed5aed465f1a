"""Which model a policy starts with where the store's current one does not load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from policy_logic import SPEC
from policy_support import write_model
from test_policy_loop import SETTINGS, Policy

from vla_core.errors import ModelError
from vla_core.store import Store
from vla_policy.loaded import Loaded
from vla_policy.loader import Loader
from vla_policy.settings import Settings
from vla_policy.shelf import Stored

UPDATE = "tiny@2"


class Engine:
    """Loads every model of a store but those that are broken."""

    def __init__(self, *broken: str) -> None:
        self.broken = set(broken)
        self.prompts: list[str] = []

    def load(self, settings: Settings, folder: Path, let_go: object, _cancelled: object) -> Loaded:
        if settings.model in self.broken:
            raise ModelError(f"{settings.model} has no graph")
        self.prompts.append(settings.prompt)
        spec = replace(SPEC, version=folder.name)
        return Loaded(settings.model, spec, Policy(), SETTINGS, lambda _: spec, let_go)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An update was made before anything had proved good, and what the robot boots now does not load."""
    store = Store(tmp_path / "store")
    store.adopt(write_model(tmp_path / "2", version="2"))
    store.set_current(UPDATE)
    return store


def start(store: Store, engine: Engine, launched: Settings) -> tuple[Loaded, str, list[str]]:
    said: list[str] = []
    settings = replace(launched, model=UPDATE, prompt="wave")
    loaded, reason = Loader(engine, Stored(store), said.append).load_to_start(settings, launched)
    return loaded, reason, said


def test_the_launch_files_model_serves_where_none_has_proved_good(store: Store, tmp_path: Path):
    """The robot never started, although the launch file named a model that loads."""
    Stored(store).asked_with(UPDATE, "wave")
    engine = Engine(UPDATE)
    launched = Settings(model=str(write_model(tmp_path / "1", version="1")), prompt="the launch file's")
    loaded, reason, said = start(store, engine, launched)
    assert loaded.model == store.state().current == "tiny@1"
    assert reason.startswith("tiny@2 does not load: tiny@2 has no graph")
    assert reason.endswith("ent back to tiny@1, the launch file's model, for want of a good one")
    assert said == [reason]
    assert [(line["label"], line["before"]) for line in store.history() if line["event"] == "fell_back"] == [
        ("tiny@1", UPDATE)
    ]
    assert engine.prompts == ["the launch file's"], "not what was said to the update"
    loaded.close()


def test_a_model_that_proved_good_comes_before_the_launch_files(store: Store, tmp_path: Path):
    store.adopt(write_model(tmp_path / "0", version="0"))
    store.mark_good("tiny@0")
    loaded, reason, _ = start(store, Engine(UPDATE), Settings(model=str(write_model(tmp_path / "1", version="1"))))
    assert loaded.model == store.state().current == "tiny@0"
    assert "the last good model" in reason
    assert "tiny@1" not in store.labels()
    loaded.close()


@pytest.mark.parametrize("seed", ["", UPDATE, "/nowhere"])
def test_without_another_it_says_why_the_current_one_does_not_load(store: Store, seed: str):
    with pytest.raises(ModelError, match="tiny@2 has no graph"):
        start(store, Engine(UPDATE), Settings(model=seed))
    assert store.state().current == UPDATE
