"""The policy server as a process, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np
import pytest
from policy_support import HEIGHT, HORIZON, STEP_RAD, WAIT_S, WIDTH, Server, StartServer, observation, wait_for
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect, unix_connect

from vla_core.joints import SO101_JOINTS
from vla_policy.serving import service
from vla_policy.serving.address import parse_address
from vla_policy.serving.client import PolicyClient, is_healthy
from vla_policy.serving.errors import ServerFailedError, ServerRefusedError
from vla_policy.serving.service import PolicyService


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestAnswers:
    def test_an_observation_gives_a_chunk(self, served: Server):
        client = PolicyClient(served.address)
        answer = client.infer(observation(brightness=100, state=0.5), WAIT_S)
        expected = 0.5 + 0.1 + STEP_RAD * np.arange(HORIZON)[:, None] * np.ones(6)
        np.testing.assert_allclose(answer.actions, expected, atol=1e-6)
        assert {"infer_ms", "queue_ms", "unpack_ms"} <= set(answer.timing)
        assert 0 < answer.infer_ms < answer.round_trip_ms
        assert "prev_total_ms" in client.infer(observation(), WAIT_S).timing
        client.close()

    def test_metadata_say_what_is_wanted_under_which_key(self, served: Server):
        about = PolicyClient(served.address).metadata
        assert (about["name"], about["version"], about["rate_hz"]) == ("tiny", "1", 10.0)
        assert about["joint_names"] == list(SO101_JOINTS)
        assert about["observation"]["observation.images.front"]["shape"] == [HEIGHT, WIDTH, 3]
        assert about["observation"]["observation.state"] == {"shape": [6], "dtype": "float32", "unit": "rad"}
        assert about["answer"]["actions"]["shape"] == [HORIZON, 6]

    def test_a_bad_observation_gets_a_traceback_and_code_1011(self, served: Server):
        with pytest.raises(ServerFailedError, match=r"lacks the array 'observation\.state'") as failure:
            PolicyClient(served.address).infer({"prompt": ""} | _image_only(), WAIT_S)
        assert failure.value.details.startswith("Traceback")
        with unix_connect(str(served.address.socket_path), compression=None) as raw:
            raw.recv(WAIT_S)
            raw.send("text")
            assert isinstance(raw.recv(WAIT_S), str)
            with pytest.raises(ConnectionClosedError) as closed:
                raw.recv(WAIT_S)
            assert closed.value.rcvd.code == 1011
        assert PolicyClient(served.address).infer(observation(), WAIT_S).actions.shape == (HORIZON, 6)

    @pytest.mark.parametrize(
        ("broken", "words"),
        [
            ({"observation.state": np.zeros(5, np.float32)}, r"\(5,\)"),
            ({"observation.images.front": np.zeros((HEIGHT, WIDTH), np.uint8)}, "this model wants uint8"),
            ({"observation.images.front": np.zeros((HEIGHT, WIDTH, 3), np.float32)}, "this model wants uint8"),
        ],
    )
    def test_wrong_shapes_are_named(self, served: Server, broken: dict[str, object], words: str):
        with pytest.raises(ServerFailedError, match=words):
            PolicyClient(served.address).infer(observation() | broken, WAIT_S)


def _image_only() -> dict[str, object]:
    return {key: value for key, value in observation().items() if "images" in key}


class TestOpenpiClient:
    """openpi's own client, by its bytes: msgpack with numpy arrays packed by its published rule."""

    @staticmethod
    def pack(value: object) -> object:
        if isinstance(value, np.ndarray):
            return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return value

    @staticmethod
    def unpack(value: dict) -> object:
        if b"__ndarray__" in value:
            return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])
        return value

    def test_health_and_inference_over_tcp(self, model: Path, start_server: StartServer):
        port = free_port()
        start_server(f"tcp:127.0.0.1:{port}", "--model", str(model)).wait_healthy()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S) as response:
            assert (response.status, response.read()) == (200, b"OK\n")
        with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as raw:
            about = msgpack.unpackb(raw.recv(WAIT_S), object_hook=self.unpack)
            assert about["name"] == "tiny"
            raw.send(msgpack.packb(observation(), default=self.pack))
            answer = msgpack.unpackb(raw.recv(WAIT_S), object_hook=self.unpack)
        assert answer["actions"].shape == (HORIZON, 6)
        assert answer["actions"].dtype == np.float32
        assert answer["server_timing"]["infer_ms"] > 0


