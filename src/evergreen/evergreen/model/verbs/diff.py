"""`evergreen model diff`: what a new version costs on the way."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from evergreen.commands import Command
from evergreen.model import options

if TYPE_CHECKING:
    from evergreen.model.travelling import Travel

DETAILS = """\
OLD and NEW are folders, or labels in the store. Shows file by file and in all what would travel to a robot that
has OLD: the whole, compressed, as a layer of a container image, the changed files only, and as a delta; and how
long each takes on assumed lines. Everything is really made and counted, in blocks: memory stays small, and 15 GB
take a while."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("old", metavar="OLD", help="the model that the robot has")
    parser.add_argument("new", metavar="NEW", help="the model that it shall get")
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from evergreen.model.folders import verified_folder  # noqa: PLC0415  not needed for --help
    from evergreen.model.meter import show_work  # noqa: PLC0415
    from evergreen.model.travelling import measure  # noqa: PLC0415

    old, new = verified_folder(arguments.old, arguments), verified_folder(arguments.new, arguments)
    with show_work(quiet=arguments.json) as reached:
        travel = measure(old, new, reached)
    if arguments.json:
        print(json.dumps(travel.facts(), indent=2))
    else:
        _show(travel)
    return 0


def _show(travel: Travel) -> None:
    from rich.console import Console  # noqa: PLC0415  not needed for --help
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from evergreen.model.travelling import LINES, percent, seconds  # noqa: PLC0415
    from vla_core.store.space import human  # noqa: PLC0415

    console = Console()
    files = Table(box=None, pad_edge=False, title=f"{travel.old} -> {travel.new}", title_justify="left")
    for heading in ("file", "whole", "zstd", "delta"):
        files.add_column(heading, justify="left" if heading == "file" else "right")
    for row in travel.rows:
        files.add_row(Text(row.name), human(row.whole), human(row.zstd), human(row.delta) if row.delta else "same")
    console.print(files)
    console.print()
    ways = Table(box=None, pad_edge=False)
    ways.add_column("what travels", no_wrap=True)
    for heading in ("bytes", "share", *(f"{line} {rate:g} Mbit/s" for line, rate in LINES.items())):
        ways.add_column(heading, justify="right", no_wrap=heading in ("bytes", "share"))
    for way, size in travel.ways.items():
        times = [_time(seconds(size, rate)) for rate in LINES.values()]
        ways.add_row(way, human(size), percent(size, travel.whole), *times)
    console.print(ways)


def _time(duration_s: float) -> str:
    if duration_s < 120:
        return f"{duration_s:.0f} s" if duration_s >= 10 else f"{duration_s:.1f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 7200 else f"{duration_s / 3600:.1f} h"


VERB = Command(
    summary="say what a new version costs on the way",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model diff evergreen-black@1.0.0 models/evergreen-black-1.1.0",
        "evergreen model diff models/evergreen-black models/evergreen-white --json",
    ),
)
