"""`evergreen train`: a policy from demonstrations, on the CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from evergreen.commands import Command
from vla_core.errors import ConfigError

DETAILS = """\
Trains what the YAML file CONFIG describes, on demonstrations made by `evergreen record`, and writes a LeRobot
checkpoint with an ONNX graph and a manifest. Interrupt it whenever you like: the same command goes on where it was.
Checkpoints of the last phase play in closed loop in the simulation; the one that succeeds most often is the result.

Shipped configurations may be named without folder and suffix. Needs torch and LeRobot (`make setup-train`)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file, or the name of a shipped one, as evergreen_black")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the run; one in it is continued (default: out/train/NAME)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write what came out there")


def run(arguments: argparse.Namespace) -> int:
    """Train, and return 0."""
    try:
        from vla_training import program  # noqa: PLC0415  torch is not there everywhere, and slow to load
    except ModuleNotFoundError as error:
        raise ConfigError(f"training needs the Python package {error.name}; run `make setup-train`") from error
    return program.train(arguments)


COMMAND = Command(
    summary="train a policy from demonstrations",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen train evergreen_black", "evergreen train my_run.yaml --out out/train/mine"),
)
