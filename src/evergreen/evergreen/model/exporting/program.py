"""Makes the model: folder, manifest, ONNX graph, and the proof that a policy server runs it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evergreen.demo.resources import private_folder, writing
from evergreen.model.exporting import folder as folders
from vla_core import manifest as manifests
from vla_core.checkpoint import Checkpoint, read_json
from vla_core.errors import ModelError
from vla_core.manifest import Manifest
from vla_core.observation import IMAGE_KEY, PROMPT_KEY, STAMP_KEY, STATE_KEY
from vla_core.runtime import run_dir
from vla_policy.serving.address import unix_address
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.supervisor import ServerCommand, ServerProcess

LOAD_TIMEOUT_S = 600.0
"""A model of several gigabytes from a slow disk."""
ANSWER_TIMEOUT_S = 300.0
"""SmolVLA at full size takes 7 s on two cores; pi0 far more."""
ASKED = 3
EXPORTER = "vla_training.export"
ONNX_TYPES = ("act",)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to make.

    Attributes:
        info: the checkpoint.
        fields: of the manifest, but for backend, files and provenance.
        out: where the model goes; None: the checkpoint becomes it.
        onnx: whether to make a graph; None: where the type allows.
        backbones: see `folder.prepare`.
    """

    info: Checkpoint
    fields: Mapping[str, Any]
    out: Path | None
    onnx: bool | None
    backbones: Sequence[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Exported:
    """What came out.

    Attributes:
        folder, manifest: of the model.
        left_out: files of the checkpoint that a model cannot hold.
        parity_rad: greatest difference between the ONNX graph and LeRobot; None without a graph.
        infer_ms: of one answer, as the server says.
    """

    folder: Path
    manifest: Manifest
    left_out: tuple[str, ...]
    parity_rad: float | None
    infer_ms: float

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {
            "label": self.manifest.label,
            "folder": str(self.folder),
            "policy_type": self.manifest.policy_type,
            "backend": self.manifest.backend,
            "chunk_size": self.manifest.chunk_size,
            "n_obs_steps": self.manifest.n_obs_steps,
            "size_bytes": self.manifest.size_bytes,
            "parity_max_abs_error_rad": self.parity_rad,
            "infer_ms": round(self.infer_ms, 2),
            "left_out": list(self.left_out),
        }


def export(order: Order, say: Say) -> Exported:
    """Make the model and prove that it runs; `say` hears of every step.

    Raises:
        EvergreenError: it cannot be made; nothing of what was written stays.
    """
    manifest = Manifest(backend="torch", provenance=_provenance(order.info), **order.fields)
    with writing(order.out or order.info.folder), contextlib.ExitStack() as undo:
        folder, left_out = folders.prepare(order.info, order.out, order.backbones, undo)
        manifest = _write(folder, manifest)
        parity = None
        if order.onnx or (order.onnx is None and order.info.policy_type in ONNX_TYPES):
            say("making the ONNX graph and comparing it with LeRobot")
            parity = make_onnx(folder)
            provenance = {**manifest.provenance, "parity_max_abs_error_rad": parity}
            manifest = _write(folder, replace(manifest, backend="onnx", provenance=provenance))
        say(f"starting a policy server with the {manifest.backend} backend")
        infer_ms = prove(folder, manifest)
        undo.pop_all()
    return Exported(folder, manifest, tuple(left_out), parity, infer_ms)


def _write(folder: Path, manifest: Manifest) -> Manifest:
    whole = replace(manifest, files=manifests.list_files(folder))
    manifests.write(folder, whole)
    return whole


def _provenance(info: Checkpoint) -> dict[str, Any]:
    """Where the model comes from, as far as its folder tells."""
    found: dict[str, Any] = {"checkpoint": info.folder.resolve().name}
    path = info.folder / "train_config.json"
    if path.is_file():
        trained = read_json(path)
        dataset = trained.get("dataset")
        if isinstance(dataset, dict) and isinstance(dataset.get("repo_id"), str):
            found["dataset"] = dataset["repo_id"]
        found |= {key: trained[key] for key in ("seed", "steps") if isinstance(trained.get(key), int)}
    return found


def make_onnx(folder: Path) -> float:
    """Run the exporter in a process of its own, which has torch; returns its greatest error, rad.

    Raises:
        ModelError: it could not; its own words.
    """
    done = subprocess.run(
        [sys.executable, "-m", EXPORTER, str(folder)], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"no ONNX graph: {last.removeprefix('error: ')}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["max_abs_error_rad"])


def prove(folder: Path, manifest: Manifest) -> float:
    """Have a real policy server answer; returns the milliseconds that its last answer took.

    Raises:
        EvergreenError: it does not load or answers nonsense.
    """
    with private_folder(run_dir()) as run:
        server = ServerProcess(ServerCommand(unix_address(run / "export.sock"), folder), lambda _: None)
        try:
            server.wait_ready(LOAD_TIMEOUT_S, threading.Event())
            client = PolicyClient(server.command.address)
            try:
                answers = [client.infer(_blank(manifest), ANSWER_TIMEOUT_S) for _ in range(ASKED)]
            finally:
                client.close()
        finally:
            server.stop()
    for answer in answers:
        if not np.isfinite(answer.actions).all():
            raise ModelError(f"{folder} answers a blank picture with NaN or infinity: its normalisation is broken")
    return answers[-1].infer_ms


def _blank(manifest: Manifest) -> dict[str, Any]:
    """Grey pictures and an arm at zero."""
    pictures = {
        IMAGE_KEY + name: np.full((size.height, size.width, 3), 128, np.uint8)
        for name, size in manifest.cameras.items()
    }
    rest = {
        STATE_KEY: np.zeros(manifest.dof, np.float32), PROMPT_KEY: manifest.prompt, STAMP_KEY: time.time_ns(),
    }  # fmt: skip
    return pictures | rest


def interactive() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and os.environ.get("TERM") != "dumb"
