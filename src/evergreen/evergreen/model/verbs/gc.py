"""`evergreen model gc`: remove what nobody needs."""

from __future__ import annotations

import argparse
import json

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
Removes every model that is neither current nor last good nor held by a running process, and what abandoned
downloads left. The store does so by itself, the longest unused first, when a fetch needs the room; this does
it now and whole."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("-n", "--dry-run", action="store_true", help="only tell what would go")
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Remove, or tell."""
    store = options.present_store(arguments)
    gone = store.evictable() if arguments.dry_run else store.gc()
    if arguments.json:
        print(
            json.dumps(
                {"removed": [] if arguments.dry_run else list(gone), "evictable": list(store.evictable())}, indent=2
            )
        )
        return 0
    would = "would remove" if arguments.dry_run else "removed"
    print("\n".join(f"{would} {what}" for what in gone) or "nothing to remove")
    return 0


VERB = Command(
    summary="remove models that are neither current, last good nor in use",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen model gc --dry-run",),
)
