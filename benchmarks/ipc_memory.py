"""Memory that calls to a Greengrass nucleus leave behind: `gg_bridge.nucleus` against both kinds of nucleus.

    python benchmarks/ipc_memory.py --calls 100000 --json out/ipc_memory.json

For each kind a stand-in nucleus (`python -m gg_bridge.testing`) runs as a process of its own, so that only the client's
memory counts. The calls take turns: read the configuration, report a state, publish, change the configuration, which
also brings an event. After a warm-up the resident memory is read before and after. With `--plain` the calls go through
AWS's `GreengrassCoreIPCClientV2` as its examples show it; it shows that the measurement sees a leak.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from gg_bridge.nucleus import connect

CHARACTERS = ("classic", "lite")
WARM_UP_CALLS = 2000
"""Until pools, caches and the allocator's arenas have their size."""
TIMEOUT_S = 30.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Growth:
    """What one run measured."""

    character: str
    calls: int
    seconds: float
    before_bytes: int
    after_bytes: int
    events: int

    @property
    def bytes_a_call(self) -> float:
        """Resident memory that a call leaves behind."""
        return (self.after_bytes - self.before_bytes) / self.calls


@contextmanager
def nucleus(character: str) -> Iterator[None]:
    """A stand-in nucleus, and its environment in this process."""
    with tempfile.TemporaryDirectory(prefix="gg") as folder:
        command = [sys.executable, "-m", "gg_bridge.testing", "--socket", f"{folder}/ipc", "--character", character]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            if process.stdout is None:
                raise RuntimeError("no output")
            for _ in range(2):
                name, _, value = process.stdout.readline().strip().partition("=")
                os.environ[name] = value
            yield
        finally:
            process.terminate()
            process.wait(STOP_S)


def resident_bytes() -> int:
    """After a collection, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def port_calls() -> tuple[list[Callable[[], Any]], Callable[[], int], Callable[[], None]]:
    """Calls through the port, how many events came, and the end."""
    port = connect(TIMEOUT_S)
    counter = {"events": 0, "writes": 0}

    def count(_path: object) -> None:
        counter["events"] += 1

    def write() -> None:
        counter["writes"] += 1
        port.update_configuration(["bench"], {"count": counter["writes"]})

    port.on_configuration(count)
    calls = [port.configuration, lambda: port.report_state("RUNNING"), lambda: port.publish("bench", b"x" * 100), write]
    return calls, lambda: counter["events"], port.close


def plain_calls() -> tuple[list[Callable[[], Any]], Callable[[], int], Callable[[], None]]:
    """The same, as AWS's examples do it."""
    from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2  # noqa: PLC0415 (only here)

    client = GreengrassCoreIPCClientV2()
    calls = [
        client.get_configuration,
        lambda: client.update_state(state="RUNNING"),
        lambda: client.publish_to_iot_core(topic_name="bench", qos="1", payload=b"x" * 100),
    ]
    return calls, lambda: 0, client.close


def measure(character: str, calls: int, *, plain: bool) -> Growth:
    """One run."""
    with nucleus(character):
        todo, events, close = plain_calls() if plain else port_calls()
        for number in range(WARM_UP_CALLS):
            todo[number % len(todo)]()
        before = resident_bytes()
        began = time.perf_counter()
        for number in range(calls):
            todo[number % len(todo)]()
        seconds = time.perf_counter() - began
        after = resident_bytes()
        seen = events()
        close()
    return Growth(character, calls, seconds, before, after, seen)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--character", choices=CHARACTERS, action="append", help="default: both")
    parser.add_argument("--plain", action="store_true", help="AWS's client as its examples use it")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    results = []
    for character in arguments.character or CHARACTERS:
        growth = measure(character, arguments.calls, plain=arguments.plain)
        results.append({**asdict(growth), "bytes_a_call": growth.bytes_a_call})
        print(
            f"{character}: {growth.calls} calls in {growth.seconds:.1f} s, resident {growth.before_bytes / 1e6:.1f} -> "
            f"{growth.after_bytes / 1e6:.1f} MB, {growth.bytes_a_call:+.1f} bytes a call, {growth.events} events"
        )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
        document = {"client": "plain" if arguments.plain else "gg_bridge", **machine, "runs": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
