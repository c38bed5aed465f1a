"""Swaps and going back, where something comes between: with a node, servers and a store that the test holds."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from policy_logic import SPEC
from policy_support import wait_for, write_model
from test_policy_loop import SETTINGS, Clock, Outlet, Policy

from vla_core.errors import ModelError, StoreError
from vla_core.joints import SO101_JOINTS
from vla_core.swap import Outcome, SwapRequest
from vla_policy import memory
from vla_policy.engine import Engine
from vla_policy.fallback import FIRST_PAUSE_S, Fallback
from vla_policy.inbox import Frame, Inbox, JointSample
from vla_policy.judging import Judge
from vla_policy.loaded import Loaded
from vla_policy.probation import Passed
from vla_policy.serving import verification
from vla_policy.settings import Settings
from vla_policy.shelf import Folders
from vla_policy.swap import PassingError, Swap
from vla_policy.swapper import Swapper
from vla_policy.trial import Begun


class Server(Policy):
    """A link; whether it was closed, which ends the server."""

    pid = None

    def ended(self) -> str:
        """It runs."""
        return ""

    def promote(self) -> None:
        """It has no priority."""


def model(label: str) -> Loaded:
    return Loaded(label, SPEC, Server(), SETTINGS, lambda client: SPEC, lambda: None)


class Host:
    """What the swapper and the fallback tell the node."""

    def __init__(self) -> None:
        self.running: list[Loaded | None] = []
        self.outcomes: dict[str, tuple[Outcome, str]] = {}
        self.passing: set[str] = set()
        self.lines: list[str] = []
        self.trouble: Callable[[], None] = lambda: None

    def settings(self) -> Settings:
        return Settings(observation_timeout_s=0.0)

    def settle(self) -> None:
        self.trouble()

    def told(self, swap: Swap) -> None:
        if swap.passing:
            self.passing.add(swap.request.request_id)
        if swap.outcome:
            self.outcomes[swap.request.request_id] = swap.outcome, swap.reason

    def see(self, *specs: object) -> None:
        """There are no cameras."""

    def runs(self, loaded: Loaded | None) -> None:
        self.running.append(loaded)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    log = warn


class Shelf(Folders):
    """Remembers what it is told."""

    def __init__(self, current: str, good: str = "") -> None:
        self.current, self.good, self.broken = current, good, False

    def last_good(self) -> str:
        return self.good

    def drives(self, model: str) -> None:
        self.current = model

    def is_good(self, model: str) -> bool:
        if self.broken:
            raise StoreError("state.json is damaged")
        return self.good == model

    def proved_good(self, model: str) -> None:
        self.good = model


class Loader:
    """Gives the model that is asked for, once the test lets it."""

    def __init__(self) -> None:
        self.loaded: list[Loaded] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def load(self, settings: Settings, cancelled: threading.Event | None = None) -> Loaded:
        self.meanwhile()
        self.loaded.append(model(settings.model))
        return self.loaded[-1]


class Rig:
    def __init__(self, current: str, good: str = "") -> None:
        self.host, self.shelf, self.loader = Host(), Shelf(current, good), Loader()
        self.inbox, self.outlet, self.jobs = Inbox(), Outlet(), []
        self.engine = Engine(self.inbox, self.outlet, Clock(), log=self.host.log)
        self.engine.install(model(current))
        self.clock = Clock()
        self.fallback = Fallback(
            self.host, self.engine, self.loader, self.shelf, later=self.jobs.append, clock=self.clock
        )

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


def test_news_of_a_model_that_was_replaced_meanwhile_is_old():
    """It was told to the store after the swap that came first: the robot would have booted the model of before."""
    rig = Rig("tiny@1")
    guard = rig.fallback.guard(rig.engine.loaded)
    guard.report(Begun(0))
    guard.report(Passed())
    rig.engine.replace(rig.engine.loaded, model("tiny@2"))  # a swap, which comes before other work
    rig.shelf.drives("tiny@2")
    rig.shelf.proved_good("tiny@2")
    rig.work()
    assert (rig.shelf.current, rig.shelf.good) == ("tiny@2", "tiny@2")


def test_what_proved_good_counts_though_a_successor_has_not():
    rig = Rig("tiny@1")
    guard = rig.fallback.guard(rig.engine.loaded)
    guard.report(Passed())
    rig.engine.replace(rig.engine.loaded, model("tiny@2"))
    rig.shelf.drives("tiny@2")
    rig.work()
    assert (rig.shelf.current, rig.shelf.good) == ("tiny@2", "tiny@1")


def test_a_store_that_cannot_be_read_does_not_keep_the_arm_from_moving():
    """It made activating fail, and a paused loop stay so."""
    rig = Rig("tiny@1")
    rig.shelf.broken = True
    assert rig.fallback.guard(rig.engine.loaded) is None
    assert rig.host.lines == ["state.json is damaged"]


def test_started_again_while_the_last_good_model_loads():
    """The last good model was noted as running, and its server left over, while the loop drove the bad one."""
    rig = Rig("tiny@2", good="tiny@1")
    bad = rig.engine.loaded
    rig.engine.start()

    def stop_and_start() -> None:
        rig.engine.stop()
        rig.engine.start()

    rig.loader.meanwhile = stop_and_start
    rig.fallback.despairs("tiny@2", "it crashed")
    rig.work()
    assert rig.engine.loaded.link is bad.link
    assert rig.loader.loaded[0].link.closed == 1
    assert rig.host.running == []
    assert rig.shelf.current == "tiny@2"
    rig.engine.release()


def test_while_the_arm_waits_for_the_last_good_model_that_is_said():
    """The status went on to say that it drove."""
    rig = Rig("tiny@2", good="tiny@1")
    rig.engine.start()
    said = []
    rig.loader.meanwhile = lambda: said.extend(rig.outlet.events)
    rig.fallback.despairs("tiny@2", "it crashed")
    rig.work()
    assert said == ["tiny@2 gives way to tiny@1, the last good model: it crashed"]
    assert rig.engine.loaded.model == "tiny@1"
    rig.engine.release()


def test_a_last_good_model_that_does_not_load_is_not_tried_at_every_crash(monkeypatch: pytest.MonkeyPatch):
    """Each third crash of the bad model stopped the arm's loop and loaded the other one in vain, without a pause."""
    rig, tried = Rig("tiny@2", good="tiny@1"), []
    rig.engine.start()

    def load(settings: Settings, cancelled: threading.Event | None = None) -> Loaded:
        tried.append(settings.model)
        raise ModelError("it is damaged")

    monkeypatch.setattr(rig.loader, "load", load)
    now = rig.clock.now()
    monkeypatch.setattr(rig.clock, "now", lambda: now)
    for seconds, times in ((0.0, 1), (FIRST_PAUSE_S - 1, 1), (FIRST_PAUSE_S + 1, 2), (2 * FIRST_PAUSE_S, 2)):
        now = replace(rig.clock.now(), mono_ns=round(seconds * 1e9) + 1)
        rig.fallback.despairs("tiny@2", "it crashed")
        with contextlib.suppress(ModelError):
            rig.work()
        assert tried == ["tiny@1"] * times
        assert rig.engine.drives, "it goes on with what it has"
    rig.engine.release()


