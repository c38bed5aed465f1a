"""Podman as a factory and as a device use it, a registry between them, and recipes run by their own scripts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import ROOT, pause

CACHE = ROOT / ".cache/containers"
KEEP_VARIABLE = "EVERGREEN_CONTAINERS_KEEP"
"""A folder in which images stay from one run to the next, for work on the images themselves."""
BUILD_S, RUN_S = 1200, 120
NEEDED_BYTES = 6_000_000_000
"""Two storages with the image, its layers and the registry's copy."""


def reason_to_skip() -> str:
    """Why images cannot be built and run here; empty where they can."""
    if not (CACHE / "base.tar").is_file():
        said = CACHE / "unavailable"
        return said.read_text().strip() if said.is_file() else "containers: run `make setup-containers` first"
    missing = [name for name in ("podman", "runc", "docker-registry") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        return f"containers: {', '.join(missing) or 'root'} missing; run `make setup-containers` as root"
    if shutil.disk_usage(CACHE).free < NEEDED_BYTES:
        return f"containers: fewer than {NEEDED_BYTES:,} bytes are free in {CACHE}"
    return ""


def storage_driver(folder: Path) -> str:
    """`overlay` where the kernel lets us, else `vfs`, which copies whole layers."""
    parts = {name: folder / name for name in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir(exist_ok=True)
    options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        return "vfs"
    subprocess.run(["umount", str(parts["merged"])], check=True)
    return "overlay"


def short_folder(folder: Path) -> Path:
    """A run root for the storage in `folder`: Podman takes no path of more than 50 characters."""
    return Path("/run") / f"evergreen-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


class Podman:
    """One machine's images and containers, all below `folder`."""

    def __init__(self, folder: Path, driver: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._run_root = short_folder(folder)
        self.flags = [
            f"--root={folder / 'root'}",
            f"--runroot={self._run_root}",
            f"--storage-driver={driver}",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
        ]

    def __call__(self, *words: object, timeout_s: float = RUN_S) -> str:
        done = subprocess.run(
            ["podman", *self.flags, *map(str, words)], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"podman {' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def build(self, file: Path, tag: str, **arguments: str) -> None:
        """`docker build` with the repository as its context."""
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        how = ["--isolation=chroot", "--network=host", "--format=docker"]
        self("build", *how, *given, "-f", file, "-t", tag, ROOT, timeout_s=BUILD_S)

    def size_bytes(self, image: str) -> int:
        return int(self("image", "inspect", "--format", "{{.Size}}", image))

    def close(self) -> None:
        """Containers end and images go."""
        for words in (
            ["rm", "--all", "--force", "--time", "5"],
            ["volume", "rm", "--all", "--force"],
            ["rmi", "--all", "--force"],
        ):
            subprocess.run(["podman", *self.flags, *words], capture_output=True, timeout=RUN_S, check=False)
        shutil.rmtree(self._run_root, ignore_errors=True)

    def shim(self, folder: Path) -> Path:
        """A `docker` for recipes: what Podman needs more in a machine without systemd is added."""
        folder.mkdir()
        limits = "--no-healthcheck --ulimit nofile=20000:20000 --ulimit nproc=30000:30000"
        lines = [
            "#!/bin/sh",
            f'case $1 in run) shift; set -- run {limits} "$@" ;; esac',
            f'exec podman {" ".join(self.flags)} "$@"',
        ]
        program = folder / "docker"
        program.write_text("\n".join(lines) + "\n")
        program.chmod(0o755)
        return folder


class Registry:
    """Debian's docker-registry on the loopback interface; its log tells what it served."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": 0.1,
            "log": {"formatter": "json", "level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": self.address},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        self._log = folder / "log.jsonl"
        with self._log.open("w") as stream:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(folder / "config.yml")], stdout=stream, stderr=subprocess.STDOUT
            )
        host, port = self.address.split(":")
        for _ in range(600):
            with suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
                return
            assert self._process.poll() is None, self._log.read_text()
            pause()
        raise AssertionError(f"the registry does not answer: {self._log.read_text()}")

    def served_bytes(self) -> int:
        """Bodies of all answers to GET so far."""
        entries = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return sum(
            int(entry.get("http.response.written", 0))
            for entry in entries
            if entry.get("http.request.method") == "GET" and "http.response.status" in entry
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


_VARIABLE = re.compile(r"\{(?:configuration:(?P<pointer>/[\w/.-]+)|(?P<name>[a-z]+:[A-Za-z]+))\}")


def interpolated(text: str, configuration: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Recipe variables replaced as a nucleus does."""

    def value(match: re.Match[str]) -> str:
        if match["pointer"] is None:
            return variables[match["name"]]
        found: Any = configuration
        for key in match["pointer"].strip("/").split("/"):
            found = found[key]
        return found if isinstance(found, str) else json.dumps(found)

    return _VARIABLE.sub(value, text)


class Component:
    """A component as a nucleus runs it: the `run` script of its recipe, in a shell, with its variables."""

    def __init__(self, name: str, folder: Path, docker: Path) -> None:
        self.output = folder / f"{name}.txt"
        self._docker = docker
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, recipe: Mapping[str, Any], configuration: Mapping[str, Any], environment: Mapping[str, str]
    ) -> None:
        """Start the recipe's script; `configuration` is the merged one."""
        step = recipe["Manifests"][0]["Lifecycle"]["run"]
        variables = {"iot:thingName": "arm-7"}
        given = {key: interpolated(text, configuration, variables) for key, text in step.get("Setenv", {}).items()}
        path = f"{self._docker}:{os.environ['PATH']}"
        kept = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        with self.output.open("ab") as stream:
            self._process = subprocess.Popen(
                ["sh", "-c", interpolated(step["Script"], configuration, variables)],
                env={**kept, "PATH": path, "AWS_IOT_THING_NAME": "arm-7", **environment, **given},
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, timeout_s: float = 60.0) -> None:
        """SIGTERM, as systemd and the nucleus do; the container has to end with it."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise


@dataclass(frozen=True)
class Workplace:
    """Where images are made: what was built for one story is not built again for the next."""

    folder: Path
    driver: str
    factory: Podman


@contextmanager
def workplace() -> Iterator[Workplace]:
    """A folder for storages, removed with everything in it; the kept one stays."""
    kept = os.environ.get(KEEP_VARIABLE, "")
    folder = Path(kept or tempfile.mkdtemp(prefix="story-", dir=CACHE))
    (probe := folder / "probe").mkdir(parents=True, exist_ok=True)
    driver = storage_driver(probe)
    factory = Podman(folder / "factory", driver)
    try:
        yield Workplace(folder, driver, factory)
    finally:
        if not kept:
            factory.close()
            shutil.rmtree(folder, ignore_errors=True)
