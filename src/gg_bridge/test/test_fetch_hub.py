"""Fetching from the Hugging Face hub: its way of answering, over real HTTP, with redirects to another host."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch_servers import ModelServer, serving
from fetch_support import write_model

from gg_bridge.fetch import FetchError, Source, fetch
from vla_core.store import Store

COMMIT, LATER = "a" * 40, "b" * 40
TOKEN = "hf_verysecret"  # noqa: S105  a test's


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gg_bridge.fetch.transfer.FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@contextlib.contextmanager
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str = "") -> Iterator[tuple[ModelServer, ModelServer]]:
    """A hub whose large files lie at another address, as the real one's do."""
    site, storage = tmp_path / "site", tmp_path / "storage"
    model = write_model(site / "owner/name/resolve" / COMMIT, weights_bytes=400_000)
    (storage / "blobs").mkdir(parents=True)
    (model / "policy.onnx").rename(storage / "blobs" / "policy")
    with serving(site, token=token) as server, serving(storage) as other:
        server.manners.documents["/api/models/owner/name/revision/main"] = json.dumps({"sha": COMMIT}).encode()
        server.manners.documents["/api/models/owner/name/revision/refs/pr/1"] = json.dumps({"sha": COMMIT}).encode()
        where = f"/owner/name/resolve/{COMMIT}/policy.onnx"
        server.manners.moved[where] = f"{other.url}/blobs/policy?X-Amz-Signature=1"
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        yield server, other


def test_a_repository_arrives_whole_through_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store):
    with hub(tmp_path, monkeypatch) as (server, storage):
        storage.manners.cut_after = [100_000, 50_000, 120_000]
        assert fetch(Source("hf:owner/name", "1"), store) == "tiny@1"
        assert len(storage.requests) == 4
        assert storage.sent < 450_000
        assert server.requests[0].path == "/api/models/owner/name/revision/main"
    assert store.verify("tiny@1")


def test_a_branch_that_moves_midway_does_not_mix_two_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
):
    with hub(tmp_path, monkeypatch) as (server, _):
        api = "/api/models/owner/name/revision/main"

        def move() -> None:
            if len(server.requests) > 2:
                server.manners.documents[api] = json.dumps({"sha": LATER}).encode()

        server.manners.pace = move
        assert fetch(Source("hf:owner/name@main"), store) == "tiny@1"
        assert not any(LATER in request.path for request in server.requests)
        assert sum(request.path == api for request in server.requests) == 1


def test_a_revision_with_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store):
    with hub(tmp_path, monkeypatch) as (server, _):
        assert fetch(Source("hf:owner/name@refs/pr/1"), store) == "tiny@1"
        assert server.requests[0].path == "/api/models/owner/name/revision/refs%2Fpr%2F1"


def test_the_token_goes_to_the_hub_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    with hub(tmp_path, monkeypatch, token=TOKEN) as (server, storage):
        assert fetch(Source("hf:owner/name"), store) == "tiny@1"
        assert {request.authorization for request in server.requests} == {f"Bearer {TOKEN}"}
        assert {request.authorization for request in storage.requests} == {""}
        with pytest.raises(FetchError) as caught:
            fetch(Source("hf:owner/none"), store)
    assert TOKEN not in caplog.text + str(caught.value) + (store.root / "history.jsonl").read_text()


def test_a_private_repository_without_a_token_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
):
    with hub(tmp_path, monkeypatch, token=TOKEN), pytest.raises(FetchError, match="needs HF_TOKEN") as caught:
        fetch(Source("hf:owner/name"), store)
    assert not caught.value.retryable


def test_a_repository_without_a_manifest_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store):
    with hub(tmp_path, monkeypatch) as (server, _):
        (server.folder / f"owner/name/resolve/{COMMIT}/manifest.json").unlink()
        with pytest.raises(FetchError, match=r"manifest\.json answers 404") as caught:
            fetch(Source("hf:owner/name"), store)
    assert not caught.value.retryable


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"sha": 3}', b'{"sha": "../../x"}'])
def test_what_does_not_answer_as_a_hub_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store, answer: bytes
):
    with hub(tmp_path, monkeypatch) as (server, _):
        server.manners.documents["/api/models/owner/name/revision/main"] = answer
        with pytest.raises(FetchError, match=r"as a hub does|names no commit"):
            fetch(Source("hf:owner/name"), store)


def test_another_kind_of_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch, store: Store):
    monkeypatch.setenv("HF_ENDPOINT", "ftp://host")
    with pytest.raises(FetchError, match="HF_ENDPOINT"):
        fetch(Source("hf:owner/name"), store)


def test_a_token_goes_through_no_open_line(store: Store, monkeypatch: pytest.MonkeyPatch):
    """It was sent to any http address that HF_ENDPOINT named, readable by all on the way."""
    monkeypatch.setenv("HF_ENDPOINT", "http://192.0.2.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(FetchError, match="could read HF_TOKEN") as caught:
        fetch(Source("hf:owner/name"), store)
    assert "hf_secret" not in str(caught.value)
