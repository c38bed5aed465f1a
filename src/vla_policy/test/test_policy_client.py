"""The client against real servers that behave badly."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from policy_support import WAIT_S, observation
from websockets.sync.server import ServerConnection, serve

from vla_core import wire
from vla_core.errors import WireError
from vla_policy.serving.address import Address, parse_address
from vla_policy.serving.channel import Late
from vla_policy.serving.client import PolicyClient, is_healthy
from vla_policy.serving.errors import (
    ServerFailedError,
    ServerRefusedError,
    ServerTimeoutError,
    ServerUnavailableError,
)

SHORT_S = 0.2
ANSWER = {"actions": np.arange(12, dtype=np.float32).reshape(2, 6), "server_timing": {"infer_ms": 0.001}}


@contextmanager
def websocket_server(handler: Callable[[ServerConnection], None], **options: object) -> Iterator[Address]:
    scheme = "wss" if "ssl" in options else "ws"
    with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield parse_address(f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}")
        server.shutdown()
        thread.join()


def answering(reply: object) -> Callable[[ServerConnection], None]:
    def handler(connection: ServerConnection) -> None:
        connection.send(wire.pack({"name": "fake"}))
        for _ in connection:
            connection.send(reply if isinstance(reply, str | bytes | list) else wire.pack(reply))

    return handler


def ask(reply: object) -> object:
    with websocket_server(answering(reply)) as address:
        client = PolicyClient(address)
        try:
            return client.infer(observation(), WAIT_S)
        finally:
            client.close()


class TestAnswers:
    def test_are_parsed(self):
        answer = ask(ANSWER | {"stamp_ns": 42})
        np.testing.assert_array_equal(answer.actions, ANSWER["actions"])
        assert answer.actions.dtype == np.float64
        assert answer.stamp_ns == 42
        assert answer.infer_ms == 0.001

    def test_in_fragments(self):
        data = wire.pack(ANSWER)
        answer = ask([data[:10], data[10:50], data[50:]])
        assert answer.actions.shape == (2, 6)

    def test_after_pings(self):
        def handler(connection: ServerConnection) -> None:
            connection.send(wire.pack({}))
            connection.recv()
            assert connection.ping().wait(WAIT_S)
            connection.send(wire.pack(ANSWER))
            connection.recv()

        with websocket_server(handler) as address:
            client = PolicyClient(address)
            assert client.infer(observation(), WAIT_S).stamp_ns is None
            client.close()

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            ({"action": np.zeros((2, 6))}, "'actions' must be an array"),
            ({"actions": [[1, 2]]}, "not list"),
            ({"actions": np.zeros(6)}, r"not float64 \(6,\)"),
            ({"actions": np.array([["a"]])}, "not <U1"),
            (b"\xc1", "malformed"),
            (wire.pack([1]), "sent list where a dictionary is due"),
            (ANSWER | {"stamp_ns": "soon"}, "'stamp_ns' must be nanoseconds since 1970, not 'soon'"),
            (ANSWER | {"stamp_ns": [1]}, r"'stamp_ns' must be .* not \[1\]"),
            (ANSWER | {"stamp_ns": float("nan")}, "'stamp_ns' must be .* not nan"),
            (ANSWER | {"stamp_ns": 2**63}, "'stamp_ns' must be"),
            (ANSWER | {"stamp_ns": -1}, "'stamp_ns' must be"),
        ],
    )
    def test_of_another_form_are_errors(self, reply: object, words: str):
        """A stamp that was no number left `infer` as ValueError, TypeError or OverflowError, which ended the node."""
        with pytest.raises(WireError, match=words):
            ask(reply)

    def test_keep_only_the_timings_that_are_numbers(self):
        """`float("fast")` and `float(None)` left `infer` as ValueError and TypeError, which ended the node."""
        odd = {"infer_ms": 3, "a": "fast", "b": None, "c": [1.0], "d": float("nan"), "e": float("inf"), "f": -1.0}
        assert ask(ANSWER | {"server_timing": odd | {"queue_ms": np.float32(0.5)}}).timing == {
            "infer_ms": 3.0,
            "queue_ms": 0.5,
        }
        assert ask(ANSWER | {"server_timing": "fast"}).timing == {}

    def test_in_text_are_the_server_s_errors(self):
        with pytest.raises(ServerFailedError, match=r"ValueError: no such camera$") as failure:
            ask("Traceback (most recent call last):\n  File …\nValueError: no such camera\n")
        assert failure.value.details.startswith("Traceback")


class TestFailures:
    def test_nobody_there(self, run_folder: Path):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            addresses = [f"tcp:127.0.0.1:{unused.getsockname()[1]}", f"unix:{run_folder}/none"]
            for address in map(parse_address, addresses):
                assert not is_healthy(address, WAIT_S)
                with pytest.raises(ServerUnavailableError, match="cannot be reached"):
                    PolicyClient(address)

    def test_no_answer_to_the_handshake(self):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = parse_address(f"tcp:127.0.0.1:{mute.getsockname()[1]}")
            with pytest.raises(ServerTimeoutError, match="did not answer in time"):
                PolicyClient(address, timeout_s=SHORT_S)

    def test_no_answer_to_an_observation(self):
        release = threading.Event()

        def handler(connection: ServerConnection) -> None:
            connection.send(wire.pack({}))
            release.wait(WAIT_S)

        with websocket_server(handler) as address:
            client = PolicyClient(address)
            with pytest.raises(ServerTimeoutError):
                client.infer(observation(), SHORT_S)
            release.set()
            client.close()

    def test_an_answer_that_is_late_is_told_of_and_still_taken(self):
        """Nobody heard of an answer that was under way until it came or was given up."""
        told = threading.Event()

        def handler(connection: ServerConnection) -> None:
            connection.send(wire.pack({}))
            connection.recv()
            told.wait(WAIT_S)
            connection.send(wire.pack(ANSWER))
            connection.recv()

        with websocket_server(handler) as address:
            client = PolicyClient(address)
            answer = client.infer(observation(), WAIT_S, late=Late(time.monotonic() + 0.01, told.set))
            assert told.is_set()
            assert answer.actions.shape == (2, 6)
            client.close()

    def test_a_connection_that_ends(self):
        def handler(connection: ServerConnection) -> None:
            connection.send(wire.pack({}))
            connection.recv()
            connection.close(1012, "updating")

        with websocket_server(handler) as address:
            client = PolicyClient(address)
            with pytest.raises(ServerUnavailableError, match="closed the connection with code 1012: updating"):
                client.infer(observation(), WAIT_S)
            with pytest.raises(ServerUnavailableError):
                client.infer(observation(), WAIT_S)
            client.close()

    def test_an_abort_from_another_thread(self):
        asked, release = threading.Event(), threading.Event()

        def handler(connection: ServerConnection) -> None:
            connection.send(wire.pack({}))
            connection.recv()
            asked.set()
            release.wait(WAIT_S)

        with websocket_server(handler) as address:
            client = PolicyClient(address)
            threading.Thread(target=lambda: (asked.wait(WAIT_S), client.abort()), daemon=True).start()
            with pytest.raises(ServerUnavailableError):
                client.infer(observation(), WAIT_S)
            release.set()
            client.close()

    def test_another_kind_of_server(self):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = parse_address(f"ws://127.0.0.1:{server.server_port}")
            with pytest.raises(ServerRefusedError, match="HTTP status 404; is it a policy server"):
                PolicyClient(address)
            assert not is_healthy(address, WAIT_S)
            server.shutdown()


class TestTls:
    @staticmethod
    def certificate(folder: Path) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "policy")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .sign(key, hashes.SHA256())
        )
        path = folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def test_only_a_trusted_certificate_will_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        pem = self.certificate(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        with websocket_server(answering(ANSWER), ssl=context) as address:
            with pytest.raises(ServerRefusedError, match="no certificate that this machine trusts"):
                PolicyClient(address)
            monkeypatch.setenv("SSL_CERT_FILE", str(pem))
            client = PolicyClient(address, "key")
            assert client.infer(observation(), WAIT_S).actions.shape == (2, 6)
            client.close()
