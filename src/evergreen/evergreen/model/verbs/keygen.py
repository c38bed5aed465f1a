"""`evergreen model keygen`: a key pair for signing models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
Writes an Ed25519 private key to FILE, readable by you alone, and the public key to FILE.pub. Keep FILE off
the robot; copy FILE.pub to it. Existing files are never overwritten."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", type=Path, metavar="FILE", help="for the private key")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the pair."""
    from vla_core import signing  # noqa: PLC0415  not needed for --help

    public_file = signing.generate(arguments.file)
    key_id = signing.key_id_of(signing.load_public(public_file))
    if arguments.json:
        print(json.dumps({"key_id": key_id, "private": str(arguments.file), "public": str(public_file)}, indent=2))
    else:
        print(f"key {key_id}: {arguments.file} (keep it secret), {public_file} (give it to robots)")
    return 0


VERB = Command(
    summary="make a key pair for signing models",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen model keygen ~/keys/evergreen.pem",),
)
