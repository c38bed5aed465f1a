"""`evergreen model use`: what the robot boots next."""

from __future__ import annotations

import argparse
import json

from evergreen.commands import Command
from evergreen.model import options

DETAILS = """\
Verifies the model and makes it the store's current one: the policy node loads it when it next starts. A
policy that runs is not disturbed; it keeps its model, and may set another current after its own next swap. To
replace the model of a running policy without a gap, ask the policy itself for a swap, as docs/vla_policy.md
shows."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("label", metavar="NAME@VERSION", help="a model in the store")
    parser.add_argument("--anyway", action="store_true", help="also if it was refused before; that is forgotten then")
    options.add_store(parser)
    options.add_trust(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Verify and set."""
    from vla_core.errors import StoreError  # noqa: PLC0415  not needed for --help
    from vla_core.store.state import StateDamagedError  # noqa: PLC0415

    store = options.present_store(arguments, trust=options.trust_from(arguments))
    label = arguments.label
    store.verify(label)
    try:
        state = store.state()
    except StateDamagedError:
        state = None  # setting it is the cure
    before = state.current if state else ""
    if state and label in state.refused:
        if not arguments.anyway:
            raise StoreError(f"{label} was refused: {state.refused[label]}; --anyway takes it all the same")
        store.allow(label)
    driving = bool(before) and before != label and before in store.labels() and store.in_use(before)
    store.set_current(label)
    if arguments.json:
        print(json.dumps({"current": label, "before": before, "running": before if driving else ""}, indent=2))
        return 0
    print(f"current: {label}" + (f" (was {before})" if before not in ("", label) else ""))
    if driving:
        print(f"a running process holds {before} until it restarts; docs/vla_policy.md tells how to swap it now")
    return 0


VERB = Command(
    summary="make a stored model the one that the robot boots",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen model use evergreen-black@1.0.0",),
)
