"""`evergreen model`: models and the store that keeps them."""

from __future__ import annotations

import argparse

from evergreen.commands import Command, add_verbs, run_verb

DETAILS = """\
A model is a folder with a manifest; the store keeps the verified ones, and remembers which of them is current and
which was the last good one. docs/models.md tells all about both."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    add_verbs(parser, "evergreen.model.verbs")


COMMAND = Command(
    summary="pack, sign, fetch, verify and choose models",
    details=DETAILS,
    configure=configure,
    run=run_verb,
    examples=(
        "evergreen model fetch hf:owner/name@v1.2.0",
        "evergreen model list",
        "evergreen model use evergreen-black@1.0.0",
    ),
)
