"""`evergreen model delta`: write what changed between two versions."""

from __future__ import annotations

import argparse
import json

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
OLD and NEW are folders, or labels in the store. A robot that has OLD fetches the delta instead of the changed
files, wherever it finds it:
  beside the model    --out ADDRESS.deltas/, where ADDRESS is the folder or archive of NEW; upload both. Deployments
                      keep naming ADDRESS, and robots without OLD get the files whole
  by itself           --out FILE.delta --whole ADDRESS, and deploy FILE.delta; robots without OLD go to ADDRESS
The delta is tried before it is written: what it rebuilds has NEW's hashes. It needs no signature of its own, since
it carries NEW's manifest with its signature."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("old", metavar="OLD", help="the model that robots have")
    parser.add_argument("new", metavar="NEW", help="the model that they shall get")
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="of this machine: a file *.delta, or any other name for a folder (it is made), in which the delta gets "
        "the name robots look for",
    )
    parser.add_argument(
        "--whole", default="", metavar="ADDRESS", help="of NEW, where robots without OLD find it: https:, s3:, hf:, …"
    )
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write."""
    from evergreen.model.folders import verified_folder  # noqa: PLC0415  not needed for --help
    from evergreen.model.meter import show_work  # noqa: PLC0415
    from evergreen.model.shipping import Destination, check_whole, ship  # noqa: PLC0415

    destination = Destination.parse(arguments.out)
    if arguments.whole:
        check_whole(arguments.whole)
    old, new = verified_folder(arguments.old, arguments), verified_folder(arguments.new, arguments)
    with show_work(quiet=arguments.json) as reached:
        shipped = ship(old, new, destination, whole=arguments.whole, reached=reached)
    if arguments.json:
        print(json.dumps(shipped.facts(), indent=2))
    else:
        print("\n".join(shipped.lines()))
    return 0


VERB = Command(
    summary="write what changed between two versions, for robots that have the old one",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model delta evergreen-black@1.0.0 out/evergreen-black-1.1.0 --out out/evergreen-black-1.1.0.deltas/",
        "evergreen model delta old new --out new.delta --whole s3://bucket/evergreen-black/1.1.0",
    ),
)
