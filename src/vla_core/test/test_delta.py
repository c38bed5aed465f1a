"""Deltas between models: every kind of difference, hostile files, and memory that does not grow with the model."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_support import write_model

from vla_core import manifest as manifests
from vla_core import safetensors, signing
from vla_core.contents import check_content
from vla_core.delta import build as building
from vla_core.delta import codecs, floats, header, layout
from vla_core.delta.build import build
from vla_core.delta.rebuild import is_whole, read_header, rebuild
from vla_core.errors import DeltaError, ManifestError

MIB = 1 << 20
BOUND_MIB = 64
"""Of memory for building or rebuilding, beside the interpreter with numpy; docs/deltas.md states it."""


def tensors(path: Path, named: dict[str, tuple[str, bytes]], **metadata: str) -> None:
    """A safetensors file of one-dimensional tensors."""
    sizes = {"F16": 2, "BF16": 2, "F32": 4, "U8": 1, "I64": 8}
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, (dtype, content) in named.items():
        shape = [len(content) // sizes[dtype]]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content for _, content in named.values()))


def packed(folder: Path, version: str) -> Path:
    manifest = manifests.load(folder)
    manifests.write(folder, replace(manifest, version=version, files=manifests.list_files(folder)))
    return folder


def rebuilt(delta: Path, old: Path, name: str) -> bytes:
    blocks: list[bytes] = []
    rebuild(delta, old, name, blocks.append)
    return b"".join(blocks)


def assert_leads_there(old: Path, new: Path, delta: Path) -> int:
    built = build(old, new, delta)
    assert delta.stat().st_size == built.size == build(old, new, None).size
    assert is_whole(delta)
    for name in read_header(delta).files:
        assert rebuilt(delta, old, name) == (new / name).read_bytes()
    return built.size


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    old = write_model(tmp_path / "old", "1", weights_bytes=300_000)
    new = tmp_path / "new"
    shutil.copytree(old, new)
    return old, new


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(floats.FORMATS))
@given(data=st.data())
def test_any_bits_come_back(dtype: str, data: st.DataObject):
    """Infinities, NaN, both zeros and subnormal numbers too: bits are compared, not values."""
    form = floats.FORMATS[dtype]
    count = data.draw(st.integers(0, 40))
    new, base = (data.draw(st.binary(min_size=count * form.size, max_size=count * form.size)) for _ in range(2))
    assert floats.add(floats.subtract(new, base, form), base, form) == new


def test_neighbouring_numbers_differ_by_little_though_their_bits_do_not():
    one = np.array([1.0, -1.0, 0.0, 2.0**-14], np.float16)
    next_ = np.nextafter(one, np.float16(np.inf))
    planes = floats.subtract(next_.tobytes(), one.tobytes(), floats.FORMATS["F16"])
    assert set(planes[4:]) == {0}  # the high bytes
    assert max(planes[:4]) <= 4


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_fine_tune_of_all_weights_shrinks_and_unchanged_tensors_cost_nothing(pair: tuple[Path, Path], tmp_path: Path):
    old, new = pair
    rng = np.random.default_rng(1)
    weights = {dtype: rng.normal(0, 0.02, 800_000) for dtype in ("F16", "F32")}
    frozen = ("F16", rng.bytes(3 * MIB))
    stored = {"F16": np.float16, "F32": np.float32}
    for folder, moved in ((old, 0.0), (new, 1e-5)):
        named = {
            name: (name, (value + rng.normal(0, moved or 1e-30, value.size)).astype(stored[name]).tobytes())
            for name, value in weights.items()
        }
        tensors(folder / "model.safetensors", {"backbone": frozen, **named})
        packed(folder, "1" if folder is old else "2")
    size = assert_leads_there(old, new, tmp_path / "x.delta")
    float16, float32 = 1.6e6 * 0.25, 3.2e6 * 0.75
    assert size < float16 + float32
    plan = read_header(tmp_path / "x.delta").files["model.safetensors"]
    copied = sum(block.length for block in plan.blocks if block.code is codecs.Code.COPY)
    assert copied >= 3 * MIB


def test_tensors_may_come_go_grow_change_type_and_move(pair: tuple[Path, Path], tmp_path: Path):
    old, new = pair
    noise = random.Random(2)  # noqa: S311  noise
    same, grown, gone = (noise.randbytes(size) for size in (MIB + 6, 40_000, 3000))
    tensors(old / "model.safetensors", {"gone": ("U8", gone), "same": ("F16", same), "grown": ("F32", grown)})
    tensors(
        new / "model.safetensors",
        {
            "grown": ("F32", grown + bytes(400)),
            "same": ("F16", same),
            "typed": ("I64", gone[:800]),
            "none": ("F16", b""),
        },
        format="pt",
    )
    packed(old, "1")
    packed(new, "2")
    size = assert_leads_there(old, new, tmp_path / "x.delta")
    assert size < 60_000


def test_bytes_are_found_again_though_they_moved(pair: tuple[Path, Path], tmp_path: Path):
    old, new = pair
    content = (old / "policy.onnx").read_bytes()
    (new / "policy.onnx").write_bytes(content[:1000] + b"inserted" + content[1000:])
    packed(new, "2")
    assert assert_leads_there(old, new, tmp_path / "x.delta") < 10_000


def test_only_what_changed_is_in_it(pair: tuple[Path, Path], tmp_path: Path):
    """A file that moved to another name is not in it either; a new one is, compressed."""
    old, new = pair
    (new / "README.md").rename(new / "ABOUT.md")
    (new / "tokens" / "more.txt").write_text("token\n" * 10_000)
    (new / "empty.txt").write_bytes(b"")
    packed(new, "2")
    size = assert_leads_there(old, new, tmp_path / "x.delta")
    assert set(read_header(tmp_path / "x.delta").files) == {"tokens/more.txt", "empty.txt"}
    assert size < 4000


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4000]}}',
        json.dumps(
            {name: {"dtype": "U8", "shape": [4], "data_offsets": [at, at + 4]} for name, at in (("a", 0), ("b", 2))}
        ),
        '{"a": 1}',
    ],
)
def test_a_malformed_safetensors_file_is_bytes_like_any_others(pair: tuple[Path, Path], tmp_path: Path, text: str):
    old, new = pair
    (new / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(6))
    packed(new, "2")
    assert len(layout.regions(new / "model.safetensors", old / "model.safetensors")) == 1
    assert_leads_there(old, new, tmp_path / "x.delta")


def test_another_base_is_noticed(pair: tuple[Path, Path], tmp_path: Path):
    old, new = pair
    content = bytearray((new / "policy.onnx").read_bytes())
    content[5000] ^= 1
    (new / "policy.onnx").write_bytes(content)
    packed(new, "2")
    build(old, new, tmp_path / "x.delta")
    wrong = bytearray((old / "policy.onnx").read_bytes())
    wrong[7] ^= 1
    (old / "policy.onnx").write_bytes(wrong)
    with pytest.raises(DeltaError, match=r"came out otherwise than its manifest says|damaged"):
        rebuilt(tmp_path / "x.delta", old, "policy.onnx")
    (old / "policy.onnx").write_bytes(wrong[:100])
    with pytest.raises(DeltaError, match="shorter than the delta says"):
        rebuilt(tmp_path / "x.delta", old, "policy.onnx")
    (old / "policy.onnx").unlink()
    with pytest.raises(DeltaError, match=r"has no policy\.onnx"):
        rebuilt(tmp_path / "x.delta", old, "policy.onnx")


def test_a_base_that_cannot_be_read_is_none(pair: tuple[Path, Path], tmp_path: Path):
    """A bad sector ended the fetch with an OSError, so that the next one tried the same delta, for ever."""
    old, new = pair
    (new / "policy.onnx").write_bytes((new / "policy.onnx").read_bytes() + b"more")
    packed(new, "2")
    build(old, new, tmp_path / "x.delta")
    (old / "policy.onnx").rename(tmp_path / "aside")
    (old / "policy.onnx").symlink_to("/proc/self/mem")  # opens, and reading its beginning fails with EIO
    with pytest.raises(DeltaError, match=r"policy\.onnx cannot be read: Input/output error"):
        rebuilt(tmp_path / "x.delta", old, "policy.onnx")
    (old / "policy.onnx").unlink()
    (old / "policy.onnx").mkdir()
    with pytest.raises(DeltaError, match=r"policy\.onnx cannot be opened: Is a directory"):
        rebuilt(tmp_path / "x.delta", old, "policy.onnx")


def test_a_full_disk_is_no_fault_of_the_delta(delta: Path, pair: tuple[Path, Path]):
    def write(_content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        rebuild(delta, pair[0], "config.json", write)


def test_a_header_of_a_safetensors_file_may_not_fill_a_robots_memory(tmp_path: Path):
    """100 MB were taken, of which Python's JSON makes 1 GB."""
    path = tmp_path / "model.safetensors"
    length = safetensors.MAX_HEADER_BYTES + 1
    with path.open("wb") as out:
        out.write(length.to_bytes(8, "little"))
        out.truncate(8 + length)
    with pytest.raises(ManifestError, match="its header has 8388609 bytes, more than 8388608"):
        check_content(path)


