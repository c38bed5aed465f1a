"""Fixtures: a tiny model, a folder for sockets, and servers that are gone after the test."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves helpers of tests unimportable

from policy_support import Server, StartServer, write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: a Unix socket's is limited to 107 bytes, and pytest's are long."""
    folder = Path(tempfile.mkdtemp(prefix="eg-"))
    monkeypatch.setenv("EVERGREEN_RUN_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def served(model: Path) -> Iterator[Server]:
    """One server for all tests that only ask it."""
    folder = Path(tempfile.mkdtemp(prefix="eg-"))
    server = Server(f"unix:{folder}/s", "--model", str(model), "--threads", "1").wait_healthy()
    yield server
    assert server.stop() == 0
    shutil.rmtree(folder)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    servers: list[Server] = []

    def start(address: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Server:
        servers.append(Server(address, *arguments, environment=environment))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
