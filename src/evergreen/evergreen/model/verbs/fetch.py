"""`evergreen model fetch`: bring a model into the store."""

from __future__ import annotations

import argparse
import json
import signal
from typing import TYPE_CHECKING, Any

from evergreen.commands import Command
from evergreen.model import options

if TYPE_CHECKING:
    from vla_core.store import Store

DETAILS = """\
SOURCE is one of
  FOLDER or ARCHIVE             on this machine, also as file:/path; archives are .tar, .tar.gz, .tgz, .zip
  https://host/folder           the folder that holds manifest.json
  https://host/model.tar.gz     an archive
  s3://bucket/prefix            a folder or an archive; credentials as for every AWS tool; AWS_ENDPOINT_URL is honoured
  hf:owner/name@revision        a repository on the Hugging Face hub; HF_TOKEN and HF_ENDPOINT are honoured
  greengrass:/path              a Greengrass artifact's folder
  … .delta                      what changed since a model that is in the store; see `evergreen model delta`

Interrupt it whenever you like: the same command goes on where it was. A model appears in the store whole and
verified or not at all. What cannot fit is refused before it starts; where room is short, the models unused
for longest go. Files that the store has are not transferred; where a delta from a stored model lies beside the
source, it is taken. Progress goes to standard error: a bar on a terminal, else lines, JSON lines with --json."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="SOURCE", help="where the model is")
    parser.add_argument("--version", default="", metavar="V", help="that its manifest must name")
    parser.add_argument("--sha256", default="", metavar="HEX", help="of its manifest.json, or of the archive")
    parser.add_argument("--use", action="store_true", help="then make it current, as `evergreen model use` does")
    options.add_store(parser)
    options.add_space(parser)
    options.add_trust(parser)
    options.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fetch."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` and systemd mean what Ctrl-C means

    from evergreen.model.meter import show_progress  # noqa: PLC0415  not needed for --help
    from gg_bridge.fetch import FetchError, Source, fetch  # noqa: PLC0415
    from vla_core.errors import ConfigError, StoreError  # noqa: PLC0415
    from vla_core.store import Space  # noqa: PLC0415

    source = Source(arguments.source, arguments.version, arguments.sha256.lower())
    store = options.store_from(arguments, trust=options.trust_from(arguments), space=Space(limit_bytes=arguments.limit))
    with show_progress(as_json=arguments.json) as tell:
        try:
            label = fetch(source, store, tell)
        except FetchError as error:
            if isinstance(error.__cause__, ConfigError):  # an address that is none is wrong usage, not a failed fetch
                raise error.__cause__ from error
            raise
    if arguments.use:
        if reason := store.state().refused.get(label):
            raise StoreError(
                f"{label} was refused: {reason}; `evergreen model use {label} --anyway` takes it all the same"
            )
        store.set_current(label)
    folder = store.folder(label)
    if arguments.json:
        facts = {
            "label": label,
            "folder": str(folder),
            "size_bytes": store.manifest(label).size_bytes,
            "current": store.state().current == label,
            **_how_it_came(store, label),
        }
        print(json.dumps(facts, indent=2))
    else:
        print(f"{label} is in {folder}" + (", and current" if arguments.use else ""))
        if base := _how_it_came(store, label).get("delta_from"):
            print(f"it came as a delta from {base}")
    return 0


def _how_it_came(store: Store, label: str) -> dict[str, Any]:
    """What the store's history says about its last fetch."""
    fetched = [one for one in store.history() if one.get("event") == "fetched"]
    if not fetched or fetched[-1].get("label") != label:
        return {}
    last = fetched[-1]
    return {
        "transferred_bytes": last.get("came"),
        "delta_from": last.get("base", ""),
        "whole_because": last.get("fallback", ""),
    }


VERB = Command(
    summary="bring a model into the store",
    details=DETAILS,
    configure=configure,
    run=run,
    examples=(
        "evergreen model fetch models/evergreen-black",
        "evergreen model fetch hf:owner/name@v1.2.0 --use",
        "evergreen model fetch s3://bucket/models/evergreen-black/1.0.1 --version 1.0.1",
    ),
)
