"""One model under both backends: how long a chunk takes, how long a server needs to its first answer, how large it is.

    python benchmarks/inference.py --model models/evergreen-black --json out/inference.json

Starts a real policy server for each backend that can run the model, one after the other, and asks it over its socket as
the policy node does. `first_answer_s` runs from the start of the process to the first chunk; `infer_ms` is the server's
own account of a chunk, `round_trip_ms` the client's. `first_answer_cpu_s` and `chunk_cpu_ms` are what the server
computed for them, which a busy machine changes little. Both answer the same observations: `apart_rad` is how far they
differ.

Exit code 0 when it could be measured, 2 when not.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from report import machine, publish

from evergreen.demo.resources import private_folder
from vla_core import manifest as manifests
from vla_core.checkpoint import CONFIG_FILE
from vla_core.errors import ConfigError, EvergreenError
from vla_core.latency import summarise
from vla_core.manifest import FileEntry, Manifest
from vla_core.observation import IMAGE_KEY, PROMPT_KEY, STAMP_KEY, STATE_KEY
from vla_core.runtime import run_dir
from vla_policy.serving.address import unix_address
from vla_policy.serving.client import PolicyClient
from vla_policy.serving.supervisor import ServerCommand, ServerProcess

LOAD_TIMEOUT_S = 600.0
ANSWER_TIMEOUT_S = 300.0
WARM_UPS = 5
COMPARED = 8
MEGABYTE = 1e6
MS_PER_S = 1e3
NEEDED = {"onnx": "policy.onnx", "torch": CONFIG_FILE}
"""Backend to the file without which it cannot run a model."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    model: Path
    requests: int
    threads: int
    json: Path | None


@dataclass(frozen=True, slots=True)
class Chosen(ServerCommand):
    """A server whose backend is not the manifest's choice."""

    backend: str = ""

    def arguments(self, parent_pid: int) -> list[str]:
        """The command line."""
        return [*ServerCommand.arguments(self, parent_pid), "--backend", self.backend]


def parse() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("models/evergreen-black"),
        metavar="FOLDER",
        help="a model with its manifest (default: %(default)s)",
    )
    parser.add_argument("--requests", type=int, default=100, help="chunks to time for each backend (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="compute threads (default: as the server chooses)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the result there")
    given = parser.parse_args()
    return Options(given.model, given.requests, given.threads, given.json)


def observation(manifest: Manifest, number: int) -> dict[str, Any]:
    """Random pictures and joints, the same for every backend."""
    rng = np.random.default_rng(number)
    pictures = {
        IMAGE_KEY + name: rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
        for name, size in manifest.cameras.items()
    }
    state = rng.uniform(-1.0, 1.0, manifest.dof).astype(np.float32)
    stamp_ns = round(number * manifest.observation_period_s * 1e9)
    return pictures | {STATE_KEY: state, PROMPT_KEY: manifest.prompt, STAMP_KEY: stamp_ns}


def measure(options: Options, manifest: Manifest, backend: str, folder: Path) -> tuple[dict[str, Any], NDArray[Any]]:
    """One backend's figures and its answers to the observations that are compared."""
    command = Chosen(unix_address(folder / f"{backend}.sock"), options.model, options.threads, backend=backend)
    began = time.monotonic()
    server = ServerProcess(command, lambda _: None)
    try:
        server.wait_ready(LOAD_TIMEOUT_S, threading.Event())
        client = PolicyClient(server.command.address)
        client.infer(observation(manifest, 0), ANSWER_TIMEOUT_S)
        first_s = time.monotonic() - began
        process = psutil.Process(server.pid)
        start_cpu_s = cpu_s(process)
        for number in range(WARM_UPS):
            client.infer(observation(manifest, number), ANSWER_TIMEOUT_S)
        before_s = cpu_s(process)
        timed = [client.infer(observation(manifest, number), ANSWER_TIMEOUT_S) for number in range(options.requests)]
        chunk_cpu_s = (cpu_s(process) - before_s) / options.requests
        compared = [client.infer(observation(manifest, number), ANSWER_TIMEOUT_S).actions for number in range(COMPARED)]
        resident = process.memory_info().rss
        client.close()
    finally:
        server.stop()
    figures = {
        "first_answer_s": round(first_s, 2),
        "first_answer_cpu_s": round(start_cpu_s, 2),
        "chunk_cpu_ms": round(chunk_cpu_s * MS_PER_S, 1),
        "infer_ms": summarise(answer.infer_ms for answer in timed).as_dict(),
        "round_trip_ms": summarise(answer.round_trip_ms for answer in timed).as_dict(),
        "resident_mb": round(resident / MEGABYTE, 1),
    }
    return figures, np.stack(compared)


def cpu_s(process: psutil.Process) -> float:
    """What a process has computed so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def run(options: Options) -> dict[str, Any]:
    """Every backend that has what it needs.

    Raises:
        EvergreenError: the model cannot be served.
    """
    manifest = manifests.load(options.model)
    backends = [backend for backend, name in NEEDED.items() if name in manifest.files]
    if not backends:
        raise ConfigError(f"{options.model} holds neither {' nor '.join(NEEDED.values())}; there is nothing to measure")
    result: dict[str, Any] = machine() | {"model": manifest.label, "policy_type": manifest.policy_type}
    result["files_mb"] = {
        name: round(entry.size / MEGABYTE, 1) for name, entry in manifest.files.items() if is_large(entry)
    }
    answers: dict[str, NDArray[Any]] = {}
    with private_folder(run_dir()) as folder:
        for backend in backends:
            result[backend], answers[backend] = measure(options, manifest, backend, folder)
    if len(answers) > 1:
        result["apart_rad"] = apart(answers)
    return result


def is_large(entry: FileEntry) -> bool:
    """Whether a file says something about the model's size."""
    return entry.size >= MEGABYTE / 10


def apart(answers: Mapping[str, NDArray[Any]]) -> float:
    """Greatest difference between two backends' answers, rad."""
    first, second = answers.values()
    return float(np.abs(first - second).max())


def main() -> int:
    """Measure and publish."""
    options = parse()
    try:
        result = run(options)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    publish(result, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
