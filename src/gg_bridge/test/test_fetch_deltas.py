"""Fetching what changed: deltas beside a model and deltas that are deployed, and every way back to the whole."""

from __future__ import annotations

import hashlib
import logging
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fetch_servers import serving
from fetch_support import write_model

from gg_bridge.fetch import FetchError, Progress, Source, fetch
from gg_bridge.fetch.preview import preview
from gg_bridge.fetch.source import deltas_of, is_delta, parse, whole_of
from vla_core import archives, signing
from vla_core import manifest as manifests
from vla_core.delta.build import build
from vla_core.signing import Trust
from vla_core.store import Space, Store

WEIGHTS = 1_000_000
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = signing.public_bytes(KEY)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gg_bridge.fetch.transfer.FIRST_PAUSE_S", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Versions 1 and 2 of a model, which differ in ten thousand bytes, and the delta between them where it belongs."""
    folder = tmp_path / "models"
    old = write_model(folder / "1", "1", weights_bytes=WEIGHTS)
    shutil.copytree(old, folder / "2")
    content = bytearray((old / "policy.onnx").read_bytes())
    noise = random.Random(4)  # noqa: S311  noise
    for place in range(1000, WEIGHTS, 100):
        content[place] = noise.randrange(256)
    (folder / "2" / "policy.onnx").write_bytes(content)
    (folder / "2" / "config.json").write_text('{"type": "act", "n": 2}')
    manifests.write(folder / "2", replace(manifests.load(old), version="2", files=manifests.list_files(folder / "2")))
    make_delta(folder)
    return folder


def make_delta(models: Path, to: str = "2", whole: str = "") -> Path:
    """The delta from 1 to `to`, beside the latter."""
    place = models / f"{to}.deltas"
    place.mkdir(exist_ok=True)
    digest = signing.body_digest((models / "1" / manifests.FILE_NAME).read_text())
    build(models / "1", models / to, place / f"{digest}.delta", whole=whole)
    return place / f"{digest}.delta"


@pytest.fixture
def store(tmp_path: Path, models: Path) -> Store:
    """It has version 1."""
    store = Store(tmp_path / "store")
    store.adopt(models / "1")
    store.set_current("tiny@1")
    return store


def came(store: Store) -> Mapping[str, Any]:
    """What the history says about the last fetch."""
    return [entry for entry in store.history() if entry["event"] == "fetched"][-1]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- beside a model --------------------------------------------------------------------------------------------------


def test_a_delta_beside_the_model_is_taken(models: Path, store: Store):
    seen: list[Progress] = []
    with serving(models) as server:
        assert (
            fetch(Source(f"{server.url}/2/", "2", digest_of(models / "2/manifest.json")), store, seen.append)
            == "tiny@2"
        )
        assert server.sent < WEIGHTS / 10
        assert not [request for request in server.requests if request.path.endswith(("policy.onnx", "config.json"))]
    assert store.verify("tiny@2")
    assert came(store)["base"] == "tiny@1"
    assert came(store)["delta_bytes"] <= came(store)["came"] < WEIGHTS / 10
    assert "fallback" not in came(store)
    assert seen[-1].done_bytes == seen[-1].total_bytes
    assert any(progress.what.startswith("rebuilding policy.onnx") for progress in seen)
    assert not list((store.root / "staging").iterdir())


def test_unchanged_files_are_linked_and_survive_the_model_that_they_came_from(models: Path, store: Store):
    """A link costs no room, and is counted once; whichever model is evicted first."""
    with serving(models) as server:
        fetch(Source(f"{server.url}/2"), store)
        paths = [request.path for request in server.requests]
    assert not [path for path in paths if path.endswith(("safetensors", "README.md", "merges.txt"))]
    one, two = (store.folder(f"tiny@{version}") / "model.safetensors" for version in "12")
    assert one.samefile(two)
    sizes = [store.size_bytes(f"tiny@{version}") for version in "12"]
    store.set_current("tiny@2")
    store.mark_good("tiny@2")
    assert store.gc() == ("tiny@1",)
    assert store.verify("tiny@2")
    assert sizes[1] < store.size_bytes("tiny@2") <= sum(sizes)