class TestKey:
    KEY = "open-sesame-4711"

    def test_a_client_without_it_is_turned_away(self, model: Path, start_server: StartServer):
        port = free_port()
        server = start_server(
            f"tcp:127.0.0.1:{port}", "--model", str(model), environment={"EVERGREEN_API_KEY": self.KEY}
        ).wait_healthy()
        for key in ("", "wrong"):
            with pytest.raises(ServerRefusedError, match="401; check the API key"):
                PolicyClient(server.address, key)
        with pytest.raises(InvalidStatus) as refusal, connect(f"ws://127.0.0.1:{port}"):
            pass
        assert refusal.value.response.headers["WWW-Authenticate"] == "Api-Key"
        assert PolicyClient(server.address, self.KEY).infer(observation(), WAIT_S).actions.shape == (HORIZON, 6)
        server.stop()
        assert self.KEY not in server.text

    def test_from_a_file(self, model: Path, run_folder: Path, start_server: StartServer):
        (run_folder / "key").write_text(f"{self.KEY}\n")
        server = start_server(
            f"unix:{run_folder}/s", "--model", str(model), "--api-key-file", str(run_folder / "key")
        ).wait_healthy()
        with pytest.raises(ServerRefusedError):
            PolicyClient(server.address)
        assert PolicyClient(server.address, self.KEY).metadata["name"] == "tiny"

    def test_the_network_is_not_served_without_one(self, model: Path, start_server: StartServer):
        server = start_server("tcp:0.0.0.0:0", "--model", str(model), environment={"EVERGREEN_API_KEY": ""})
        assert server.wait() == 2
        assert "set EVERGREEN_API_KEY or --api-key-file" in server.text


class TestAddressInUse:
    def test_of_a_living_server(self, model: Path, run_folder: Path, start_server: StartServer):
        port = free_port()
        for address, words in (
            (f"unix:{run_folder}/s", "a living server has this socket"),
            (f"tcp:127.0.0.1:{port}", f"port {port} is in use"),
        ):
            first = start_server(address, "--model", str(model)).wait_healthy()
            second = start_server(address, "--model", str(model))
            assert second.wait() == 2
            assert words in second.text
            assert second.text.count("\n") == 1
            assert is_healthy(first.address, WAIT_S)

    def test_of_a_dead_server_is_taken_over(self, model: Path, run_folder: Path, start_server: StartServer):
        first = start_server(f"unix:{run_folder}/s", "--model", str(model)).wait_healthy()
        first.process.kill()
        first.wait()
        assert (run_folder / "s").is_socket()
        start_server(f"unix:{run_folder}/s", "--model", str(model)).wait_healthy()

    def test_by_an_ordinary_file(self, model: Path, run_folder: Path, start_server: StartServer):
        (run_folder / "s").write_text("precious")
        server = start_server(f"unix:{run_folder}/s", "--model", str(model))
        assert server.wait() == 2
        assert (run_folder / "s").read_text() == "precious"

    def test_the_socket_is_its_user_s_alone(self, model: Path, run_folder: Path, start_server: StartServer):
        start_server(f"unix:{run_folder}/s", "--model", str(model)).wait_healthy()
        assert (run_folder / "s").stat().st_mode & 0o077 == 0


