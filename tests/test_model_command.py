"""`evergreen model`, as processes, with the models that this project ships."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import EVERGREEN, ROOT

from vla_core import manifest as manifests
from vla_core.store import Store

DEADLINE_S = 120


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `evergreen model …` with a store of its own and returns it, ended."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "EVERGREEN_STORE": str(tmp_path / "store"),
        "COLUMNS": "160",
    }

    def run(*words: object, expect: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(EVERGREEN), "model", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=ROOT,
            env=environment | more,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def document(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_a_models_way_from_a_folder_to_the_robot(model, tmp_path: Path):
    """Pack, sign, archive, fetch, verify, use, list, gc."""
    folder, key, archive = tmp_path / "mine", tmp_path / "key.pem", tmp_path / "mine.tar.gz"
    shutil.copytree(ROOT / "models/evergreen-black", folder)
    key_id = document(model("keygen", key, "--json"))["key_id"]
    packed = document(model("pack", folder, "--version", "1.0.1", "--key", key, "--archive", archive, "--json"))
    assert packed["label"] == "evergreen-black@1.0.1"
    assert packed["signed_by"] == key_id
    trust = ("--trust", f"{key}.pub", "--require-signature")
    got = document(model("fetch", archive, "--sha256", packed["archive_sha256"], *trust, "--json"))
    assert got == {
        "label": "evergreen-black@1.0.1",
        "folder": str(tmp_path / "store/models/evergreen-black/1.0.1"),
        "size_bytes": packed["size_bytes"],
        "current": False,
        "transferred_bytes": 0,  # a file of this machine
        "delta_from": "",
        "whole_because": "",
    }
    assert "is not signed" in model("fetch", "models/expert", *trust, expect=1).stderr
    assert document(model("fetch", "models/expert", "--use", "--json"))["current"]
    assert "evergreen-black@1.0.1 (was" not in model("list").stdout
    assert "current: evergreen-black@1.0.1 (was expert@1.0.0)" in model("use", "evergreen-black@1.0.1").stdout
    listed = document(model("list", "--json"))
    assert listed["current"] == "evergreen-black@1.0.1"
    assert [(row["label"], row["current"], row["signed_by"]) for row in listed["models"]] == [
        ("evergreen-black@1.0.1", True, key_id),
        ("expert@1.0.0", False, ""),
    ]
    table = model("list").stdout
    assert "current" in table
    assert "put the black cube on the spot" in table
    assert [finding["problem"] for finding in document(model("verify", "--json"))] == ["", ""]
    assert "would remove expert@1.0.0" in model("gc", "--dry-run").stdout
    assert document(model("gc", "--json"))["removed"] == ["expert@1.0.0"]
    assert "evicted" in model("list", "--history").stdout
    events = [json.loads(line)["event"] for line in model("list", "--history", "--json").stdout.splitlines()]
    assert events == ["added", "fetched", "added", "fetched", "current", "current", "evicted"]


def test_verify_finds_what_is_wrong(model, tmp_path: Path):
    model("fetch", "models/evergreen-black")
    stored = tmp_path / "store/models/evergreen-black/1.0.0/policy.onnx"
    content = bytearray(stored.read_bytes())
    content[1000] ^= 1
    stored.write_bytes(content)
    done = model("verify", "models/evergreen-black", "evergreen-black@1.0.0", expect=1)
    assert "ok  evergreen-black@1.0.0 (models/evergreen-black)" in done.stdout
    assert "BAD evergreen-black@1.0.0" in done.stdout
    assert "SHA-256" in model("use", "evergreen-black@1.0.0", expect=1).stderr
    model("fetch", "models/evergreen-black")  # which repairs it
    model("verify", "evergreen-black@1.0.0")


def test_packing_makes_keeps_and_refuses(model, tmp_path: Path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "README.md").write_text("# New\n")
    assert "--set policy_type" in model("pack", folder, expect=1).stderr
    fields = ("--set", 'policy_type="act"', "--set", 'backend="onnx"', "--set", 'joint_names=["a","b"]')
    one = document(model("pack", folder, "--name", "new", "--version", "1", *fields, "--json"))
    assert one["label"] == "new@1"
    assert document(model("pack", folder, "--json")) == one
    model("keygen", tmp_path / "key.pem")
    model("sign", folder, "--key", tmp_path / "key.pem")
    assert "signed" in model("pack", folder).stdout  # nothing changed: it stays signed
    assert "--drop-signature" in model("pack", folder, "--prompt", "go", expect=1).stderr
    assert "its signature was removed" in model("pack", folder, "--prompt", "go", "--drop-signature").stdout
    assert "must lie within the chunk" in model("pack", folder, "--set", "rate_hz=500", expect=1).stderr
    assert "KEY=JSON" in model("pack", folder, "--set", "files={}", expect=2).stderr
    (folder / "weights.pkl").write_bytes(b"\x80\x04.")
    assert "nothing that could run code" in model("pack", folder, expect=1).stderr
    (folder / "weights.pkl").rename(folder / "weights.safetensors")
    assert "is no .safetensors file" in model("pack", folder, expect=1).stderr
    (folder / "weights.safetensors").unlink()
    (folder / "link.txt").symlink_to("/etc/hostname")
    assert "is a link" in model("pack", folder, expect=1).stderr


def damage(folder: Path) -> None:
    """What a copy that broke off leaves."""
    os.truncate(folder / "model.safetensors", 20_000_000)
    (folder / "policy.onnx").unlink()


def test_packing_never_blesses_damaged_files(model, tmp_path: Path):
    """It rewrote the manifest over them, and the cut weights were a new good model under the old version."""
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "models/evergreen-black", folder)
    before = (folder / "manifest.json").read_bytes()
    damage(folder)
    told = model("pack", folder, expect=1).stderr
    assert "model.safetensors has 20000000 bytes instead of 2" in told
    assert "policy.onnx is missing" in told
    assert "--version V" in told
    assert told.count("\n") == 1
    for words in (("--version", "1.0.1"), ("--repack",), ("--version", "1.0.1", "--repack")):  # cut all the same
        assert "bytes where its header says" in model("pack", folder, *words, expect=1).stderr
    assert (folder / "manifest.json").read_bytes() == before


def test_verify_finds_weights_that_were_cut_before_they_were_packed(model, tmp_path: Path):
    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "models/evergreen-black", folder)
    os.truncate(folder / "model.safetensors", 20_000_000)
    manifests.write(folder, replace(manifests.load(folder), files=manifests.list_files(folder)))
    assert "has 20000000 bytes where its header says" in model("verify", folder, expect=1).stdout


def test_changed_files_need_a_new_version_and_a_signature_its_key(model, tmp_path: Path):
    folder, key = tmp_path / "mine", tmp_path / "key.pem"
    shutil.copytree(ROOT / "models/expert", folder)
    (folder / "notes.md").write_text("one\n")
    model("pack", folder)  # files that come are no damage
    model("keygen", key)
    model("sign", folder, "--key", key)
    model("pack", folder)
    (folder / "notes.md").write_text("two\n")
    assert "notes.md has other content" in model("pack", folder, "--key", key, expect=1).stderr
    assert "notes.md has other" in model("pack", folder, "--version", "1.0.0", "--key", key, expect=1).stderr
    assert "would lose its signature" in model("pack", folder, "--version", "1.0.1", expect=1).stderr
    assert document(model("pack", folder, "--version", "1.0.1", "--key", key, "--json"))["signed_by"]
    model("pack", folder, "--version", "1.0.1", "--key", key)  # what it has already is no new content
    (folder / "notes.md").write_text("three\n")
    assert document(model("pack", folder, "--repack", "--drop-signature", "--json"))["label"] == "expert@1.0.1"


def test_what_the_user_can_put_right_is_one_line(model, tmp_path: Path):
    assert "no store at" in model("list", expect=2).stderr
    assert "keygen" in model("sign", "models/expert", "--key", tmp_path / "absent.pem", expect=2).stderr
    assert "none of file:/path" in model("fetch", "ftp://host/x", expect=2).stderr
    assert "no key is trusted" in model("fetch", "models/expert", "--require-signature", expect=2).stderr
    model("keygen", tmp_path / "key.pem")
    trust = ("--trust", tmp_path / "key.pem.pub")  # it made the command forget what the environment requires
    assert "is not signed" in model("fetch", "models/expert", *trust, expect=1, EVERGREEN_REQUIRE_SIGNATURE="1").stderr
    assert model("fetch", "models/nope", expect=1).stderr.startswith("error: models/nope does not exist")
    assert not list((tmp_path / "store" / "staging").iterdir())  # it left a folder behind
    model("fetch", "models/expert")
    Store(tmp_path / "store").refuse("expert@1.0.0", "too slow")
    assert "--anyway" in model("fetch", "models/expert", "--use", expect=1).stderr  # it was made current all the same
    assert "which has expert@1.0.0" in model("use", "expert@2", expect=1).stderr
    assert "are needed but" in model("fetch", "models/evergreen-black", "--limit", "1MB", expect=1).stderr
    assert "write a size" in model("fetch", "models/expert", "--limit", "much", expect=2).stderr
    assert "verb" in model(expect=2).stderr
    listed = model("--help").stdout
    assert all(
        f"\n    {verb} " in listed
        for verb in ("pack", "verify", "list", "fetch", "use", "gc", "sign", "keygen", "diff", "delta")
    )


def test_a_refused_model_is_used_only_when_asked_twice(model, tmp_path: Path):
    model("fetch", "models/expert")
    refuse = "from pathlib import Path; import sys; from vla_core.store import Store; "
    refuse += "Store(Path(sys.argv[1])).refuse('expert@1.0.0', 'it shook')"
    subprocess.run([sys.executable, "-c", refuse, str(tmp_path / "store")], check=True)
    assert "it shook" in model("list").stdout
    assert "it shook; --anyway" in model("use", "expert@1.0.0", expect=1).stderr
    model("use", "expert@1.0.0", "--anyway")
    assert document(model("list", "--json"))["refused"] == {}


class Slow(http.server.SimpleHTTPRequestHandler):
    """Half a megabyte at a time."""

    def copyfile(self, source, outputfile):
        while block := source.read(500_000):
            outputfile.write(block)
            time.sleep(0.05)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def slow_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=ROOT / "models"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_fetch_says_so_and_the_next_one_gets_there(
    evergreen, model, tmp_path: Path, slow_server: str, sent: signal.Signals, code: int
):
    store = tmp_path / "store"
    running = evergreen(["model", "fetch", f"{slow_server}/evergreen-black"], EVERGREEN_STORE=store)
    running.wait_for(
        lambda: any(p.stat().st_size > 1_000_000 for p in store.glob("staging/*/parts/*.part")), DEADLINE_S
    )
    running.process.send_signal(sent)
    assert running.finish(DEADLINE_S) == code
    assert "Traceback" not in running.text()
    assert not list(store.glob("models/*/*"))
    assert list(store.glob("staging/*/parts/*.part"))
    done = model("fetch", f"{slow_server}/evergreen-black")
    assert "transferred" in done.stderr
    model("verify", "evergreen-black@1.0.0")
