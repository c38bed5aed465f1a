"""How models travel, as processes: a slow line shows progress, and only what changed is sent."""

from __future__ import annotations

import http.server
import json
import os
import pty
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import EVERGREEN, ROOT
from slow_line import LTE, Line, slow_line

from evergreen.model.shipping import Destination, check_whole
from vla_core import manifest as manifests
from vla_core.errors import ConfigError
from vla_core.store import Store

DEADLINE_S = 120
SIZE = 600_000
"""Four seconds at the edge of a cell."""


class Serve(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP; `sent` counts bytes of files."""

    sent = 0

    def copyfile(self, source, outputfile):
        content = source.read()
        Serve.sent += len(content)
        outputfile.write(content)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """Serves tmp_path/models; its port."""
    (tmp_path / "models").mkdir()
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Serve, directory=tmp_path / "models"))
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    Serve.sent = 0
    yield served.server_port
    served.shutdown()
    served.server_close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "EVERGREEN_STORE": str(tmp_path / "store"), "COLUMNS": "120",
        "TERM": "xterm",
    }  # fmt: skip


@pytest.fixture
def model(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(EVERGREEN), "model", *map(str, words)],
            capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def small(folder: Path) -> Path:
    """A model of about 600 kB."""
    shutil.copytree(ROOT / "models" / "expert", folder)
    (folder / "notes.txt").write_text("x" * SIZE)
    manifests.write(folder, replace(manifests.load(folder), files=manifests.list_files(folder)))
    return folder


def test_a_fetch_over_lte_tells_programs_bytes_rate_and_remaining_time(model, tmp_path: Path, server: int):
    small(tmp_path / "models" / "m")
    with slow_line(server, LTE) as port:
        done = model("fetch", f"http://127.0.0.1:{port}/m", "--json")
    facts = json.loads(done.stdout)
    assert facts["transferred_bytes"] == SIZE
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["event"] for event in events} == {"progress"}
    told = [event for event in events if event["left_s"] is not None]
    assert told, done.stderr
    for event in told:
        assert 0 < event["done_bytes"] <= event["total_bytes"] == SIZE
        assert event["bytes_s"] < 1.5 * LTE.bytes_s  # buffers make it look faster at first, never for long
        assert event["left_s"] == pytest.approx((SIZE - event["done_bytes"]) / event["bytes_s"], rel=0.05, abs=0.2)


def test_a_fetch_over_lte_writes_lines_into_a_log(model, tmp_path: Path, server: int):
    small(tmp_path / "models" / "m")
    with slow_line(server, LTE) as port:
        done = model("fetch", f"http://127.0.0.1:{port}/m")
    lines = [line for line in done.stderr.splitlines() if " of 600.0 kB, " in line]
    assert lines, done.stderr
    assert all(line.startswith("notes.txt: ") and "kB/s, " in line and line.endswith(" s left") for line in lines)
    assert done.stderr.splitlines()[-1] == "600.0 kB transferred"


def test_a_fetch_shows_a_bar_on_a_terminal(environment: dict[str, str], tmp_path: Path, server: int):
    small(tmp_path / "models" / "m")
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while piece := open_pty.read(4096):
                shown.extend(piece)
        except OSError:  # the other end is closed: that is how a pty ends
            pass

    with slow_line(server, LTE) as port, os.fdopen(ours, "rb", buffering=0) as open_pty:
        words = [str(EVERGREEN), "model", "fetch", f"http://127.0.0.1:{port}/m"]
        with os.fdopen(theirs, "wb", buffering=0) as terminal:
            process = subprocess.Popen(words, stderr=terminal, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
        reader = threading.Thread(target=read)
        reader.start()
        assert process.wait(DEADLINE_S) == 0
        reader.join(DEADLINE_S)
    text = shown.decode()
    assert "━" in text
    assert "notes.txt" in text
    assert "kB/s" in text
    assert "kB transferred" in re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_difference_is_shown_for_people(model, tmp_path: Path):
    """Of a stored model and a folder."""
    model("fetch", "models/expert")
    shown = model("diff", "expert@1.0.0", small(tmp_path / "m")).stdout
    assert "notes.txt" in shown
    assert "image layer, gzip" in shown
    assert "satellite" in shown


def tuned(folder: Path) -> Path:
    """evergreen-black with a transformer that moved a little: every tensor outside the backbone."""
    shutil.copytree(ROOT / "models" / "evergreen-black", folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__" and "backbone" not in name:
            first, last = entry["data_offsets"]
            low = np.frombuffer(content, np.uint8)[begin + first : begin + last : 2]
            low ^= (np.arange(len(low)) % 3).astype(np.uint8)
    path.write_bytes(content)
    manifest = manifests.load(folder)
    manifests.write(folder, replace(manifest, version="1.1.0", files=manifests.list_files(folder), signature=None))
    return folder


@pytest.mark.timeout(600)
def test_an_update_sends_what_changed(model, tmp_path: Path, server: int):
    """From `model diff` and `model delta` to a robot that has the old version, and to one that has not."""
    new = tuned(tmp_path / "models" / "1.1.0")
    old = "models/evergreen-black"
    found: dict[str, Any] = json.loads(model("diff", old, new, "--json").stdout)
    assert found["bytes"]["whole"] == manifests.load(new).size_bytes
    assert found["delta_share"] < 0.2 < 0.8 < found["bytes"]["image layer, gzip"] / found["bytes"]["whole"]
    assert found["files"]["policy.onnx"]["delta"] == 0
    assert found["times_s"]["LTE"]["delta"] == pytest.approx(found["bytes"]["delta"] * 8e-7, abs=0.1)
    made = json.loads(model("delta", old, new, "--out", f"{new}.deltas/", "--json").stdout)
    assert Path(made["delta"]).stat().st_size == made["size_bytes"] == found["bytes"]["delta"]
    model("fetch", old, "--use")
    Serve.sent = 0
    fetched = json.loads(model("fetch", f"http://127.0.0.1:{server}/1.1.0", "--json").stdout)
    assert fetched["delta_from"] == "evergreen-black@1.0.0"
    assert Serve.sent < 0.2 * found["bytes"]["whole"]
    assert Store(tmp_path / "store").verify("evergreen-black@1.1.0")


def test_a_delta_alone_leads_robots_without_its_base_to_the_whole(model, tmp_path: Path, server: int):
    new, old = tuned(tmp_path / "models" / "1.1.0"), "models/evergreen-black"
    alone = tmp_path / "update.delta"
    address = f"http://127.0.0.1:{server}/1.1.0"
    model("delta", old, new, "--out", alone, "--whole", address)
    told = model("fetch", alone, "--store", tmp_path / "another")
    assert "no delta could be used, so files come whole: evergreen-black@1.0.0" in told.stderr
    assert Store(tmp_path / "another").verify("evergreen-black@1.1.0")


def test_wrong_usage_has_its_own_exit_code(model, tmp_path: Path):
    """An address that is none ended as a failed fetch, but a wrong key as wrong usage."""
    assert "none of file:/path" in model("fetch", "ftp://host/x", expect=2).stderr
    assert "must be 64 lower-case hex digits" in model("fetch", "models/expert", "--sha256", "12", expect=2).stderr
    assert "use https" in model("fetch", "http://example.com/x", expect=2).stderr
    assert "does not exist" in model("fetch", "models/nope", expect=1).stderr
    assert "neither a model's folder" in model("diff", "models/expert", "models/nope", expect=2).stderr
    assert (
        "a delta's name ends in"
        in model("delta", "models/expert", "models/expert", "--out", "README.md", expect=2).stderr
    )
    words = ("delta", "models/expert", "models/expert", "--out", tmp_path / "x.delta", "--whole", "ftp://host/x")
    assert "none of file:/path" in model(*words, expect=2).stderr
    assert not (tmp_path / "x.delta").exists()


def test_a_model_without_files_has_no_share(model, tmp_path: Path):
    """Its size was divided by, and a delta said "instead of 0 B (103000.0 %)"."""
    old, new = small(tmp_path / "m"), "models/expert"
    assert re.search(r"^delta +\S+ kB +- ", model("diff", old, new).stdout, re.MULTILINE)
    assert json.loads(model("diff", old, new, "--json").stdout)["delta_share"] is None
    words = ("delta", old, new, "--out", tmp_path / "x.delta")
    told = model(*words).stdout
    assert "is a manifest without files: there is nothing to save" in told
    assert "%" not in told
    assert json.loads(model(*words, "--json").stdout)["share"] is None


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("README.md/x.delta", "nothing can be written to README.md"),
        ("/dev/null", "is a file; a delta's name ends in"),
        ("/proc/x.delta", "nothing can be written to /proc"),
        ("s3://bucket/x.deltas/", "a delta is written on this machine"),
        ("x.txt", "write x.txt/ if you mean a folder"),
        ("docs/x.txt", "write docs/x.txt/ if you mean a folder"),
    ],
)
def test_where_no_delta_can_go_is_said_in_a_line(model, out: str, expected: str):
    told = model("delta", "models/expert", "models/expert", "--out", out, expect=2).stderr
    assert expected in told
    assert told.count("\n") == 1
    assert not any((ROOT / name).exists() for name in ("s3:", "x.txt", "docs/x.txt"))


@pytest.mark.parametrize(
    ("out", "is_folder"),
    [
        ("out/evergreen-black-1.1.0", True), ("out/black-1.1.0.deltas", True), ("x.txt/", True), ("new", True),
        ("x.delta/", True), ("x.delta", False), ("some.folder/x.delta", False),
    ],
)  # fmt: skip
def test_a_name_says_whether_it_is_a_folder_or_a_delta(out: str, is_folder: bool):
    assert Destination.parse(out) == Destination(Path(out), is_folder)


@pytest.mark.parametrize("whole", ["garbage", "./x", "~/x", "https://host/x.delta", "file:x", "s3://b"])
def test_a_whole_that_no_robot_can_find_is_refused(whole: str):
    with pytest.raises(ConfigError):
        check_whole(whole)


@pytest.mark.parametrize("whole", ["https://host/x", "s3://bucket/x", "hf:owner/name@1", "file:/x", "/x"])
def test_a_whole_that_robots_can_find_is_taken(whole: str):
    check_whole(whole)


def test_a_line_has_its_rate(tmp_path: Path, server: int):
    """Or the tests above would test nothing."""
    (tmp_path / "models" / "x").write_bytes(bytes(100_000))
    with slow_line(server, Line(bytes_s=200_000)) as port:
        began = time.monotonic()
        assert len(urllib.request.urlopen(f"http://127.0.0.1:{port}/x").read()) == 100_000
        assert time.monotonic() - began > 0.4
