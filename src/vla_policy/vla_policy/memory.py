"""Whether there is memory for one more model, before it is loaded: the kernel's way of saying no ends processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vla_core.manifest import Manifest

BASE_BYTES = 200 << 20
"""An interpreter with ONNX Runtime and one small model: 120 to 160 MB, and some to spare."""
WEIGHTS_FACTOR = 1.5
"""Weights are read into memory once, and copied in part while the graph is optimised."""
WEIGHTS = (".onnx", ".safetensors")
MIB = 1 << 20


def needed_bytes(manifest: Manifest) -> int:
    """What a server of this model takes, estimated from the larger of its exports: only one of them is loaded."""
    sizes: Counter[str] = Counter()
    for name, entry in manifest.files.items():
        sizes[PurePosixPath(name).suffix] += entry.size
    return BASE_BYTES + round(WEIGHTS_FACTOR * max(sizes[suffix] for suffix in WEIGHTS))


def available_bytes(meminfo: str, cgroup: Mapping[str, str]) -> int | None:
    """What may still be taken.

    Args:
        meminfo: text of /proc/meminfo.
        cgroup: texts of the cgroup's `memory.max`, `memory.current` and `memory.stat`, where there are any.

    Returns:
        Bytes; None where the kernel does not say.
    """
    free = [int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable:")]
    limit, used = cgroup.get("memory.max", "").strip(), cgroup.get("memory.current", "").strip()
    if limit.isdigit() and used.isdigit():
        cached = [
            int(line.split()[1])
            for line in cgroup.get("memory.stat", "").splitlines()
            if line.startswith("inactive_file ")
        ]
        free.append(int(limit) - int(used) + sum(cached))
    return min(free, default=None)


def read_available_bytes() -> int | None:
    """`available_bytes` of this machine, and of the container that this process is in."""
    texts = {}
    for name in ("memory.max", "memory.current", "memory.stat"):
        texts[name] = _read(Path("/sys/fs/cgroup") / name)
    return available_bytes(_read(Path("/proc/meminfo")), texts)


def objection(manifest: Manifest, available: int | None, freed: int = 0) -> str:
    """Why the model had better not be loaded; empty where it may. `freed` is what another server will give back."""
    needed = needed_bytes(manifest)
    if available is None or needed <= available + freed:
        return ""
    return (
        f"model {manifest.label} needs about {needed // MIB} MiB of memory and "
        f"{(available + freed) // MIB} MiB are free; "
        + (
            "choose a smaller one"
            if freed
            else "ask with swap restart, which ends the old model first, or choose a smaller one"
        )
    )


def resident_bytes(pid: int | None) -> int:
    """What a process has in memory for itself; 0 where there is none."""
    text = _read(Path(f"/proc/{pid}/status")) if pid is not None else ""
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("RssAnon:"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
