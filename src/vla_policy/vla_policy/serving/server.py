"""The `policy_server` program: one model behind openpi's protocol, on a Unix socket or TCP.

    policy_server --listen unix:/run/evergreen/policy.sock --model models/pick
    EVERGREEN_API_KEY=… policy_server --listen tcp:0.0.0.0:8765 --model models/pick

Exit codes: 0 after SIGINT or SIGTERM, 2 where the address or the model is at fault (one line says how), 3 when the
parent named by --parent-pid is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vla_core.errors import ConfigError, EvergreenError
from vla_policy.serving.address import FORMS, Address, parse_address
from vla_policy.serving.backends import Backend, load_backend
from vla_policy.serving.lifetime import die_with, listening_socket

API_KEY_VARIABLE = "EVERGREEN_API_KEY"
EXIT_CONFIG = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("policy_server")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment ask for."""

    address: Address
    model: Path | None
    backend: str
    threads: int
    nice: int
    parent_pid: int
    api_key: str
    anonymous: bool

    def __post_init__(self) -> None:
        if self.model is None and not self.backend:
            raise ConfigError("give --model FOLDER or --backend NAME")
        if not (self.address.is_local or self.api_key or self.anonymous):
            raise ConfigError(
                f"--listen {self.address} is open to the network: set {API_KEY_VARIABLE} or --api-key-file, "
                "or give --anonymous where everybody may drive this model"
            )


def parse_options(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Options:
    """Read the command line; the key comes from the environment or a file, so that no process list shows it.

    Raises:
        ConfigError: options that do not fit together.
    """
    parser = argparse.ArgumentParser(prog="policy_server", description="Serve one model with openpi's protocol.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help=f"one of {FORMS.split(' or ')[0]}")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a model folder with manifest.json")
    parser.add_argument("--backend", default="", help="overrides the manifest's; needed for those without a folder")
    parser.add_argument("--threads", type=int, default=0, help="compute threads (default: half of the cores)")
    parser.add_argument("--nice", type=int, default=0, help="lowers this process' priority by as much")
    parser.add_argument("--parent-pid", type=int, default=0, help="end when this process ends")
    parser.add_argument("--api-key-file", type=Path, help=f"clients must show this key (or set {API_KEY_VARIABLE})")
    parser.add_argument("--anonymous", action="store_true", help="serve the network without a key")
    given = parser.parse_args(arguments)
    return Options(
        address=parse_address(given.listen),
        model=given.model,
        backend=given.backend,
        threads=given.threads,
        nice=given.nice,
        parent_pid=given.parent_pid,
        api_key=read_key(given.api_key_file, environment),
        anonymous=given.anonymous,
    )


def read_key(path: Path | None, environment: Mapping[str, str]) -> str:
    """The API key from `path`, else from the environment, else nothing.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if path is None:
        return environment.get(API_KEY_VARIABLE, "").strip()
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path}: {error}") from error
    if not key:
        raise ConfigError(f"--api-key-file {path} is empty")
    return key


def serve(options: Options) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        EvergreenError: the address or the model is at fault.
    """
    with listening_socket(options.address) as listener:
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        try:
            loading = worker.submit(_load, options)
            asyncio.run(_serve(options, listener, worker, loading))
        finally:
            worker.shutdown(wait=False, cancel_futures=True)


def _load(options: Options) -> Backend:
    begun = time.monotonic()
    backend = load_backend(options.model, options.backend, options.threads)
    about = backend.metadata()
    label = f"{about.get('name', options.backend)}@{about.get('version', '?')}"
    logger.info("%s is ready after %.2f s, on %s", label, time.monotonic() - begun, options.address)
    return backend


async def _serve(
    options: Options, listener: socket.socket, worker: ThreadPoolExecutor, loading: Future[Backend]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)  # a second one ends us at once, whatever is being computed

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    # Imported here, while the worker loads the model: half of a fast start is importing.
    from vla_policy.serving.service import PolicyService  # noqa: PLC0415

    await PolicyService(loading, worker, options.api_key).run(listener, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `policy_server`."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("policy_server.websockets").setLevel(logging.WARNING)
    try:
        options = parse_options(arguments, os.environ)
        if options.nice:
            os.nice(options.nice)
        if options.parent_pid:
            die_with(options.parent_pid)
        serve(options)
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
