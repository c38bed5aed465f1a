"""Fetching while processes are killed, disks fill up and certificates are wrong."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from fetch_servers import serving
from fetch_support import write_model

from gg_bridge.fetch import FetchError, Progress, Source, fetch
from vla_core import archives
from vla_core import manifest as manifests
from vla_core.errors import StoreFull
from vla_core.store import Space, Store

FETCHER = """
import sys
from pathlib import Path
from gg_bridge.fetch import Source, fetch
from vla_core.store import Space, Store
store = Store(Path(sys.argv[1]), space=Space(keep_free_bytes=0))
print("started", flush=True)
label = fetch(Source(sys.argv[2]), store)
store.set_current(label)
print(label, flush=True)
"""
MOUNT = shutil.which("mount")
UMOUNT = shutil.which("umount")


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gg_bridge.fetch.transfer.FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("suffix", ["", ".tar.gz"])
def test_a_fetch_killed_again_and_again_gets_there(tmp_path: Path, suffix: str):
    """Every process is killed after some time; the bytes that one received, the next need not transfer."""
    root, models = tmp_path / "store", tmp_path / "models"
    first = Store(root)
    first.adopt(write_model(tmp_path / "old", "0"))
    first.set_current("tiny@0")
    first.mark_good("tiny@0")
    model = write_model(models / "tiny", weights_bytes=3_000_000)
    archives.pack(model, manifests.load(model), models / "tiny.tar.gz")
    lot = random.Random(3)  # noqa: S311  no secret
    kills = 0
    with serving(models, blocks=50_000) as server:
        server.manners.pace = lambda: time.sleep(0.01)
        deadline = time.monotonic() + 240
        while first.state().current != "tiny@1":
            assert time.monotonic() < deadline
            words = [sys.executable, "-c", FETCHER, str(root), f"{server.url}/tiny{suffix}"]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "started\n"
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(lot.uniform(0.05, 0.4 + 0.1 * kills))  # also on a machine that is busy
                kills += process.poll() is None
                process.send_signal(signal.SIGKILL)
            store = Store(root)
            state = store.state()
            assert state.current in ("tiny@0", "tiny@1")
            assert state.last_good == "tiny@0"
            for label in store.labels():
                store.verify(label)
        size = 3_000_000
        in_flight = kills * 500_000  # what lay in the sockets' buffers at each kill
        assert server.sent < size * 1.6 + in_flight, "it began anew each time"
    assert kills > 1
    first.gc()
    assert not list((root / "staging").iterdir())


# --- a disk that fills up --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes of memory as a disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not MOUNT or not UMOUNT or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run([MOUNT, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run([UMOUNT, "-l", str(folder)], check=True)


def small_store(disk: Path) -> Store:
    store = Store(disk / "store", space=Space(keep_free_bytes=0))
    store.adopt(write_model(disk / "old", "0"))
    store.set_current("tiny@0")
    return store


def fill_up(disk: Path) -> None:
    for number in range(3):
        with contextlib.suppress(OSError), (disk / f"hog{number}").open("wb") as stream:
            while True:
                stream.write(bytes(4096))
                stream.flush()
    assert shutil.disk_usage(disk).free == 0


def test_a_disk_that_fills_up_midway_leaves_the_store_as_it_was(small_disk: Path, tmp_path: Path):
    """Somebody else takes the room after it was promised; once it is free again, the fetch goes on."""
    store = small_store(small_disk)
    models = tmp_path / "models"
    write_model(models / "tiny", weights_bytes=2_500_000)
    with serving(models, blocks=20_000) as server:
        source = Source(f"{server.url}/tiny")

        def fill(progress: Progress) -> None:
            if progress.done_bytes > 500_000 and not (small_disk / "hog0").exists():
                fill_up(small_disk)

        with pytest.raises(FetchError, match="the disk is full; what came is kept") as caught:
            fetch(source, store, fill)
        assert caught.value.retryable
        assert store.state().current == "tiny@0"
        assert store.labels() == ("tiny@0",)
        assert store.verify("tiny@0")
        with pytest.raises(FetchError, match="are needed but"):
            fetch(source, store)
        for hog in small_disk.glob("hog*"):
            hog.unlink()
        before = server.sent
        assert fetch(source, store) == "tiny@1"
        assert server.sent - before < 2_100_000  # what had come was kept
    assert store.verify("tiny@1")


def test_a_full_disk_does_not_touch_state(small_disk: Path):
    store = small_store(small_disk)
    store.adopt(write_model(small_disk / "new", "1"))
    (store.root / "state.previous.json").unlink()  # whose room the new one would take
    fill_up(small_disk)
    before = store.state()
    with pytest.raises(StoreFull, match=r"cannot be written.*No space left.*as it was before"):
        store.set_current("tiny@1")
    assert store.state() == before
    with store.hold("tiny@0") as folder:  # a robot can still start
        assert folder.is_dir()
    assert store.gc() == ("tiny@1",)  # and room can be made
    store.mark_good("tiny@0")
    assert store.state().last_good == "tiny@0"


def test_an_abandoned_download_makes_room_for_another(small_disk: Path, tmp_path: Path):
    store = small_store(small_disk)
    models = tmp_path / "models"
    write_model(models / "1", "1", weights_bytes=2_500_000)
    write_model(models / "2", "2", weights_bytes=2_500_000)
    with serving(models, cut_after=[2_000_000, *[0] * 10]) as server:
        with pytest.raises(FetchError):
            fetch(Source(f"{server.url}/1"), store)
        server.manners.cut_after.clear()
        assert fetch(Source(f"{server.url}/2"), store) == "tiny@2"
    assert store.labels() == ("tiny@0", "tiny@2")


# --- certificates ----------------------------------------------------------------------------------------------------


def make_certificate(folder: Path) -> Path:
    """Key and certificate for 127.0.0.1 in one file."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_https_needs_a_certificate_that_is_trusted_and_never_falls_back_to_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models = tmp_path / "models"
    write_model(models / "tiny")
    pem = make_certificate(tmp_path)
    store = Store(tmp_path / "store")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(models) as server, serving(models) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        source = Source(f"https://127.0.0.1:{server.server_port}/tiny")
        with pytest.raises(FetchError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed") as caught:
            fetch(source, store)
        assert caught.value.retryable  # a clock that is still in 1970 does this too
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        server.manners.moved["/tiny/manifest.json"] = f"{plain.url}/tiny/manifest.json"
        with pytest.raises(FetchError, match="redirects to plain http"):
            fetch(source, store)
        server.manners.moved.clear()
        assert fetch(source, store) == "tiny@1"
