"""List the serial ports of this machine that may lead to an arm: ``python -m arm_driver.ports``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serial.tools import list_ports

from arm_driver.feetech.transport import holders

BY_ID = Path("/dev/serial/by-id")
ADAPTERS: Mapping[tuple[int, int], str] = {
    (0x1A86, 0x55D3): "CH343 (Waveshare and Feetech bus servo adapters of the SO-101)",
    (0x1A86, 0x55D4): "CH9102",
    (0x1A86, 0x7523): "CH340 (Feetech FE-URT-1 and others)",
    (0x10C4, 0xEA60): "CP210x",
    (0x0403, 0x6001): "FT232R",
    (0x0403, 0x6014): "FT232H",
}
"""USB vendor and product ids; the first is what SO-101 kits come with."""


@dataclass(frozen=True, slots=True)
class Found:
    """One USB serial port. `stable_name` survives replugging and reboots; `users` hold it open now."""

    device: str
    stable_name: str | None
    adapter: str
    users: tuple[str, ...]


def stable_names(folder: Path = BY_ID) -> dict[str, str]:
    """Device path to its name by serial number."""
    links = sorted(folder.iterdir()) if folder.is_dir() else []
    return {os.path.realpath(link): str(link) for link in links}


def find() -> list[Found]:
    """All USB serial ports; adapters that servos are known to hang on come first."""
    names = stable_names()
    known: list[Found] = []
    others: list[Found] = []
    for port in list_ports.comports():
        if port.vid is None or port.pid is None:
            continue
        adapter = ADAPTERS.get((port.vid, port.pid))
        text = adapter or f"unknown adapter {port.vid:04x}:{port.pid:04x} {port.description}"
        found = Found(port.device, names.get(os.path.realpath(port.device)), text, holders(port.device))
        (known if adapter else others).append(found)
    return known + others


def describe(ports: Iterable[Found]) -> list[str]:
    """Lines for people."""
    lines: list[str] = []
    for port in ports:
        lines.append(f"{port.device}  {port.adapter}")
        lines.append(f"  port:={port.stable_name or port.device}")
        if port.users:
            lines.append(f"  in use by process {', '.join(port.users)}")
    return lines or ["no USB serial port found; is the adapter plugged in, and passed into the container?"]


def main() -> int:
    """Print the list; exit code 1 when there is none."""
    ports = find()
    sys.stdout.write("\n".join(describe(ports)) + "\n")
    return 0 if ports else 1


if __name__ == "__main__":
    sys.exit(main())