def test_a_delta_that_is_cut_twenty_times_arrives(models: Path, store: Store):
    delta = next((models / "2.deltas").iterdir())
    size = delta.stat().st_size
    assert size > 15_000
    cuts: list[int | None] = [size // 50] * 20
    with serving(models, blocks=100, cut_after=cuts) as server:
        assert fetch(Source(f"{server.url}/2"), store) == "tiny@2"
        assert not server.manners.cut_after
        assert server.sent < size * 1.5 + 5000
    assert came(store)["base"] == "tiny@1"


def test_a_delta_that_changes_midway_is_begun_anew(models: Path, store: Store):
    delta = next((models / "2.deltas").iterdir())
    right, wrong = delta.read_bytes(), bytes(delta.stat().st_size)
    with serving(models, blocks=1000, cut_after=[10_000]) as server:
        path = f"/2.deltas/{delta.name}"
        server.manners.content[path] = wrong

        def change() -> None:
            if not server.manners.cut_after:
                server.manners.content[path] = right

        server.manners.pace = change
        assert fetch(Source(f"{server.url}/2"), store) == "tiny@2"
    assert came(store)["base"] == "tiny@1"


def test_a_beginning_that_a_power_cut_damaged_is_fetched_again(models: Path, store: Store):
    with serving(models, blocks=100, cut_after=[3000, *[0] * 10]) as server:
        source = Source(f"{server.url}/2")
        with pytest.raises(FetchError, match="brought nothing new") as caught:
            fetch(source, store)
        assert caught.value.retryable  # the line is bad: the whole would not come either
        (part,) = (store.root / "staging").glob("*/deltas/*.delta")
        part.write_bytes(bytes(part.stat().st_size))
        server.manners.cut_after.clear()
        assert fetch(source, store) == "tiny@2"
        assert server.sent < WEIGHTS / 5
    assert came(store)["base"] == "tiny@1"


def damage_payload(models: Path, store: Store) -> None:
    delta = next((models / "2.deltas").iterdir())
    content = bytearray(delta.read_bytes())
    content[-5] ^= 1
    delta.write_bytes(content)


def cut_short(models: Path, store: Store) -> None:
    delta = next((models / "2.deltas").iterdir())
    delta.write_bytes(delta.read_bytes()[:3000])


def lead_elsewhere(models: Path, store: Store) -> None:
    shutil.copytree(models / "2", models / "3")
    (models / "3" / "config.json").write_text('{"type": "act", "n": 3}')
    manifest = manifests.load(models / "2")
    manifests.write(models / "3", replace(manifest, version="3", files=manifests.list_files(models / "3")))
    shutil.copyfile(make_delta(models, "3"), next((models / "2.deltas").iterdir()))


def damage_base(models: Path, store: Store) -> None:
    path = store.folder("tiny@1") / "policy.onnx"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(content)


def be_long(models: Path, store: Store) -> None:
    delta = next((models / "2.deltas").iterdir())
    delta.write_bytes(delta.read_bytes() + bytes(2 * WEIGHTS))


def be_nothing_of_the_kind(models: Path, store: Store) -> None:
    next((models / "2.deltas").iterdir()).write_bytes(b"<html>not found</html>")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_payload, "is damaged"),
        (cut_short, "is damaged"),
        (lead_elsewhere, "another model|tiny@3 where version 2"),
        (damage_base, "came out otherwise"),
        (be_nothing_of_the_kind, "is no delta"),
        (be_long, ""),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".tar.gz"])
def test_a_delta_that_is_of_no_use_costs_the_whole_and_no_more(
    models: Path, store: Store, caplog: pytest.LogCaptureFixture, spoil: Any, reason: str, suffix: str
):
    """Log and history say why; the model is the right one all the same."""
    archives.pack(models / "2", manifests.load(models / "2"), models / "2.tar.gz")
    spoil(models, store)
    if suffix:
        (models / "2.deltas").rename(models / "2.tar.gz.deltas")
    seen: list[Progress] = []
    with serving(models) as server, caplog.at_level(logging.WARNING):
        assert fetch(Source(f"{server.url}/2{suffix}", "2"), store, seen.append) == "tiny@2"
    assert store.verify("tiny@2")
    if not (spoil is be_long and suffix):
        assert "base" not in came(store)
    if reason:
        assert re.search(reason, came(store)["fallback"])
        assert re.search(reason, caplog.text)
        assert any(re.search(reason, progress.what) for progress in seen)
    if not suffix:
        assert seen[-1].done_bytes == seen[-1].total_bytes


