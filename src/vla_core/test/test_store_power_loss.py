"""The store after power was lost, or a process killed, at any instant."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from power_cut import VARIANTS, Disk
from store_support import write_model

from vla_core.store import MODEL_PART, Store

KILLS = 12
MEMORY = Path("/dev/shm")
WORKER = """
import itertools, sys
from pathlib import Path
from vla_core.store import Store
store, sources = Store(Path(sys.argv[1])), sorted(Path(sys.argv[2]).iterdir())
print("started", flush=True)
for turn in itertools.count():
    label = store.adopt(sources[turn % len(sources)])
    store.set_current(label)
    if turn % 2:
        store.mark_good(label)
    if turn % 3 == 0:
        store.gc()
    store.refuse("tiny@0", str(turn))
"""


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests sync thousands of times, and only count how."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as folder:
        yield Path(folder)


def check_sound(root: Path, allowed_current: set[str], allowed_good: set[str]) -> Store:
    """Every model that is there is whole, and so are current and last good, which are of before or of after."""
    store = Store(root)
    state = store.state()
    assert state.current in allowed_current
    assert state.last_good in allowed_good
    for label in (*store.labels(), *state.kept):
        store.verify(label)
    list(store.history())
    return store


@pytest.mark.parametrize("variant", VARIANTS)
def test_power_may_go_at_any_instant(quick: Path, monkeypatch: pytest.MonkeyPatch, variant: str):
    """Each sync, rename and removal of a store's life is followed by a cut; what is left must be of before or after."""
    sources = {version: write_model(quick / "sources" / version, version) for version in ("1", "2", "3")}
    life = quick / "life"
    life.mkdir()
    root = life / "lib" / "store"
    current, good = {""}, {""}
    numbers = itertools.count()

    def after_each() -> None:
        number = next(numbers)
        left = quick / f"left-{number}"
        disk.lay_out(variant, left)
        there = left / "lib" / "store"
        found = check_sound(there, current, good)
        if number % 10 == 0:  # and life goes on there
            found.adopt(sources["3"])
            found.set_current("tiny@3")
            found.gc()
            check_sound(there, {"tiny@3"}, good)
        shutil.rmtree(left)

    def step(change: Callable[[], object], now_current: str | None = None, now_good: str | None = None) -> None:
        current.update(filter(None, [now_current]))
        good.update(filter(None, [now_good]))
        change()
        after_each()
        if now_current is not None:
            current.intersection_update({now_current})
        if now_good is not None:
            good.intersection_update({now_good})
        after_each()  # what has returned is durable

    disk = Disk(life, after_each, monkeypatch)
    try:
        store = Store(root)
        step(lambda: store.adopt(sources["1"]))
        step(lambda: store.set_current("tiny@1"), now_current="tiny@1")
        step(lambda: store.mark_good("tiny@1"), now_good="tiny@1")
        step(lambda: store.adopt(sources["2"]))
        step(lambda: store.set_current("tiny@2"), now_current="tiny@2")
        step(lambda: store.refuse("tiny@2", "it shook"))
        step(lambda: store.set_current("tiny@1"), now_current="tiny@1")
        step(store.gc)
        step(lambda: store.adopt(sources["2"]))
        step(lambda: store.set_current("tiny@2"), now_current="tiny@2")
        step(lambda: store.mark_good("tiny@2"), now_good="tiny@2")
        step(store.gc)
    finally:
        disk.close()
    assert disk.events > 100
    assert store.labels() == ("tiny@2",)


def test_a_repair_may_be_cut_too(quick: Path, monkeypatch: pytest.MonkeyPatch):
    """The damaged model stays damaged or is whole: no other is touched, and the next try repairs it."""
    sources = {version: write_model(quick / "sources" / version, version) for version in ("1", "2")}
    root = quick / "store"
    store = Store(root)
    for source in sources.values():
        store.adopt(source)
    store.set_current("tiny@1")
    (store.folder("tiny@2") / "config.json").unlink()
    (store.folder("tiny@2") / "README.md").write_text("changed")

    def repair(target: Store) -> None:
        with target.fetching("again") as place:
            shutil.rmtree(place / MODEL_PART, ignore_errors=True)
            shutil.copytree(sources["2"], place / MODEL_PART)
            target.commit(place / MODEL_PART)

    numbers = itertools.count()

    def after_each() -> None:
        left = quick / f"left-{next(numbers)}"
        disk.lay_out("worst", left)
        found = Store(left)
        assert found.state().current == "tiny@1"
        found.verify("tiny@1")
        repair(found)
        found.verify("tiny@2")
        shutil.rmtree(left)

    disk = Disk(root, after_each, monkeypatch)
    try:
        repair(store)
    finally:
        disk.close()
    store.verify("tiny@2")
    assert disk.events > 10


def killed_workers(root: Path, sources: Path, kills: int) -> Iterator[None]:
    """Processes that change the store without end, each killed at some moment of its work."""
    lot = random.Random(7)  # noqa: S311  no secret
    for _ in range(kills):
        words = [sys.executable, "-c", WORKER, str(root), str(sources)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "started\n"
            time.sleep(lot.uniform(0, 0.25))
            assert worker.poll() is None, "it ended by itself"
            worker.send_signal(signal.SIGKILL)
        yield


def test_a_process_may_be_killed_at_any_instant(tmp_path: Path):
    sources = tmp_path / "sources"
    labels = {f"tiny@{version}" for version in "1234"}
    for label in sorted(labels):
        write_model(sources / label, label[-1], weights_bytes=200_000)
    root = tmp_path / "store"
    currents = set()
    for _ in killed_workers(root, sources, KILLS):
        store = check_sound(root, labels | {""}, labels | {""})
        currents.add(store.state().current)
    assert len(currents) > 1, "no worker came to change anything"
    store.gc()
    assert not list((root / "staging").iterdir())
    assert set(store.labels()) == set(store.state().kept)


def test_two_processes_at_once_leave_a_sound_store(tmp_path: Path):
    sources = tmp_path / "sources"
    for version in "1234":
        write_model(sources / version, version)
    root = tmp_path / "store"
    words = [sys.executable, "-c", WORKER, str(root), str(sources)]
    workers = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        deadline = time.monotonic() + 60
        while sum(1 for entry in Store(root).history() if entry["event"] == "current") < 40:
            assert time.monotonic() < deadline
            for worker in [worker for worker in workers if worker.poll() is not None]:
                workers.remove(worker)
                _, said = worker.communicate()
                assert "is not in the store" in said, said  # another one's gc came between adopt and set_current
            assert workers, "all ended"
            time.sleep(0.05)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    labels = {f"tiny@{version}" for version in "1234"}
    check_sound(root, labels, labels | {""})