# --- hostile deltas --------------------------------------------------------------------------------------------------


@pytest.fixture
def delta(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    old, new = pair
    (new / "config.json").write_text('{"type": "act", "dim": 3}')
    packed(new, "2")
    build(old, new, tmp_path / "x.delta")
    return tmp_path / "x.delta"


def with_header(delta: Path, change: dict[str, object]) -> None:
    content = delta.read_bytes()
    length = int.from_bytes(content[8:12], "little")
    document = json.loads(content[12 : 12 + length])
    document |= change
    text = json.dumps(document).encode()
    delta.write_bytes(content[:8] + len(text).to_bytes(4, "little") + text + content[12 + length :])


def blocks_of(*blocks: list[object], base: str = "config.json") -> dict[str, object]:
    return {"files": {"config.json": {"base": base, "blocks": list(blocks)}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "this release reads 1"),
        ({"manifest": "{}"}, "manifest"),
        ({"base": {"label": "x", "body": "no digest"}}, "64 hex digits"),
        ({"whole": "a\nb"}, "'whole'"),
        ({"payload": {"size": 10**9, "sha256": "0" * 64}}, "differ in length"),
        ({"files": {"absent.json": {"base": "", "blocks": []}}}, "not the file that the manifest lists"),
        (blocks_of(["zstd", 24, 0, 0, 5]), "not the file that the manifest lists"),
        (blocks_of(["zstd", 25, 0, 0, 33], base="../../etc/passwd.txt"), "outside the model's folder"),
        (blocks_of(["copy", 25, 0, 25, 0], base=""), "not named"),
        (blocks_of(["copy", 25, 0, 24, 0]), "length of what it copies"),
        (blocks_of(["run", 25, 0, 0, 0]), "malformed"),
        (blocks_of(["zstd", -25, 0, 0, 0]), "no whole number"),
        (blocks_of(["zstd", 25.0, 0, 0, 0]), "no whole number"),
        (blocks_of(["patch", 25, 0, 10**9, 9]), "is longer than"),
        (blocks_of(["zstd", 25, 0, 0]), "malformed"),
        ({"files": []}, "malformed"),
    ],
)
def test_a_header_that_asks_for_what_may_not_be_is_refused(delta: Path, change: dict[str, object], message: str):
    with_header(delta, change)
    with pytest.raises(DeltaError, match=message):
        read_header(delta)


