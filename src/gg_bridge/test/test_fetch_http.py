"""Fetching over HTTP from servers that cut, forget, change, lie and redirect."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fetch_servers import serving
from fetch_support import write_model

from gg_bridge.fetch import FetchCancelled, FetchError, Progress, Source, fetch
from gg_bridge.fetch.transfer import Download, Expected, Opened
from vla_core import archives, signing
from vla_core import manifest as manifests
from vla_core.errors import StoreFull
from vla_core.signing import Trust
from vla_core.store import MODEL_PART, Space, Store, locks

WEIGHTS = 1_000_000


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gg_bridge.fetch.transfer.FIRST_PAUSE_S", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny", weights_bytes=WEIGHTS)
    return tmp_path / "models"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_untouched(store: Store) -> None:
    assert store.labels() == ()
    assert store.state().current == ""


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_arrives_whole(models: Path, store: Store):
    seen: list[Progress] = []
    expected = sha256(models / "tiny" / "manifest.json")
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/tiny/", "1", expected), store, seen.append) == "tiny@1"
    assert store.verify("tiny@1").version == "1"
    assert not list((store.root / "staging").iterdir())
    last = seen[-1]
    assert last.done_bytes == last.total_bytes == store.manifest("tiny@1").size_bytes
    done = [progress.done_bytes for progress in seen]
    assert done == sorted(done)
    fetched = [entry for entry in store.history() if entry["event"] == "fetched"]
    assert [entry["label"] for entry in fetched] == ["tiny@1"]


def test_after_twenty_cuts_it_is_whole_and_no_byte_came_twice(models: Path, store: Store):
    cuts: list[int | None] = [40_000 + 700 * number for number in range(20)]
    with serving(models, cut_after=cuts, blocks=10_000) as server:
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
        weights = [request for request in server.requests if request.path.endswith("policy.onnx")]
        assert len(weights) == 21
        starts = [int(request.range.removeprefix("bytes=").removesuffix("-") or 0) for request in weights]
        assert starts == sorted(starts)
        assert all(request.if_range for request in weights[1:])
        whole = store.manifest("tiny@1").size_bytes + (models / "tiny" / "manifest.json").stat().st_size
        assert server.sent < whole * 1.2
    assert store.verify("tiny@1")


def test_a_fetch_goes_on_where_the_one_before_gave_up(models: Path, store: Store):
    source_cuts: list[int | None] = [600_000, *[0] * 10]
    with serving(models, cut_after=source_cuts) as server:
        source = Source(f"{server.url}/tiny")
        with pytest.raises(FetchError, match=r"policy\.onnx.*6 tries brought nothing new") as caught:
            fetch(source, store)
        assert caught.value.retryable
        assert_untouched(store)
        server.manners.cut_after.clear()
        before = server.sent
        seen: list[Progress] = []
        assert fetch(source, store, seen.append) == "tiny@1"
        assert server.sent - before < 450_000
        assert seen[-1].resumed_bytes > 550_000
    assert store.verify("tiny@1")


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_that_cannot_resume_is_begun_anew(models: Path, store: Store, lengths: bool):
    with serving(models, ranges=False, lengths=lengths, cut_after=[300_000, 500_000, 400_000, 700_000]) as server:
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
    assert store.verify("tiny@1")


def test_a_server_that_always_cuts_in_the_same_place_is_given_up(models: Path, store: Store):
    with serving(models, ranges=False, cut_after=[300_000] * 50) as server:
        with pytest.raises(FetchError, match="brought nothing new") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert len(server.requests) < 20
    assert caught.value.retryable
    assert_untouched(store)


@pytest.mark.parametrize("weak", [False, True])
def test_a_file_that_changes_midway_is_begun_anew(models: Path, store: Store, weak: bool):
    """The new content is right, the old beginning was wrong: a mixture would never match its hash."""
    right = (models / "tiny" / "policy.onnx").read_bytes()
    wrong = b"\x08" + bytes(WEIGHTS)
    prefix = "W/" if weak else ""
    with serving(models, tag=lambda _path, content: f'{prefix}"{hash(content)}"', cut_after=[500_000]) as server:
        path = "/tiny/policy.onnx"
        server.manners.content[path] = wrong

        def change() -> None:
            if not server.manners.cut_after:
                server.manners.content[path] = right

        server.manners.pace = change
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
    assert store.verify("tiny@1")


def test_a_beginning_that_was_damaged_on_this_disk_is_begun_anew(models: Path, store: Store):
    with serving(models, cut_after=[600_000, *[0] * 10]) as server:
        source = Source(f"{server.url}/tiny")
        with pytest.raises(FetchError):
            fetch(source, store)
        (part,) = (store.root / "staging").glob("*/parts/*.part")
        part.write_bytes(bytes(part.stat().st_size))
        server.manners.cut_after.clear()
        assert fetch(source, store) == "tiny@1"


def test_a_wrong_file_is_refused_and_not_kept(models: Path, store: Store):
    with serving(models) as server:
        server.manners.content["/tiny/policy.onnx"] = b"\x08" + bytes(WEIGHTS)
        with pytest.raises(FetchError, match="does not match its SHA-256") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
    assert not caught.value.retryable
    assert_untouched(store)
    assert not list((store.root / "staging").glob("*/parts/*.part"))


@pytest.mark.parametrize(("size", "lengths"), [(WEIGHTS // 2, True), (WEIGHTS * 20, True), (WEIGHTS * 20, False)])
def test_a_file_of_another_size_is_refused(models: Path, store: Store, size: int, lengths: bool):
    with serving(models, lengths=lengths) as server:
        server.manners.content["/tiny/policy.onnx"] = b"\x08" + bytes(size)
        with pytest.raises(FetchError, match=r"where the manifest says|sends more than") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert server.sent < WEIGHTS * 10
    assert not caught.value.retryable


@pytest.mark.parametrize("failures", [[503], [500, 502, 504, 429, 408]])
def test_an_unwell_server_is_asked_again(models: Path, store: Store, failures: list[int]):
    with serving(models, failures=failures) as server:
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"


@pytest.mark.parametrize(
    ("status", "words"), [(404, "is not there"), (403, "denied"), (401, "credentials"), (410, "gone")]
)
def test_what_asking_again_does_not_change_is_told_at_once(models: Path, store: Store, status: int, words: str):
    with serving(models, failures=[status] * 9) as server:
        with pytest.raises(FetchError, match=words) as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert len(server.requests) == 1
    assert not caught.value.retryable


def test_nobody_listening_can_be_tried_again(store: Store, models: Path):
    with serving(models) as server:
        url = server.url
    with pytest.raises(FetchError, match="refused") as caught:
        fetch(Source(f"{url}/tiny"), store)
    assert caught.value.retryable


def test_compressed_answers_are_refused(models: Path, store: Store):
    packed = {"Content-Encoding": "gzip"}
    with serving(models, headers=packed) as server, pytest.raises(FetchError, match="comes compressed"):
        fetch(Source(f"{server.url}/tiny"), store)


def test_redirects_are_followed_but_not_for_ever(models: Path, store: Store):
    with serving(models) as server:
        for name in ("manifest.json", *store_files(models)):
            server.manners.moved[f"/old/{name}"] = f"/tiny/{name}"
        assert fetch(Source(f"{server.url}/old"), store) == "tiny@1"
        server.manners.moved["/loop/manifest.json"] = "/loop/manifest.json"
        with pytest.raises(FetchError, match="redirects"):
            fetch(Source(f"{server.url}/loop"), store)


def store_files(models: Path) -> list[str]:
    return list(manifests.load(models / "tiny").files)


def test_a_presigned_address_is_used_whole_and_never_shown(models: Path, store: Store):
    with serving(models) as server:
        fetch(Source(f"{server.url}/tiny?X-Signature=SECRET"), store)
        assert all(request.path.endswith("?X-Signature=SECRET") for request in server.requests)
        with pytest.raises(FetchError) as caught:
            fetch(Source(f"{server.url}/none?X-Signature=SECRET"), store)
        url = server.url
    assert "SECRET" not in str(caught.value)
    with pytest.raises(FetchError) as caught:
        fetch(Source(f"{url}/none?X-Signature=SECRET"), store)
    assert "SECRET" not in str(caught.value)
    assert "SECRET" not in (store.root / "history.jsonl").read_text()


# --- expectations ----------------------------------------------------------------------------------------------------


def test_another_version_or_hash_is_refused_before_the_weights(models: Path, store: Store):
    with serving(models) as server:
        with pytest.raises(FetchError, match=r"holds tiny@1 where version 2 was asked for"):
            fetch(Source(f"{server.url}/tiny", "2"), store)
        with pytest.raises(FetchError, match="does not match its SHA-256"):
            fetch(Source(f"{server.url}/tiny", "", "0" * 64), store)
        assert {Path(request.path).name for request in server.requests} == {"manifest.json"}


def test_an_unsigned_model_is_refused_before_the_weights(models: Path, tmp_path: Path):
    signing.generate(tmp_path / "key.pem")
    trust = signing.load_trust([tmp_path / "key.pem.pub"], required=True)
    store = Store(tmp_path / "store", trust)
    with serving(models) as server:
        with pytest.raises(FetchError, match="is not signed") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert len(server.requests) == 1
        assert not caught.value.retryable
        signing.sign_folder(models / "tiny", signing.load_private(tmp_path / "key.pem"))
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
    assert isinstance(store.trust, Trust)


def test_what_cannot_fit_is_refused_before_it_starts(models: Path, tmp_path: Path):
    store = Store(tmp_path / "store", space=Space(limit_bytes=WEIGHTS))
    with serving(models) as server:
        with pytest.raises(FetchError, match="are needed but") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert {Path(request.path).name for request in server.requests} == {"manifest.json"}
    assert caught.value.retryable  # somebody may clear the disk


def test_an_older_model_makes_room(models: Path, tmp_path: Path):
    store = Store(tmp_path / "store", space=Space(limit_bytes=2_800_000))
    for version in ("2", "3"):
        write_model(models / version, version, weights_bytes=WEIGHTS)
    with serving(models) as server:
        fetch(Source(f"{server.url}/tiny"), store)
        store.set_current("tiny@1")
        fetch(Source(f"{server.url}/2"), store)
        fetch(Source(f"{server.url}/3"), store)
    assert store.labels() == ("tiny@1", "tiny@3")


@pytest.mark.parametrize("name", ["../up.txt", "/etc/cron.d/x.txt", "a\\b.txt", "x.pkl", "manifest.json"])
def test_a_manifest_that_names_bad_files_is_refused(models: Path, store: Store, name: str):
    path = models / "tiny" / "manifest.json"
    document = json.loads(path.read_text())
    document["files"][name] = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(document))
    with serving(models) as server:
        with pytest.raises(FetchError, match="file '") as caught:
            fetch(Source(f"{server.url}/tiny"), store)
        assert len(server.requests) == 1
    assert not caught.value.retryable


def test_an_endless_manifest_is_not_read_to_its_end(models: Path, store: Store):
    with serving(models, lengths=False) as server:
        server.manners.content["/tiny/manifest.json"] = b" " * (manifests.MAX_BYTES * 4)
        with pytest.raises(FetchError, match="sends more than"):
            fetch(Source(f"{server.url}/tiny"), store)


# --- what is here already --------------------------------------------------------------------------------------------


def test_what_the_store_has_is_not_fetched_again(models: Path, store: Store):
    with serving(models) as server:
        source = Source(f"{server.url}/tiny")
        fetch(source, store)
        before = len(server.requests)
        assert fetch(source, store) == "tiny@1"
        assert len(server.requests) == before + 1  # the manifest


def test_with_its_hash_a_model_that_is_here_needs_no_network(models: Path, store: Store):
    digest = sha256(models / "tiny" / "manifest.json")
    with serving(models) as server:
        source = Source(f"{server.url}/tiny", "1", digest)
        fetch(source, store)
    assert fetch(source, store) == "tiny@1"
    with pytest.raises(FetchError):  # it is another version that is wanted
        fetch(replace(source, version="2"), store)


def test_a_hash_means_the_same_model_after_its_label_was_evicted_and_came_back_as_another(models: Path, store: Store):
    """The audit trail was asked for the hash and its label taken as it is now: the pinned hash gave another model."""
    pinned = sha256(models / "tiny" / "manifest.json")
    with serving(models) as server:
        fetch(Source(f"{server.url}/tiny", "1", pinned), store)
        store.gc()
        (models / "tiny" / "README.md").write_text("changed")
        manifest = manifests.load(models / "tiny")
        manifests.write(models / "tiny", replace(manifest, files=manifests.list_files(models / "tiny")))
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
        with pytest.raises(FetchError, match="does not match its SHA-256"):
            fetch(Source(f"{server.url}/tiny", "1", pinned), store)


def test_a_trail_that_cannot_be_written_does_not_undo_a_fetch(
    models: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    """The model was in the store, and the fetch failed all the same, for ever on a disk that was full."""

    def full(*_: object, **__: object) -> None:
        raise StoreFull("no room for a line")

    monkeypatch.setattr(store, "record", full)
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/tiny"), store) == "tiny@1"
    assert store.verify("tiny@1")


def test_a_disk_in_trouble_does_not_condemn_the_model(models: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    """Any error of the disk but a full one was final, and the bridge refused a good model for ever."""

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "bad block")

    monkeypatch.setattr("vla_core.store.durable.sync_tree", fail)
    with serving(models) as server, pytest.raises(FetchError) as caught:
        fetch(Source(f"{server.url}/tiny"), store)
    assert caught.value.retryable


def test_a_store_that_another_process_holds_is_tried_again(models: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    """That another process, stopped by somebody, held the lock refused the model for ever."""
    monkeypatch.setattr("vla_core.store.locks.WAIT_S", 0.05)
    with serving(models) as server, locks.exclusive_file(store.root / "lock"), pytest.raises(FetchError) as caught:
        fetch(Source(f"{server.url}/tiny"), store)
    assert caught.value.retryable


def test_a_damaged_copy_is_repaired_by_fetching_again(models: Path, store: Store):
    with serving(models) as server:
        source = Source(f"{server.url}/tiny")
        fetch(source, store)
        (store.folder("tiny@1") / "policy.onnx").write_bytes(b"\x08")
        assert fetch(source, store) == "tiny@1"
    assert store.verify("tiny@1")


def test_a_label_with_other_content_is_refused(models: Path, store: Store):
    with serving(models) as server:
        fetch(Source(f"{server.url}/tiny"), store)
        (models / "tiny" / "README.md").write_text("changed")
        manifest = manifests.load(models / "tiny")
        manifests.write(models / "tiny", replace(manifest, files=manifests.list_files(models / "tiny")))
        with pytest.raises(FetchError, match="a version never changes"):
            fetch(Source(f"{server.url}/tiny"), store)


def test_files_that_another_version_has_are_not_transferred(models: Path, store: Store):
    write_model(models / "next", "1", weights_bytes=WEIGHTS)
    manifest = manifests.load(models / "next")
    manifests.write(models / "next", replace(manifest, version="1.1", prompt="another prompt"))
    with serving(models) as server:
        fetch(Source(f"{server.url}/tiny"), store)
        before = server.sent
        assert fetch(Source(f"{server.url}/next"), store) == "tiny@1.1"
        assert server.sent - before < 5000
    assert store.verify("tiny@1.1").prompt == "another prompt"


# --- archives --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(models: Path) -> Path:
    path = models / "tiny.tar.gz"
    archives.pack(models / "tiny", manifests.load(models / "tiny"), path)
    return path


@pytest.mark.parametrize("pinned", [False, True])
def test_an_archive_arrives_whole_through_cuts(models: Path, store: Store, packed: Path, pinned: bool):
    with serving(models, cut_after=[100_000, 0, 300_000, 50_000]) as server:
        source = Source(f"{server.url}/tiny.tar.gz?token=x", "1", sha256(packed) if pinned else "")
        assert fetch(source, store) == "tiny@1"
        assert server.sent < packed.stat().st_size * 1.3
    assert store.verify("tiny@1")
    assert not list((store.root / "staging").iterdir())


def test_an_archive_that_changes_midway_is_begun_anew(models: Path, store: Store, packed: Path):
    right = packed.read_bytes()
    with serving(models, cut_after=[500_000]) as server:
        path = f"/{packed.name}"
        server.manners.content[path] = right[:-5000] + bytes(5000)

        def change() -> None:
            if not server.manners.cut_after:
                server.manners.content[path] = right

        server.manners.pace = change
        assert fetch(Source(f"{server.url}{path}"), store) == "tiny@1"


def test_a_broken_archive_is_refused_and_forgotten(models: Path, store: Store, packed: Path):
    right = packed.read_bytes()
    packed.write_bytes(right[:-5000])
    with serving(models) as server:
        source = Source(f"{server.url}/{packed.name}")
        with pytest.raises(FetchError, match="no sound archive") as caught:
            fetch(source, store)
        assert not caught.value.retryable
        assert not list((store.root / "staging").iterdir())
        with pytest.raises(FetchError, match="does not match its SHA-256"):
            fetch(replace(source, sha256="0" * 64), store)
        packed.write_bytes(right)
        assert fetch(source, store) == "tiny@1"


def test_an_archive_whose_beginning_a_power_cut_damaged_is_begun_anew(models: Path, store: Store, packed: Path):
    """Without a hash nothing told that it was damaged on this disk: a good model was refused for ever."""
    with serving(models) as server:
        source = Source(f"{server.url}/{packed.name}")
        place = store.staging(source.key)
        (place / "archive.part").write_bytes(bytes(600_000))
        tag = server.manners.tag("", packed.read_bytes())
        (place / "archive.about").write_text(json.dumps({"tag": tag, "total": packed.stat().st_size}))
        assert fetch(source, store) == "tiny@1"
    assert store.verify("tiny@1")


def test_no_byte_is_written_beyond_the_announced_length(tmp_path: Path):
    """An answer may be longer than its own Content-Range says: it was written until the disk was full."""

    class Endless:
        def shown(self, name: str) -> str:
            return f"endless/{name}"

        @contextlib.contextmanager
        def open(self, name: str, start: int, tag: str) -> Iterator[Opened]:
            yield Opened(0, 100, "", iter([bytes(60)] * 1000))

    part = tmp_path / "x.part"
    download = Download(Endless(), "x", part, Expected(), reached=lambda _: None, cancelled=threading.Event())
    with pytest.raises(FetchError, match="sends more than its 100 bytes"):
        download.run()
    assert part.stat().st_size <= 100


def test_an_archive_of_unknown_length_or_too_large_is_refused_before_it_starts(
    models: Path, tmp_path: Path, packed: Path
):
    store = Store(tmp_path / "store", space=Space(limit_bytes=packed.stat().st_size * 3 // 2))
    with serving(models) as server:
        with pytest.raises(FetchError, match="are needed but"):
            fetch(Source(f"{server.url}/{packed.name}"), store)
        server.manners.lengths = False
        with pytest.raises(FetchError, match="does not say how long it is"):
            fetch(Source(f"{server.url}/{packed.name}"), Store(tmp_path / "other"))
    assert not list((store.root / "staging").glob("*/*.part"))


# --- two at once, and cancelling -------------------------------------------------------------------------------------


def test_a_cancelled_fetch_ends_and_is_resumed(models: Path, store: Store):
    cancelled = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.done_bytes > 400_000:
            cancelled.set()

    with serving(models) as server:
        source = Source(f"{server.url}/tiny")
        with pytest.raises(FetchCancelled):
            fetch(source, store, watch, cancelled)
        assert_untouched(store)
        before = server.sent
        fetch(source, store)
        assert server.requests[-1].path
        assert any(request.range for request in server.requests)
        assert server.sent - before < 1_000_000


FETCHER = """
import sys
from pathlib import Path
from gg_bridge.fetch import Source, fetch
from vla_core.store import Store
print(fetch(Source(sys.argv[2]), Store(Path(sys.argv[1]))), flush=True)
"""


def test_two_processes_that_fetch_the_same_transfer_it_once(models: Path, store: Store):
    with serving(models, blocks=20_000) as server:
        gate = threading.Semaphore(30)
        server.manners.pace = lambda: gate.acquire(timeout=0.02)
        words = [sys.executable, "-c", FETCHER, str(store.root), f"{server.url}/tiny"]
        both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=120)[0] for process in both]
        assert said == ["tiny@1\n"] * 2
        weights = [request for request in server.requests if request.path.endswith("policy.onnx")]
        assert len(weights) == 1
    assert store.verify("tiny@1")
    assert MODEL_PART
