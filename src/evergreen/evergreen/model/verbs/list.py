"""`evergreen model list`: what is in the store."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from evergreen.commands import Command
from evergreen.model import options

if TYPE_CHECKING:
    from vla_core.store import Store, StoreState

DETAILS = """\
Shows each model with its size, what it is for the robot (current, last good, in use, refused), who signed it
and its default prompt. --history shows what happened to the store instead, oldest first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the store, or one that was refused and is not in it."""

    label: str
    present: bool
    size_bytes: int
    current: bool
    last_good: bool
    in_use: bool
    refused: str
    signed_by: str
    prompt: str
    problem: str = ""

    @property
    def marks(self) -> str:
        """For people."""
        named = {"current": self.current, "last good": self.last_good, "in use": self.in_use}
        marks = [name for name, holds in named.items() if holds]
        return ", ".join([*marks, *([f"refused: {self.refused}"] if self.refused else [])])


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--history", action="store_true", help="what happened to the store")
    options.add_store(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show."""
    store = options.present_store(arguments)
    if arguments.history:
        return _show_history(store, as_json=arguments.json)
    state = store.state()
    rows = [_row(store, state, label) for label in sorted({*store.labels(), *state.refused})]
    if arguments.json:
        document = {
            "store": str(store.root),
            "current": state.current,
            "last_good": state.last_good,
            "refused": dict(state.refused),
            "models": [asdict(row) for row in rows if row.present],
        }
        print(json.dumps(document, indent=2))
        return 0
    _show(store, rows)
    return 0


def _row(store: Store, state: StoreState, label: str) -> Row:
    from vla_core.errors import ManifestError  # noqa: PLC0415  not needed for --help

    here = label in store.labels()
    signed_by, prompt, problem = "", "", ""
    if here:
        try:
            manifest = store.manifest(label)
        except ManifestError as error:
            problem = str(error)
        else:
            signed_by, prompt = manifest.signature.key_id if manifest.signature else "", manifest.prompt
    return Row(
        label=label,
        present=here,
        size_bytes=store.size_bytes(label) if here else 0,
        current=label == state.current,
        last_good=label == state.last_good,
        in_use=here and store.in_use(label),
        refused=state.refused.get(label, ""),
        signed_by=signed_by,
        prompt=prompt,
        problem=problem,
    )


def _show(store: Store, rows: list[Row]) -> None:
    from rich.console import Console  # noqa: PLC0415  not needed for --help
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from vla_core.store.space import human  # noqa: PLC0415

    if not rows:
        print(f"no models in {store.root}; `evergreen model fetch` brings one")
        return
    table = Table(box=None, pad_edge=False, title=str(store.root), title_justify="left")
    for heading in ("model", "size", "state", "signed by", "prompt"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for row in rows:
        size = human(row.size_bytes) if row.present else "not here"
        table.add_row(row.label, size, row.marks or "-", row.signed_by or "nobody", Text(row.problem or row.prompt))
    Console().print(table)


def _show_history(store: Store, *, as_json: bool) -> int:
    for entry in store.history():
        if as_json:
            print(json.dumps(entry))
            continue
        facts = "  ".join(
            f"{key}={value}" for key, value in entry.items() if key not in ("time", "event") and value != ""
        )
        print(f"{entry.get('time', '?')}  {entry.get('event', '?'):10}  {facts}")
    return 0


VERB = Command(
    summary="show the models in the store",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=("evergreen model list", "evergreen model list --json", "evergreen model list --history"),
)
