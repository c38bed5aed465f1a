"""Fetching from S3: a real client against moto's server, also over a line that is cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from fetch_support import write_model
from moto.server import ThreadedMotoServer

from gg_bridge.fetch import FetchError, Source, fetch, s3
from gg_bridge.fetch.source import S3Place
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.store import Store

WEIGHTS = 2_500_000
BUCKET = "models-of-robots"


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield int(port)
    server.stop()


@pytest.fixture(autouse=True)
def aws(moto: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("gg_bridge.fetch.transfer.FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def bucket(aws: None) -> Iterator[Any]:
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def uploaded(bucket: Any, tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "tiny", weights_bytes=WEIGHTS)
    for path in folder.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), BUCKET, f"fleet/tiny/{path.relative_to(folder).as_posix()}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_prefix_arrives_whole(uploaded: Path, store: Store):
    assert fetch(Source(f"s3://{BUCKET}/fleet/tiny/", "1"), store) == "tiny@1"
    assert store.verify("tiny@1")


def test_an_archive_arrives_whole(bucket: Any, uploaded: Path, store: Store, tmp_path: Path):
    archives.pack(uploaded, manifests.load(uploaded), tmp_path / "tiny.tar.gz")
    bucket.upload_file(str(tmp_path / "tiny.tar.gz"), BUCKET, "tiny.tar.gz")
    digest = manifests.sha256_file(tmp_path / "tiny.tar.gz")
    assert fetch(Source(f"s3://{BUCKET}/tiny.tar.gz", "", digest), store) == "tiny@1"
    assert store.verify("tiny@1")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"s3://{BUCKET}/fleet/none", "NoSuchKey"),
        ("s3://no-such-bucket/x", "NoSuchBucket"),
    ],
)
def test_what_is_not_there_is_told_at_once(uploaded: Path, store: Store, uri: str, words: str):
    with pytest.raises(FetchError, match=words) as caught:
        fetch(Source(uri), store)
    assert not caught.value.retryable


@pytest.mark.parametrize("usual", ["", "eu-central-1"])
def test_the_region_that_greengrass_sets_is_taken(aws: None, monkeypatch: pytest.MonkeyPatch, usual: str):
    """boto3 reads `AWS_DEFAULT_REGION` only: a bucket elsewhere than in us-east-1 answered with a redirect."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", usual)
    assert s3.S3Remote(S3Place(BUCKET, "x"))._client.meta.region_name == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert s3.S3Remote(S3Place(BUCKET, "x"))._client.meta.region_name == "eu-north-1"


def test_without_credentials_the_cure_is_told(uploaded: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(FetchError, match="TokenExchangeService") as caught:
        fetch(Source(f"s3://{BUCKET}/fleet/tiny"), store)
    assert not caught.value.retryable


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "ExpiredToken", "RequestTimeout"])
def test_what_passes_by_itself_condemns_no_model(code: str):
    """A clock still in 1970 is answered with 403, as is a forbidden object: the model was refused for ever."""
    status = 403 if code == "RequestTimeTooSkewed" else 400
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(FetchError, match=code) as caught:
        s3._refuse(ClientError(answer, "GetObject"), "s3://b/k")
    assert caught.value.retryable


def test_nobody_answering_can_be_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(FetchError, match="Could not connect") as caught:
        fetch(Source(f"s3://{BUCKET}/fleet/tiny"), store)
    assert caught.value.retryable


class CuttingLine:
    """A TCP proxy that hands over `limits` bytes of each long answer, one limit a connection, then hangs up."""

    def __init__(self, port: int, limits: list[int]) -> None:
        self._target, self._limits = port, limits
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections, self.on_cut = 0, lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    on_cut: Callable[[], object]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, cuts: bool | None) -> None:
        passed = 0
        try:
            while block := source.recv(8192):
                passed += len(block)
                sink.sendall(block)
                if cuts and self._limits and passed > self._limits[0]:
                    self._limits.pop(0)
                    self.on_cut()
                    break
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutting(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[int]], CuttingLine]]:
    lines: list[CuttingLine] = []

    def make(limits: list[int]) -> CuttingLine:
        lines.append(CuttingLine(moto, limits))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{lines[-1].port}")
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def test_after_twenty_cuts_it_is_whole(uploaded: Path, store: Store, cutting: Callable[[list[int]], CuttingLine]):
    limits = [100_000] * 20
    line = cutting(limits)
    assert fetch(Source(f"s3://{BUCKET}/fleet/tiny"), store) == "tiny@1"
    assert limits == []
    assert line.connections >= 20
    assert store.verify("tiny@1")


def test_an_object_that_changes_midway_is_begun_anew(
    bucket: Any, uploaded: Path, store: Store, cutting: Callable[[list[int]], CuttingLine]
):
    right = (uploaded / "policy.onnx").read_bytes()
    bucket.put_object(Bucket=BUCKET, Key="fleet/tiny/policy.onnx", Body=b"\x08" + bytes(WEIGHTS))
    line = cutting([300_000])
    line.on_cut = lambda: bucket.put_object(Bucket=BUCKET, Key="fleet/tiny/policy.onnx", Body=right)
    assert fetch(Source(f"s3://{BUCKET}/fleet/tiny"), store) == "tiny@1"
    assert store.verify("tiny@1")