class TestLife:
    def test_ends_with_its_parent(self, model: Path, run_folder: Path):
        """A killed parent cannot tidy up: its server must notice by itself."""
        code = (
            "import subprocess, sys, os\n"
            "server = subprocess.Popen([sys.executable, '-m', 'vla_policy.serving.server', *sys.argv[1:],"
            " '--parent-pid', str(os.getpid())], start_new_session=True)\n"
            "print(server.pid, flush=True)\n"
            "server.wait()\n"
        )
        arguments = ["--listen", f"unix:{run_folder}/s", "--model", str(model)]
        with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as parent:
            server = os.pidfd_open(int(parent.stdout.readline()))
            parent.send_signal(signal.SIGKILL)
            gone = threading.Event()
            threading.Thread(target=lambda: (_wait_pidfd(server), gone.set()), daemon=True).start()
            assert gone.wait(WAIT_S)

    def test_a_parent_that_is_gone_already(self, model: Path, run_folder: Path, start_server: StartServer):
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            child.wait()
        server = start_server(f"unix:{run_folder}/s", "--model", str(model), "--parent-pid", str(child.pid))
        assert server.wait() == 3

    def test_niceness(self, model: Path, run_folder: Path, start_server: StartServer):
        server = start_server(f"unix:{run_folder}/s", "--model", str(model), "--nice", "5").wait_healthy()
        assert os.getpriority(os.PRIO_PROCESS, server.process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5

    def test_both_signals_end_it_well(self, model: Path, run_folder: Path, start_server: StartServer):
        for number in (signal.SIGINT, signal.SIGTERM):
            server = start_server(f"unix:{run_folder}/{number}", "--model", str(model)).wait_healthy()
            client = PolicyClient(server.address)
            server.process.send_signal(number)
            assert server.wait() == 0
            assert not server.address.socket_path.exists()
            client.close()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--model", "/nowhere/model"], "model folder /nowhere/model does not exist"),
            (["--backend", "tensorflow"], "backend 'tensorflow' is not installed; this server has expert, onnx"),
            (["--backend", "onnx"], "needs a model folder"),
            ([], "give --model FOLDER or --backend NAME"),
        ],
    )
    def test_a_model_at_fault_is_one_line_and_exit_code_2(
        self, run_folder: Path, start_server: StartServer, arguments: list[str], words: str
    ):
        server = start_server(f"unix:{run_folder}/s", *arguments)
        assert server.wait() == 2
        assert words in server.text
        assert server.text.startswith("error: ")
        assert server.text.count("\n") == 1


def _wait_pidfd(pidfd: int) -> None:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.poll()


class SlowBackend:
    def metadata(self):
        return {"name": "slow"}

    def open_session(self):
        return self

    def infer(self, observation):
        return {"actions": np.zeros((2, 6), np.float32), "stamp_ns": 42}


def test_health_is_503_and_clients_wait_while_the_model_loads(tmp_path: Path):
    port = free_port()
    loading: Future = Future()

    def get() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def act() -> None:
        assert get() == (503, b"loading\n")
        with connect(f"ws://127.0.0.1:{port}", compression=None) as early:
            assert get() == (503, b"loading\n")
            loading.set_result(SlowBackend())
            assert msgpack.unpackb(early.recv(WAIT_S)) == {"name": "slow"}
        assert get() == (200, b"OK\n")

    async def main() -> None:
        stop = asyncio.Event()
        with socket.create_server(("127.0.0.1", port)) as listener, ThreadPoolExecutor(1) as worker:
            serving = asyncio.create_task(PolicyService(loading, worker).run(listener, stop))
            await asyncio.to_thread(act)
            stop.set()
            await serving

    asyncio.run(main())


def test_stopping_while_the_model_loads_lets_waiting_clients_go():
    port = free_port()
    loading: Future = Future()

    async def main() -> None:
        stop = asyncio.Event()
        with socket.create_server(("127.0.0.1", port)) as listener, ThreadPoolExecutor(1) as worker:
            serving = asyncio.create_task(PolicyService(loading, worker).run(listener, stop))
            client = await asyncio.to_thread(connect, f"ws://127.0.0.1:{port}", legacy=True)
            stop.set()
            await asyncio.wait_for(serving, WAIT_S)
            await asyncio.to_thread(client.close)

    asyncio.run(main())


def test_a_client_that_reads_nothing_for_long_keeps_its_session(monkeypatch: pytest.MonkeyPatch):
    """The session of the former model, kept in reserve while its successor is on probation, was ended by the server
    after 40 s without an answer to its pings: going back then cost a hold."""
    port = free_port()
    loading: Future = Future()
    loading.set_result(SlowBackend())
    hasty = functools.partial(service.serve, ping_interval=0.05, ping_timeout=0.05)
    monkeypatch.setattr(service, "serve", hasty)

    def act() -> None:
        client = PolicyClient(parse_address(f"ws://127.0.0.1:{port}"))
        threading.Event().wait(0.5)  # ten times what was allowed
        assert client.infer({}, WAIT_S).stamp_ns == 42
        client.close()

    async def main() -> None:
        stop = asyncio.Event()
        with socket.create_server(("127.0.0.1", port)) as listener, ThreadPoolExecutor(1) as worker:
            serving = asyncio.create_task(PolicyService(loading, worker).run(listener, stop))
            await asyncio.to_thread(act)
            stop.set()
            await serving

    asyncio.run(main())


def test_wait_for_says_what_it_waited_for():
    with pytest.raises(AssertionError, match="ended while waiting for spring"):
        wait_for("spring", lambda: False, lambda: False)