def test_a_payload_that_claims_to_be_longer_is_not_believed():
    """A frame's own size is what the library would allocate, whatever limit it is given."""
    bomb = codecs.Encoder().encode(bytes(64 * MIB), b"", "")[1]
    with pytest.raises(DeltaError, match="does not hold the 100 bytes"):
        codecs.decode(codecs.Code.ZSTD, bomb, b"", 100)
    with pytest.raises(DeltaError, match="damaged"):
        codecs.decode(codecs.Code.ZSTD, b"nothing of the kind", b"", 100)
    with pytest.raises(DeltaError, match="cannot be made from"):
        codecs.decode(codecs.Code.F16, bomb, b"123", 100)


def test_what_is_cut_short_or_altered_is_noticed(delta: Path, pair: tuple[Path, Path]):
    whole = delta.read_bytes()
    for content in (whole[:5], whole[:40], b"PK" + whole, whole[:8] + b"\xff" * 4 + whole[12:]):
        delta.write_bytes(content)
        with pytest.raises(DeltaError):
            read_header(delta)
    for content in (whole[:-1], whole + b"x", whole[:-1] + bytes([whole[-1] ^ 1])):
        delta.write_bytes(content)
        assert not is_whole(delta)
    delta.write_bytes(whole[:-1])
    with pytest.raises(DeltaError, match="cut short"):
        rebuilt(delta, pair[0], "config.json")


