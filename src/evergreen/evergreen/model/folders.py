"""A model that is named on the command line: a folder, or a label in the store."""

from __future__ import annotations

import argparse
from pathlib import Path

from evergreen.model import options
from vla_core.errors import ConfigError
from vla_core.signing import Trust
from vla_core.store import Store
from vla_core.store.checks import verify_folder


def verified_folder(name: str, arguments: argparse.Namespace) -> Path:
    """Where the model lies, each of its files as its manifest says.

    Raises:
        ConfigError: there is neither such a folder nor such a label.
        ManifestError: it is damaged.
    """
    folder = Path(name)
    if not folder.is_dir():
        root = options.root_from(arguments)
        if "@" not in name or not root.is_dir():
            raise ConfigError(f"{name} is neither a model's folder nor name@version in the store {root}")
        folder = Store(root).folder(name)
    verify_folder(folder, Trust())
    return folder