def test_a_store_without_the_base_fetches_the_whole(models: Path, tmp_path: Path):
    empty = Store(tmp_path / "empty")
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/2"), empty) == "tiny@2"
        assert not [request for request in server.requests if ".deltas" in request.path]
    assert "base" not in came(empty)
    assert "fallback" not in came(empty)


def test_a_small_change_is_not_worth_a_question(models: Path, store: Store):
    shutil.copyfile(models / "1/policy.onnx", models / "2/policy.onnx")
    manifests.write(models / "2", replace(manifests.load(models / "2"), files=manifests.list_files(models / "2")))
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/2"), store) == "tiny@2"
        assert [request.path for request in server.requests] == ["/2/manifest.json", "/2/config.json"]


def test_no_room_for_delta_and_model_at_once_does_with_the_model(models: Path, tmp_path: Path):
    delta = next((models / "2.deltas").iterdir())
    store = Store(tmp_path / "store")
    store.adopt(models / "1")
    store.set_current("tiny@1")
    assert delta.stat().st_size > 16_000
    small_files = 3 * 4096
    tight = Store(store.root, space=Space(limit_bytes=store.size_bytes("tiny@1") + WEIGHTS + small_files))
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/2"), tight) == "tiny@2"
    assert "are needed but" in came(tight)["fallback"]


# --- archives --------------------------------------------------------------------------------------------------------


def test_a_delta_beside_an_archive_is_taken_where_the_archive_is_not_pinned_but_the_version_is(
    models: Path, store: Store
):
    """A version never changes; an archive of unknown content may have been replaced since the delta was made."""
    archive = models / "2.tar.gz"
    archives.pack(models / "2", manifests.load(models / "2"), archive)
    (models / "2.deltas").rename(models / "2.tar.gz.deltas")
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/2.tar.gz", "2", digest_of(archive)), store) == "tiny@2"
        store.gc()
        assert fetch(Source(f"{server.url}/2.tar.gz"), store) == "tiny@2"
        assert not [request for request in server.requests if ".deltas" in request.path]
        store.gc()
        before = server.sent
        assert store.labels() == ("tiny@1",)
        assert fetch(Source(f"{server.url}/2.tar.gz", "2"), store) == "tiny@2"
        assert server.sent - before < WEIGHTS / 10
    assert store.verify("tiny@2")
    assert came(store)["base"] == "tiny@1"


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_delta_to_an_unsigned_model_is_refused_where_signatures_are_required(models: Path, store: Store):
    """The delta was made before the model was signed: it leads to the same files, but says nothing of who vouches."""
    signing.sign_folder(models / "1", KEY)
    signing.sign_folder(models / "2", KEY)
    strict = Store(store.root, Trust({signing.key_id_of(PUBLIC): PUBLIC}, required=True))
    archives.pack(models / "2", manifests.load(models / "2"), models / "2.tar.gz")
    shutil.copytree(models / "2.deltas", models / "2.tar.gz.deltas")
    with serving(models) as server:
        assert fetch(Source(f"{server.url}/2.tar.gz", "2"), strict) == "tiny@2"
    assert "is not signed" in came(strict)["fallback"]
    strict.gc()
    with serving(models) as server:  # the folder's manifest came from the source, and is signed
        assert fetch(Source(f"{server.url}/2"), strict) == "tiny@2"
    assert came(strict)["base"] == "tiny@1"
    assert strict.verify("tiny@2").signature is not None


# --- a delta as the source -------------------------------------------------------------------------------------------


