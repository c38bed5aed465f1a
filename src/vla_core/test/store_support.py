"""Small models with every kind of file, as much alike as a robot's are."""

from __future__ import annotations

import json
import random
from pathlib import Path

from vla_core import manifest as manifests
from vla_core.joints import SO101_JOINTS

WEIGHTS_BYTES = 3000


def write_model(folder: Path, version: str = "1", name: str = "tiny", weights_bytes: int = WEIGHTS_BYTES) -> Path:
    """A model whose weights are made from its version; nothing could run it, but everything can carry it."""
    (folder / "tokens").mkdir(parents=True)
    noise = random.Random(f"{name}@{version}")  # noqa: S311  noise
    (folder / "policy.onnx").write_bytes(b"\x08" + noise.randbytes(weights_bytes))
    header = json.dumps({"w": {"dtype": "U8", "shape": [16], "data_offsets": [0, 16]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + noise.randbytes(16))
    (folder / "config.json").write_text('{"type": "act"}')
    (folder / "README.md").write_text("# Tiny é a model that is none\n", encoding="utf-8")
    (folder / "tokens" / "merges.txt").write_text("a b\n")
    manifests.write(
        folder,
        manifests.Manifest(
            name=name,
            version=version,
            policy_type="act",
            backend="onnx",
            joint_names=SO101_JOINTS,
            files=manifests.list_files(folder),
        ),
    )
    return folder