def test_a_delta_names_its_base_by_what_a_signature_covers(delta: Path, pair: tuple[Path, Path]):
    """A base that was signed later is the same base."""
    old, new = pair
    text = (old / manifests.FILE_NAME).read_text()
    assert read_header(delta).base_body == signing.body_digest(text)
    assert read_header(delta).text == (new / manifests.FILE_NAME).read_text()


# --- memory ----------------------------------------------------------------------------------------------------------

IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy
from vla_core.delta.build import build
from vla_core.delta.rebuild import is_whole, rebuild
old, new, delta, bound = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
now = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (now + bound, now + bound))
try:
    bytearray(bound + (1 << 20))
except MemoryError:
    pass
else:
    sys.exit("the limit does not hold")
build(old, new, delta)
assert is_whole(delta)
with open(new / "again", "wb") as out:
    rebuild(delta, old, "model.safetensors", out.write)
"""


def test_memory_does_not_grow_with_the_model(pair: tuple[Path, Path], tmp_path: Path):
    """A file three times as large as the memory that the process may have: a frozen part, weights that moved, bytes."""
    old, new = pair
    rng = np.random.default_rng(3)
    head, noise = rng.normal(0, 0.02, 2 * MIB), rng.bytes(6 * MIB)
    frozen = 3 * BOUND_MIB * MIB
    for folder, moved in ((old, 0.0), (new, 1e-4)):
        weights = (head * (1 + moved)).astype(np.float16).tobytes()
        entries = {
            "head": {"dtype": "F16", "shape": [head.size], "data_offsets": [0, len(weights)]},
            "backbone": {"dtype": "U8", "shape": [frozen], "data_offsets": [len(weights), len(weights) + frozen]},
        }
        text = json.dumps(entries).encode()
        with (folder / "model.safetensors").open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text + weights)
            out.truncate(8 + len(text) + len(weights) + frozen)  # zeros that take no room
        (folder / "policy.onnx").write_bytes(b"\x08" + rng.bytes(100) + noise)
        packed(folder, "1" if folder is old else "2")
    words = [sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, (old, new, tmp_path / "x.delta", BOUND_MIB * MIB))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert manifests.sha256_file(new / "again") == manifests.load(new).files["model.safetensors"].sha256
    assert (tmp_path / "x.delta").stat().st_size < 4 * MIB


def test_the_header_of_a_delta_of_15_gb_is_small_enough():
    block = header.Block(codecs.Code.F16, MIB, 15_000 * MIB, MIB, 700_000)
    entry = manifests.FileEntry(15_000 * MIB, "0" * 64)
    manifest = replace(manifests.Manifest("big", "1", "pi0", "torch", ("a",)), files={"model.safetensors": entry})
    plan = header.FilePlan("model.safetensors", (block,) * 15_000)
    whole = header.Header(
        "big@0", "0" * 64, manifest, manifest.to_json(), {"model.safetensors": plan}, 15_000 * 700_000, "0" * 64
    )
    assert len(whole.to_json()) < header.MAX_HEADER_BYTES / 4
    assert building.changed(manifest, manifest) == []
