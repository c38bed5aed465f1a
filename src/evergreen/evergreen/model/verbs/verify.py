"""`evergreen model verify`: every hash of a model."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evergreen.commands import Command
from evergreen.model import options

if TYPE_CHECKING:
    from vla_core.manifest import Manifest
    from vla_core.signing import Trust

DETAILS = """\
Checks manifest, signature, that no file is too many or missing, every size and SHA-256, and that each file is
what its suffix says. MODEL is a label in the store, a folder or an archive; without any, all models of the
store. The exit code is 1 if one fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out for one model; `problem` is "" for a sound one."""

    model: str
    label: str
    size_bytes: int
    signed_by: str
    problem: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="label, folder or archive (default: all in the store)"
    )
    options.add_store(parser)
    options.add_trust(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify all, and return 1 where one fails."""
    trust = options.trust_from(arguments)
    names = arguments.models or options.present_store(arguments).labels()
    findings = [_examine(arguments, name, trust) for name in names]
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(_line(finding))
        if not findings:
            print("no models in the store")
    return int(any(finding.problem for finding in findings))


def _examine(arguments: argparse.Namespace, name: str, trust: Trust) -> Finding:
    from vla_core.errors import EvergreenError  # noqa: PLC0415  not needed for --help

    try:
        manifest = _verify(arguments, name, trust)
    except EvergreenError as error:
        return Finding(name, "", 0, "", str(error))
    signed_by = manifest.signature.key_id if manifest.signature else ""
    return Finding(name, manifest.label, manifest.size_bytes, signed_by, "")


def _verify(arguments: argparse.Namespace, name: str, trust: Trust) -> Manifest:
    from vla_core import archives  # noqa: PLC0415  not needed for --help
    from vla_core.store.checks import verify_folder  # noqa: PLC0415

    path = Path(name)
    if path.is_file():
        with tempfile.TemporaryDirectory(prefix="evergreen-") as folder:
            archives.unpack(path, Path(folder) / "model")
            return verify_folder(Path(folder) / "model", trust)
    if path.is_dir() or "@" not in name:
        return verify_folder(path, trust)
    return options.present_store(arguments, trust=trust).verify(name)


def _line(finding: Finding) -> str:
    from vla_core.store.space import human  # noqa: PLC0415  not needed for --help

    if finding.problem:
        named = finding.problem.startswith(finding.model)
        return f"BAD {finding.problem}" if named else f"BAD {finding.model}: {finding.problem}"
    signed = f"signed by {finding.signed_by}" if finding.signed_by else "not signed"
    where = "" if finding.model == finding.label else f" ({finding.model})"
    return f"ok  {finding.label}{where}, {human(finding.size_bytes)}, {signed}"


VERB = Command(
    summary="check a model's files against its manifest",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model verify",
        "evergreen model verify models/evergreen-black",
        "evergreen model verify evergreen-black@1.0.0 --trust ~/keys/evergreen.pem.pub --require-signature",
    ),
)
