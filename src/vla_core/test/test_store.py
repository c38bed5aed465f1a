"""The store: what it takes, what it refuses, what it remembers and what it throws away."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_support import write_model

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, ManifestError, StoreBusy, StoreError, StoreFull
from vla_core.store import MODEL_PART, Space, Store, StoreState, default_root, locks, split_label
from vla_core.store import state as states
from vla_core.store.folders import hide
from vla_core.store.space import choose_evictions, human

HOLDER = """
import sys
from pathlib import Path
from vla_core.store import Store
with Store(Path(sys.argv[1])).hold(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held(store: Store, label: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the model in use."""
    words = [sys.executable, "-c", HOLDER, str(store.root), label]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def adopt(store: Store, tmp_path: Path, *versions: str, weights_bytes: int = 3000) -> None:
    for version in versions:
        folder = tmp_path / f"source-{version}"
        store.adopt(write_model(folder, version, weights_bytes=weights_bytes))


# --- taking models in ------------------------------------------------------------------------------------------------


def test_an_adopted_model_is_whole_and_readable_by_all(store: Store, tmp_path: Path):
    source = write_model(tmp_path / "source")
    (source / "model.safetensors").chmod(0o600)
    (source / "config.json").chmod(0o755)
    assert store.adopt(source) == "tiny@1"
    assert store.labels() == ("tiny@1",)
    assert store.verify("tiny@1").label == "tiny@1"
    folder = store.folder("tiny@1")
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o644}
    assert not list((store.root / "staging").iterdir())


def test_adopting_again_changes_nothing(store: Store, tmp_path: Path):
    source = write_model(tmp_path / "source")
    store.adopt(source)
    before = (store.folder("tiny@1") / "policy.onnx").stat()
    store.adopt(source)
    after = (store.folder("tiny@1") / "policy.onnx").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert [entry["event"] for entry in store.history()] == ["added"]


def test_a_version_never_changes(store: Store, tmp_path: Path):
    store.adopt(write_model(tmp_path / "one", "1"))
    other = write_model(tmp_path / "other", "2")
    manifests.write(other, replace(manifests.load(other), version="1"))
    with pytest.raises(StoreError, match=r"tiny@1 is in the store with other content"):
        store.adopt(other)
    assert store.verify("tiny@1")


def _add_pickle(folder: Path) -> None:
    (folder / "weights.pkl").write_bytes(pickle.dumps({}))


def _add_unlisted(folder: Path) -> None:
    (folder / "more.txt").write_text("more")


def _add_link(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/hostname")


def _add_folder_link(folder: Path) -> None:
    shutil.move(folder / "tokens", folder.parent / "elsewhere")
    (folder / "tokens").symlink_to(folder.parent / "elsewhere")


def _add_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")


def _cut(folder: Path) -> None:
    (folder / "policy.onnx").write_bytes(b"\x08short")


def _flip(folder: Path) -> None:
    content = bytearray((folder / "policy.onnx").read_bytes())
    content[100] ^= 1
    (folder / "policy.onnx").write_bytes(content)


def _lose(folder: Path) -> None:
    (folder / "README.md").unlink()


def _cut_weights(folder: Path) -> None:
    """As if they had been cut before the manifest was made."""
    _disguise(folder, "model.safetensors", (folder / "model.safetensors").read_bytes()[:-1])


def _disguise(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    manifests.write(folder, replace(manifests.load(folder), files=manifests.list_files(folder)))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_add_pickle, "not in the manifest"),
        (_add_unlisted, "not in the manifest"),
        (_add_link, "is a link"),
        (_add_folder_link, "is a link"),
        (_add_pipe, "is no plain file"),
        (_cut, "6 bytes where the manifest says"),
        (_flip, "does not match its SHA-256"),
        (_lose, "is missing"),
        (lambda folder: _disguise(folder, "policy.onnx", pickle.dumps([1])), r"is no \.onnx file"),
        (lambda folder: _disguise(folder, "policy.onnx", b""), r"is no \.onnx file"),
        (lambda folder: _disguise(folder, "model.safetensors", pickle.dumps([1] * 99)), r"is no \.safetensors file"),
        (lambda folder: _disguise(folder, "model.safetensors", b"\x02" + bytes(7) + b"[]"), "no JSON object"),
        (_cut_weights, r"has \d+ bytes where its header says"),
        (lambda folder: _disguise(folder, "config.json", b"\x80\x04"), r"is no \.json file"),
        (lambda folder: _disguise(folder, "config.json", b"[" * 100_000), r"is no \.json file"),
        (lambda folder: _disguise(folder, "README.md", b"\x7fELF\x02\x01\x01\0"), r"is no \.md file"),
        (lambda folder: _disguise(folder, "README.md", b"half a \xe2\x82"), "ends within a character"),
    ],
)
def test_what_is_no_sound_model_leaves_the_store_as_it_was(store: Store, tmp_path: Path, damage, expected: str):
    store.adopt(write_model(tmp_path / "good", "0"))
    source = write_model(tmp_path / "source")
    damage(source)
    with pytest.raises(ManifestError, match=expected):
        store.adopt(source)
    assert store.labels() == ("tiny@0",)
    assert not list((store.root / "staging").iterdir())


def test_a_character_across_two_blocks_is_text(store: Store, tmp_path: Path):
    source = write_model(tmp_path / "source")
    _disguise(source, "README.md", b"a" * ((1 << 20) - 1) + "é".encode() * 10)
    assert store.adopt(source) == "tiny@1"


def test_only_staged_folders_are_committed(store: Store, tmp_path: Path):
    with pytest.raises(StoreError, match="only staged folders"):
        store.commit(write_model(tmp_path / "source"))
    with pytest.raises(StoreError, match="only staged folders"):
        store.commit(store.root / "staging")


def test_committing_a_sound_copy_repairs_a_damaged_model(store: Store, tmp_path: Path):
    source = write_model(tmp_path / "source")
    store.adopt(source)
    store.set_current("tiny@1")
    (store.folder("tiny@1") / "README.md").unlink()
    _flip(store.folder("tiny@1"))
    with pytest.raises(ManifestError):
        store.verify("tiny@1")
    with store.fetching("again") as place:
        shutil.copytree(source, place / MODEL_PART)
        assert store.commit(place / MODEL_PART) == "tiny@1"
    assert store.verify("tiny@1")
    _flip(store.folder("tiny@1"))
    store.adopt(source)
    assert store.verify("tiny@1")
    assert sorted({e["file"] for e in store.history() if e["event"] == "repaired"}) == ["README.md", "policy.onnx"]


@pytest.mark.parametrize("key", ["", "..", "a/b", "/etc", ".hidden", "trash.1", "x" * 200])
def test_staging_keys_stay_in_the_staging_folder(store: Store, key: str):
    with pytest.raises(StoreError, match="staging key"):
        store.staging(key)


def test_a_staging_folder_has_one_owner(store: Store):
    with store.fetching("one") as place:
        assert place == store.staging("one")
        with pytest.raises(StoreBusy), store.fetching("one"):
            pass
        with store.fetching("two"):
            pass
    with store.fetching("one"):
        pass


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label", ["", "tiny", "@1", "tiny@", "../x@1", "tiny@..", "a/b@1", "tiny@1@2", "tiny@1\n", None]
)
def test_what_is_no_label_is_refused(store: Store, label: str):
    with pytest.raises(StoreError, match="is no name@version"):
        store.folder(label)


def test_an_absent_model_is_told_with_those_that_are_there(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1", "2")
    with pytest.raises(StoreError, match=r"tiny@3 is not in the store .* tiny@1, tiny@2"):
        store.folder("tiny@3")
    assert split_label("a-b.c@1.0") == ("a-b.c", "1.0")


def test_where_the_store_lies():
    assert default_root({"EVERGREEN_STORE": "/x"}) == Path("/x")
    assert default_root({}) == Path("~/.local/share/evergreen/store").expanduser()


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / "file" / "store")


# --- state -----------------------------------------------------------------------------------------------------------


def test_state_is_remembered(store: Store, tmp_path: Path):
    assert store.state() == StoreState()
    adopt(store, tmp_path, "1", "2")
    store.set_current("tiny@2")
    store.mark_good("tiny@1")
    store.refuse("tiny@9", "it shook")
    expected = StoreState(current="tiny@2", last_good="tiny@1", refused={"tiny@9": "it shook"})
    assert Store(store.root).state() == expected
    store.allow("tiny@9")
    store.allow("tiny@9")
    assert store.state() == replace(expected, refused={})
    events = [entry["event"] for entry in store.history()]
    assert events == ["added", "added", "current", "last_good", "refused", "allowed"]


def test_only_what_is_there_becomes_current(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1")
    store.set_current("tiny@1")
    for change in (store.set_current, store.mark_good):
        with pytest.raises(StoreError, match="is not in the store"):
            change("tiny@2")
    assert store.state().current == "tiny@1"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 1}', '{"format":1,"current":"..","last_good":"","refused":{}}']
)
def test_a_damaged_state_falls_back_on_the_one_before(store: Store, tmp_path: Path, damage: str):
    adopt(store, tmp_path, "1", "2")
    store.set_current("tiny@1")
    store.set_current("tiny@2")
    (store.root / "state.json").write_text(damage)
    assert store.state().current == "tiny@1"
    (store.root / "state.previous.json").write_text(damage)
    with pytest.raises(StoreError, match="writes it anew"):
        store.state()
    store.set_current("tiny@2")
    assert store.state().current == "tiny@2"


def test_a_state_of_a_later_release_is_left_alone(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1")
    later = '{"format": 2, "surprise": true}'
    (store.root / "state.json").write_text(later)
    with pytest.raises(StoreError, match="another release"):
        store.state()
    with pytest.raises(StoreError, match="another release"):
        store.set_current("tiny@1")
    assert (store.root / "state.json").read_text() == later


def test_refusals_do_not_grow_for_ever(store: Store):
    for number in range(120):
        store.refuse(f"tiny@{number}", "no")
    refused = store.state().refused
    assert len(refused) == 100
    assert "tiny@119" in refused


# --- audit trail -----------------------------------------------------------------------------------------------------


def test_a_line_cut_by_power_loss_costs_itself_only(store: Store):
    store.record("first", number=1)
    with (store.root / "history.jsonl").open("a") as stream:
        stream.write('{"event": "cut of')
    store.record("second", text="é\n")
    assert [(entry["event"], entry.get("text")) for entry in store.history()] == [("first", None), ("second", "é\n")]


def test_the_trail_is_turned_over(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vla_core.store.history.MAX_BYTES", 300)
    for number in range(12):
        store.record("event", number=number)
    numbers = [entry["number"] for entry in store.history()]
    assert numbers == list(range(numbers[0], 12))
    assert sum(path.stat().st_size for path in store.root.glob("history*")) < 800


# --- room ------------------------------------------------------------------------------------------------------------


def limited(store: Store, limit_bytes: int) -> Store:
    return Store(store.root, space=Space(keep_free_bytes=0, limit_bytes=limit_bytes))


def test_the_longest_unused_goes_first_but_never_current_nor_last_good(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1", "2", "3", "4", "5", weights_bytes=100_000)
    store.mark_good("tiny@1")
    store.set_current("tiny@2")
    with store.hold("tiny@3"):  # used later than 4 and 5
        pass
    tight = limited(store, 700_000)
    assert tight.make_room(150_000) == ("tiny@4",)
    assert tight.make_room(300_000) == ("tiny@5",)
    assert store.labels() == ("tiny@1", "tiny@2", "tiny@3")
    assert "recent" in json.loads((store.root / "state.json").read_text())


def test_what_cannot_fit_evicts_nothing(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1", "2", "3", weights_bytes=100_000)
    store.set_current("tiny@1")
    with pytest.raises(StoreFull, match=r"are needed but .* even without .*tiny/2"):
        limited(store, 500_000).make_room(450_000)
    assert len(store.labels()) == 3
    with pytest.raises(StoreFull):
        Store(store.root).make_room(1 << 60)
    assert len(store.labels()) == 3


def test_adopting_what_cannot_fit_writes_nothing(store: Store, tmp_path: Path):
    small = limited(store, 50_000)
    with pytest.raises(StoreFull):
        small.adopt(write_model(tmp_path / "big", weights_bytes=100_000))
    assert store.labels() == ()
    assert not list((store.root / "staging").glob("*/*"))


def test_a_model_that_another_process_runs_stays(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1", "2")
    with held(store, "tiny@1"):
        assert store.in_use("tiny@1")
        assert not store.in_use("tiny@2")
        assert store.evictable() == ("tiny@2",)
        assert store.gc() == ("tiny@2",)
    assert store.gc() == ("tiny@1",)  # its holder was killed
    assert store.labels() == ()
    assert not list((store.root / "models").iterdir())


def test_two_may_hold_the_same_model(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1")
    with held(store, "tiny@1"), store.hold("tiny@1") as folder:
        assert (folder / "policy.onnx").is_file()
        assert store.gc() == ()


def test_a_glance_of_another_process_keeps_nobody_from_holding(store: Store, tmp_path: Path):
    """`list` and `gc` look by an exclusive lock: a policy that held its model at that instant was told it was busy."""
    adopt(store, tmp_path, "1")
    glance = contextlib.ExitStack()
    glance.enter_context(locks.folder(store.folder("tiny@1"), shared=False))
    threading.Timer(0.2, glance.close).start()
    with store.hold("tiny@1"):
        assert store.in_use("tiny@1")


def test_a_model_that_went_while_it_was_being_held_is_not_given_out(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who evicts looks first and removes then; who held it in between got a folder that was gone."""
    adopt(store, tmp_path, "1")
    write = states.write

    def evict_then_write(root: Path, state: StoreState) -> None:
        hide(store.folder("tiny@1"), root / "staging")
        write(root, state)

    monkeypatch.setattr(states, "write", evict_then_write)
    with pytest.raises(StoreBusy, match="evicted just now"), store.hold("tiny@1"):
        pass


def test_a_store_that_forgot_its_state_evicts_no_model(store: Store, tmp_path: Path):
    """A damaged state counted as empty: the models that the robot boots and goes back to were evicted."""
    adopt(store, tmp_path, "1", "2")
    store.set_current("tiny@1")
    store.mark_good("tiny@1")
    for name in ("state.json", "state.previous.json"):
        (store.root / name).write_text("{")
    adopt(store, tmp_path, "3")  # this wrote an empty state, and the next gc took everything
    store.discard("x")
    with store.hold("tiny@1"), contextlib.suppress(StoreError):
        store.refuse("tiny@3", "bad")
    assert store.gc() == ()
    with pytest.raises(StoreFull):
        limited(store, 10_000).make_room(9_000)
    assert store.labels() == ("tiny@1", "tiny@2", "tiny@3")
    store.set_current("tiny@2")
    assert "tiny@2" not in store.gc()


def test_what_somebody_else_put_among_the_models_is_none(store: Store, tmp_path: Path):
    """One such folder made every listing, gc and fetch fail."""
    adopt(store, tmp_path, "1")
    shutil.copytree(store.folder("tiny@1"), store.root / "models" / "tiny" / "1 (copy)")
    assert store.labels() == ("tiny@1",)
    assert store.gc() == ("tiny@1",)


def test_room_promised_to_one_fetch_is_not_given_to_another(store: Store):
    tight = limited(store, 1_000_000)
    with tight.fetching("one") as place:
        tight.make_room(600_000, "one")
        with pytest.raises(StoreFull):
            tight.make_room(600_000, "two")
        (place / "part").write_bytes(bytes(500_000))  # of which these are used by now
        assert tight.make_room(300_000, "two") == ()
        with pytest.raises(StoreFull):
            tight.make_room(450_000, "two")


def test_abandoned_downloads_go_before_models_and_own_ones_stay(store: Store, tmp_path: Path):
    adopt(store, tmp_path, "1", weights_bytes=100_000)
    (store.staging("old") / "part").write_bytes(bytes(100_000))
    with store.fetching("other") as other:
        (other / "part").write_bytes(bytes(100_000))
        (store.staging("mine") / "part").write_bytes(bytes(100_000))
        assert limited(store, 500_000).make_room(150_000, "mine") == ("staging/old",)
        assert store.labels() == ("tiny@1",)


def test_gc_sweeps_what_an_interrupted_removal_left(store: Store, tmp_path: Path):
    trash = store.root / "staging" / "trash.0123"
    shutil.copytree(write_model(tmp_path / "source"), trash)
    (store.root / "staging" / "stray.txt").write_text("by hand")
    assert sorted(store.gc()) == ["staging/stray.txt", "staging/trash.0123"]
    assert not list((store.root / "staging").iterdir())


def test_choosing_is_frugal():
    assert choose_evictions(10, 20, [("a", 5)]) == ()
    assert choose_evictions(30, 20, [("a", 5), ("b", 5), ("c", 5)]) == ("a", "b")
    with pytest.raises(StoreFull, match="nothing may be evicted"):
        choose_evictions(30, 20, [])
    assert [human(size) for size in (0, 999, 52_700_000, 2_100_000_000)] == ["0 B", "999 B", "52.7 MB", "2.1 GB"]
    with pytest.raises(ConfigError):
        Space(keep_free_bytes=-1)


def test_a_copy_that_another_process_evicts_while_it_is_looked_at_is_brought_in_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_model(tmp_path / "source")
    label = store.adopt(source)
    has = store.has

    def and_then_it_is_gone(label: str, text: str) -> bool:
        there = has(label, text)
        monkeypatch.setattr(store, "has", has)
        assert Store(store.root).gc() == (label,)
        return there

    monkeypatch.setattr(store, "has", and_then_it_is_gone)
    assert store.adopt(source) == label
    assert store.verify(label).label == label


def test_a_model_that_comes_into_use_after_it_was_looked_at_is_not_evicted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    label = store.adopt(write_model(tmp_path / "source"))
    monkeypatch.setattr(locks, "is_held", lambda _path: False)
    with store.hold(label):
        assert store.gc() == ()
        assert store.labels() == (label,)
    assert store.gc() == (label,)