def test_a_model_is_replaced_only_where_nothing_came_between():
    rig = Rig("tiny@1")
    old, new = rig.engine.loaded, model("tiny@2")
    rig.engine.start()
    assert not rig.engine.replace(old, new)
    rig.engine.stop()
    assert not rig.engine.replace(new, model("tiny@3"))
    closed = old.link.closed
    assert rig.engine.replace(old, new)
    assert (rig.engine.loaded, old.link.closed) == (new, closed + 1)
    rig.engine.release()
    assert not rig.engine.replace(new, old)


@pytest.mark.parametrize("trouble", [OSError("Cannot allocate memory"), StoreError("the disk is full")])
def test_whatever_happens_a_request_is_answered(trouble: Exception):
    """Anything but an expected error ended the thread: neither that request nor any later one was ever answered."""
    rig = Rig("tiny@1")
    swapper = Swapper(rig.host, rig.engine, rig.loader, rig.shelf, inbox=rig.inbox, clock=Clock())

    def raises() -> None:
        raise trouble

    rig.host.trouble = raises
    swapper.ask(SwapRequest("tiny@2", "first"))
    wait_for("an answer", lambda: "first" in rig.host.outcomes)
    assert rig.host.outcomes["first"][0] is Outcome.REFUSED
    assert str(trouble) in rig.host.outcomes["first"][1]
    wait_for("the parameters", lambda: rig.host.running)
    rig.host.trouble = lambda: None
    swapper.ask(SwapRequest("tiny@1", "second"))
    wait_for("another", lambda: "second" in rig.host.outcomes)
    assert rig.host.outcomes["second"] == (Outcome.SUCCEEDED, "")
    swapper.close()
    swapper.join()


