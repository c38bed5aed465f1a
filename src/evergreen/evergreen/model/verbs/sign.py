"""`evergreen model sign`: put a signature into a model's manifest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
Verifies every file of the folder, then signs its manifest, which names their hashes. A signature that is
there already is replaced. Packing the folder anew after a change removes the signature: sign last."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key, made by keygen")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sign."""
    from vla_core import manifest, signing  # noqa: PLC0415  not needed for --help

    signature = signing.sign_folder(arguments.folder, signing.load_private(arguments.key))
    label = manifest.load(arguments.folder).label
    if arguments.json:
        print(json.dumps({"label": label, "key_id": signature.key_id, "value": signature.value}, indent=2))
    else:
        print(f"{label} signed by key {signature.key_id}")
    return 0


VERB = Command(
    summary="sign a model's folder",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen model sign models/evergreen-black --key ~/keys/evergreen.pem",),
)