def test_a_delta_may_be_deployed_itself(models: Path, store: Store):
    delta = next((models / "2.deltas").iterdir())
    sha256 = digest_of(models / "2/manifest.json")
    with serving(models) as server:
        source = Source(f"{server.url}/2.deltas/{delta.name}", "2", sha256)
        looked = preview(source, store.trust)
        assert looked is not None
        assert looked.label == "tiny@2"
        assert fetch(source, store) == "tiny@2"
        assert server.sent < WEIGHTS / 10
    assert came(store)["base"] == "tiny@1"
    store.gc()
    kept = delta.read_bytes()
    assert fetch(Source(f"file:{delta}", sha256=sha256), store) == "tiny@2"
    assert preview(Source(str(delta)), store.trust) is not None
    assert delta.read_bytes() == kept
    assert store.verify("tiny@2")


def test_a_deployed_delta_without_its_base_leads_to_the_whole(models: Path, tmp_path: Path):
    delta = next((models / "2.deltas").iterdir())
    sha256 = digest_of(models / "2/manifest.json")
    with serving(models) as server:
        beside = Store(tmp_path / "a")
        assert fetch(Source(f"{server.url}/2.deltas/{delta.name}", "2", sha256), beside) == "tiny@2"
        assert "tiny@1, which it was made against, is not in the store" in came(beside)["fallback"]
        named, alone = make_delta(models, whole=f"{server.url}/2"), tmp_path / "alone.delta"
        shutil.copyfile(named, alone)
        by_header = Store(tmp_path / "b")
        assert fetch(Source(str(alone), "2", sha256), by_header) == "tiny@2"
        assert "not in the store" in came(by_header)["fallback"]
        gone = Store(tmp_path / "c")  # the delta itself is not there (any more)
        assert fetch(Source(f"{server.url}/2.deltas/none.delta", "2", sha256), gone) == "tiny@2"
        assert "404" in came(gone)["fallback"]
    local, delta = Store(tmp_path / "d"), make_delta(models)
    assert fetch(Source(str(delta), "2", sha256), local) == "tiny@2"  # the folder lies beside it


def test_a_deployed_delta_leads_to_no_other_model_than_its_own(models: Path, store: Store, tmp_path: Path):
    delta = make_delta(models, whole=str(models / "1"))
    empty = Store(tmp_path / "empty")
    with pytest.raises(FetchError, match="another model than the delta leads to"):
        fetch(Source(str(delta)), empty)
    with pytest.raises(FetchError, match="holds tiny@2 where version 7 was asked for"):
        fetch(Source(str(delta), "7"), store)
    with pytest.raises(FetchError, match="it is another model"):
        fetch(Source(str(delta), "2", "0" * 64), store)
    alone = tmp_path / "alone.delta"
    shutil.copyfile(make_delta(models), alone)
    with pytest.raises(FetchError, match=r"tiny@1, .*not in the store; where the whole model is") as caught:
        fetch(Source(str(alone)), empty)
    assert not caught.value.retryable
    assert empty.labels() == ()


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "deltas"),
    [
        ("https://host/a/2/?token=1", "https://host/a/2.deltas?token=1"),
        ("https://host/a/2.tar.gz", "https://host/a/2.tar.gz.deltas"),
        ("https://host/", "https://host/deltas"),
        ("s3://bucket/a/2", "s3://bucket/a/2.deltas"),
        ("s3://bucket", "s3://bucket/deltas"),
        ("hf:owner/name/2@main", "hf:owner/name/2.deltas@main"),
        ("hf:owner/name", "hf:owner/name/deltas@main"),
    ],
)
def test_where_deltas_lie(uri: str, deltas: str):
    assert deltas_of(parse(Source(uri))) == parse(Source(deltas))


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("https://host/a/2.deltas/x.delta?token=1", "https://host/a/2?token=1"),
        ("https://host/a/2.delta", None),
        ("s3://bucket/a/2.tar.gz.deltas/x.delta", "s3://bucket/a/2.tar.gz"),
        ("/models/2.deltas/x.delta", "/models/2"),
        ("/models/2.delta", None),
    ],
)
def test_where_the_whole_lies(uri: str, whole: str | None):
    place = parse(Source(uri))
    assert is_delta(place)
    assert whole_of(place) == (parse(Source(whole)) if whole else None)
