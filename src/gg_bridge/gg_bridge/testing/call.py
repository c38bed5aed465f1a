"""One request to a stand-in nucleus, from the shell.

    python -m gg_bridge.testing.call /tmp/nucleus.control deploy '{"merge": {"model": {"uri": "b"}}, "wait_s": 30}'

prints the answer as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gg_bridge.testing.control import DEFAULT_TIMEOUT_S, ControlClient
from vla_core.errors import ConfigError, EvergreenError


def main(argv: Sequence[str] | None = None) -> int:
    """Ask, and print the answer."""
    parser = argparse.ArgumentParser(prog="python -m gg_bridge.testing.call", description="Drive a stand-in nucleus.")
    parser.add_argument("control", type=Path, help="its control socket")
    parser.add_argument("op", help="deploy, restart, drop, fault, status, environment, published, states, shadows, …")
    parser.add_argument("arguments", nargs="?", default="{}", help="a JSON object")
    given = parser.parse_args(argv)
    try:
        arguments = _object(given.arguments)
        wait_s = arguments.get("wait_s", 0.0)
        timeout_s = DEFAULT_TIMEOUT_S + (wait_s if isinstance(wait_s, (int, float)) else 0.0)
        answer = ControlClient(given.control).request(given.op, timeout_s=timeout_s, **arguments)
    except EvergreenError as error:
        print(f"gg_bridge.testing.call: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2))
    return 0


def _object(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(value, dict) or {"op", "timeout_s"} & set(value):
        raise ConfigError(f"{text!r} must be a JSON object with the operation's arguments")
    return value


if __name__ == "__main__":
    sys.exit(main())
