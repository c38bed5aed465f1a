"""A stand-in Greengrass nucleus as a program.

    python -m gg_bridge.testing --socket /tmp/nucleus --character lite --config defaults.json -- gg_bridge

prints the environment that a component needs, as NAME=value lines, and, after `--`, runs a component with it. Drive it
through the control socket (`gg_bridge.testing.control.ControlClient`).
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gg_bridge.testing.character import CHARACTERS, Timing
from gg_bridge.testing.control import ControlServer
from gg_bridge.testing.stand_in import COMPONENT, StandInNucleus
from vla_core.errors import ConfigError, EvergreenError


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT, SIGTERM or the control socket's `shutdown`."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s nucleus %(levelname)s %(message)s", stream=sys.stderr)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    try:
        _serve(arguments, over)
    except EvergreenError as error:
        print(f"gg_bridge.testing: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace, over: threading.Event) -> None:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    timing = Timing()
    if arguments.restart_delay_s is not None:
        timing = replace(timing, restart_delay_s=arguments.restart_delay_s)
    nucleus = StandInNucleus(
        arguments.character,
        arguments.socket,
        component=arguments.component,
        defaults=_read(arguments.config),
        timing=timing,
        command=command,
    )
    with nucleus:
        control = ControlServer(arguments.control or Path(f"{arguments.socket}.control"), nucleus, over.set)
        try:
            for name, value in nucleus.environment().items():
                print(f"{name}={value}")
            sys.stdout.flush()
            over.wait()
        finally:
            control.close()


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        configuration = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"--config {path} is no JSON: {error}") from error
    if not isinstance(configuration, dict):
        raise ConfigError(f"--config {path} must hold a JSON object, the component's default configuration")
    return configuration


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gg_bridge.testing", description="A stand-in Greengrass nucleus.")
    parser.add_argument("--socket", type=Path, required=True, help="where components connect")
    parser.add_argument("--character", choices=sorted(CHARACTERS), default="lite", help="which nucleus to stand in for")
    parser.add_argument("--config", type=Path, help="JSON file with the component's default configuration")
    parser.add_argument("--control", type=Path, help="control socket (default: that of --socket with .control)")
    parser.add_argument("--component", default=COMPONENT, help="the component's name (default: %(default)s)")
    parser.add_argument(
        "--restart-delay-s",
        type=float,
        help="lite: from a deployment to the component's restart (default: 10, as measured on the real one)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the component's program, to run and restart")
    return parser


if __name__ == "__main__":
    sys.exit(main())
