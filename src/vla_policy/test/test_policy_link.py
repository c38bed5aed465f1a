"""Servers that the policy starts itself: ready, dead, hung, and started again."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from policy_support import WAIT_S, Server, observation, wait_for

from vla_core.errors import ConfigError, ModelError
from vla_policy.serving.address import unix_address
from vla_policy.serving.errors import ServerTimeoutError, ServerUnavailableError
from vla_policy.serving.link import LocalLink, RemoteLink, make_link
from vla_policy.serving.supervisor import ServerCommand, ServerProcess


def link_to(model: Path, log: list[str], server: str = "local", api_key: str = ""):
    return make_link(server, model, threads=1, load_timeout_s=WAIT_S, api_key=api_key, log=log.append)


def never() -> threading.Event:
    return threading.Event()


class TestLocal:
    def test_starts_serves_and_ends(self, model: Path, run_folder: Path):
        log: list[str] = []
        link = link_to(model, log)
        client = link.connect(never())
        assert client.infer(observation(), WAIT_S).actions.shape == (20, 6)
        again = link.connect(never())
        pid = link.pid
        client.close()
        again.close()
        link.close()
        assert not Path(f"/proc/{pid}").exists()
        assert list(run_folder.iterdir()) == []
        assert any("tiny@1 is ready" in line for line in log)

    def test_a_server_that_died_is_started_again(self, model: Path, run_folder: Path):
        log: list[str] = []
        link = link_to(model, log)
        client = link.connect(never())
        first = link.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ServerUnavailableError):
            client.infer(observation(), WAIT_S)
        client.close()
        wait_for("its death", lambda: link.pid is None)
        link.connect(never()).close()
        assert link.pid not in (None, first)
        assert "the policy server was ended by SIGKILL" in log
        link.close()

    def test_a_reset_ends_a_hung_one(self, model: Path, run_folder: Path):
        link = link_to(model, [])
        link.connect(never()).close()
        first = link.pid
        os.kill(first, signal.SIGSTOP)
        link.reset()
        assert not Path(f"/proc/{first}").exists()
        link.connect(never()).close()
        link.close()

    def test_a_model_at_fault_is_told_in_the_server_s_words(self, run_folder: Path):
        link = link_to(Path("/nowhere/model"), [])
        with pytest.raises(ModelError, match=r"^model folder /nowhere/model does not exist"):
            link.connect(never())
        link.close()

    def test_loading_can_be_cancelled(self, model: Path, run_folder: Path):
        cancelled = threading.Event()
        cancelled.set()
        link = link_to(model, [])
        with pytest.raises(ServerUnavailableError, match="cancelled"):
            link.connect(cancelled)
        link.close()

    def test_no_model(self):
        with pytest.raises(ConfigError, match="parameter 'model' is empty"):
            make_link("local", None, threads=1, load_timeout_s=1, api_key="", log=print)

    def test_our_key_does_not_lock_us_out(self, model: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("EVERGREEN_API_KEY", "for the cloud")
        link = link_to(model, [])
        link.connect(never()).close()
        link.close()


class Stubborn(ServerCommand):
    """A program that neither becomes healthy nor hears signals."""

    def arguments(self, parent_pid: int) -> list[str]:
        code = (
            "import signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)];"
            "print('deaf', flush=True); signal.pause()"
        )
        return [sys.executable, "-c", code]


class TestProcess:
    def test_a_deaf_one_is_killed(self, run_folder: Path):
        heard = threading.Event()
        process = ServerProcess(Stubborn(unix_address(run_folder / "s"), Path("m")), lambda line: heard.set())
        assert heard.wait(WAIT_S)
        assert process.stop() == -signal.SIGKILL

    def test_one_that_takes_too_long(self, run_folder: Path):
        process = ServerProcess(Stubborn(unix_address(run_folder / "s"), Path("m")), lambda line: None)
        with pytest.raises(
            ServerTimeoutError, match=r"did not load m within 0\.1 s; raise the parameter load_timeout_s"
        ):
            process.wait_ready(0.1, never())
        process.stop()


class TestRemote:
    def test_connects(self, served: Server):
        link = link_to(Path(), [], str(served.address))
        assert isinstance(link, RemoteLink)
        link.connect(never()).close()
        link.reset()
        link.close()

    def test_a_key_in_the_clear_is_remarked(self):
        log: list[str] = []
        link_to(Path(), log, "ws://robot.local:8000", "secret-4711")
        assert log == ["the API key travels to ws://robot.local:8000 unencrypted: use wss://"]
        log.clear()
        link_to(Path(), log, "wss://robot.local:8000", "secret-4711")
        link_to(Path(), log, "ws://127.0.0.1:8000", "secret-4711")
        assert log == []

    def test_a_local_link_is_made_otherwise(self, model: Path, run_folder: Path):
        assert isinstance(link_to(model, []), LocalLink)