def test_trouble_after_the_outcome_changes_no_outcome():
    """Ending it a second time raised, and that ended the thread."""
    rig = Rig("tiny@1")
    swapper = Swapper(rig.host, rig.engine, rig.loader, rig.shelf, inbox=rig.inbox, clock=Clock())

    def record(event: str, **facts: object) -> None:
        raise ValueError("not JSON")

    rig.shelf.record = record
    for request_id in "ab":
        swapper.ask(SwapRequest("tiny@1", request_id))
        wait_for("an answer", lambda wanted=request_id: wanted in rig.host.outcomes)
    assert {outcome for outcome, _ in rig.host.outcomes.values()} == {Outcome.SUCCEEDED}
    swapper.close()
    swapper.join()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Callable[[], None]]]:
    """A policy that drives and sees nothing, and a way to ask it for a sound model."""
    monkeypatch.setattr(verification, "verify", lambda *_: None)
    folder, rig = write_model(tmp_path / "2", version="2"), Rig("tiny@1")
    monkeypatch.setattr(rig.shelf, "find", lambda _: folder)
    rig.engine.start()
    swapper = Swapper(rig.host, rig.engine, rig.loader, rig.shelf, inbox=rig.inbox, clock=Clock())

    def ask() -> None:
        swapper.ask(SwapRequest("tiny@2", "r"))
        wait_for("an answer", lambda: "r" in rig.host.outcomes)

    yield rig.host, ask
    swapper.close()
    swapper.join()
    rig.engine.release()


def test_no_picture_is_not_the_models_fault(asked: tuple[Host, Callable[[], None]]):
    """It was refused like a broken model, which nobody asks for a second time."""
    host, ask = asked
    ask()
    assert host.outcomes["r"][0] is Outcome.REFUSED
    assert "no picture yet" in host.outcomes["r"][1]
    assert host.passing == {"r"}


def test_short_memory_is_not_the_models_fault(asked: tuple[Host, Callable[[], None]], monkeypatch: pytest.MonkeyPatch):
    """As above: another program had the memory for a moment."""
    host, ask = asked
    monkeypatch.setattr(memory, "read_available_bytes", lambda: 1 << 20)
    ask()
    assert "1 MiB are free" in host.outcomes["r"][1]
    assert host.passing == {"r"}


def test_a_model_that_is_not_there_may_not_pass(asked: tuple[Host, Callable[[], None]], tmp_path: Path):
    host, ask = asked
    (tmp_path / "2/manifest.json").unlink()
    ask()
    assert host.outcomes["r"][0] is Outcome.REFUSED
    assert host.passing == set()


def test_what_cannot_be_seen_while_it_is_judged_is_not_the_models_fault():
    """One joint state that was too old for a moment, or one broken picture, refused the model for good."""
    inbox, clock, cancelled = Inbox(), Clock(), threading.Event()
    judge = Judge(model("tiny@1"), Settings().gate(), inbox, clock, cancelled)
    cancelled.set()  # do not wait
    with pytest.raises(PassingError, match="no picture yet"):
        judge.warm_up(Policy(), 1.0)
    now = clock.now()
    inbox.put_frame("front", Frame(b"no JPEG", now.system_ns, now.system_ns, now.system_ns, now))
    inbox.put_joints(JointSample(SO101_JOINTS, (0.0,) * 6, now.system_ns, now))
    with pytest.raises(PassingError, match="camera front"):
        judge.warm_up(Policy(), 1.0)
