"""`evergreen model pack`: a folder becomes a model that can be sent."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
Refuses links and files that are neither safetensors, ONNX, JSON nor text, looks whether each is what its
suffix says, and writes size and SHA-256 of every file into manifest.json. Its other fields stay unless
--name, --version, --prompt or --set gives them; a folder without a manifest needs them all, see
docs/models.md. A version never changes: where a file that the manifest records is missing or another, give a
new --version, or --repack for a model that no robot ever got. A signature does not fit what was changed: give
--key to sign it anew, or --drop-signature. The same folder always gives the same archive, byte for byte."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the model's files")
    parser.add_argument("--name", metavar="NAME", help="the model's name")
    parser.add_argument("--version", metavar="V", help="its version; change it whenever a file changes")
    parser.add_argument("--prompt", metavar="TEXT", help="its default prompt")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="another field of the manifest, for example rate_hz=10 or licence='\"MIT\"'; may be repeated",
    )
    parser.add_argument("--repack", action="store_true", help="take changed files under the same version")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key to sign it with")
    parser.add_argument(
        "--drop-signature", action="store_true", help="without --key: let go a signature that no longer fits"
    )
    parser.add_argument("--archive", type=Path, metavar="FILE", help="also write a .tar or .tar.gz")
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pack."""
    from evergreen.model.packing import Allowed, Wanted, pack  # noqa: PLC0415  not needed for --help

    wanted = Wanted.parse(arguments.name, arguments.version, arguments.prompt, arguments.settings)
    allowed = Allowed(arguments.repack, arguments.drop_signature)
    packed = pack(arguments.folder, wanted, key_file=arguments.key, archive=arguments.archive, allowed=allowed)
    if arguments.json:
        print(json.dumps(packed.facts(), indent=2))
    else:
        print("\n".join(packed.lines()))
    return 0


VERB = Command(
    summary="check a folder, write its manifest, make an archive",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model pack models/evergreen-black --version 1.0.1",
        "evergreen model pack models/evergreen-black --key ~/keys/evergreen.pem --archive evergreen-black-1.0.1.tar.gz",
    ),
)
