"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from vla_core import signing
from vla_core.errors import ConfigError
from vla_core.signing import Trust
from vla_core.store import STORE_VARIABLE, Space, Store, default_root

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kMG]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, and only that")


def add_store(parser: argparse.ArgumentParser) -> None:
    """`--store`."""
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FOLDER",
        help=f"where models are kept (default: ${STORE_VARIABLE}, else ~/.local/share/evergreen/store)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """`--trust` and `--require-signature`."""
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        metavar="PATH",
        help=f"public key whose models are taken, or a folder of *{signing.PUBLIC_SUFFIX}; may be repeated (default: "
        f"${signing.KEYS_VARIABLE}, joined by {os.pathsep!r})",
    )
    parser.add_argument(
        "--require-signature",
        action="store_true",
        help=f"refuse models without a signature by a trusted key (also: {signing.REQUIRE_VARIABLE}=1)",
    )


def add_space(parser: argparse.ArgumentParser) -> None:
    """`--limit`."""
    parser.add_argument(
        "--limit",
        type=size,
        default=0,
        metavar="SIZE",
        help="most that the store may take, for example 8GB (default: the disk)",
    )


def trust_from(arguments: argparse.Namespace) -> Trust:
    """Whose models are taken: the arguments, or the environment where they say nothing."""
    paths = arguments.trust or signing.key_paths(os.environ.get(signing.KEYS_VARIABLE, ""))
    return signing.load_trust(paths, required=arguments.require_signature or signing.is_required(os.environ))


def root_from(arguments: argparse.Namespace) -> Path:
    """Where the store lies."""
    return default_root(os.environ) if arguments.store is None else Path(arguments.store).expanduser()


def store_from(arguments: argparse.Namespace, *, trust: Trust | None = None, space: Space | None = None) -> Store:
    """The store, made where it is absent."""
    return Store(root_from(arguments), trust, space)


def present_store(arguments: argparse.Namespace, *, trust: Trust | None = None) -> Store:
    """The store, which must be there.

    Raises:
        ConfigError: there is none.
    """
    root = root_from(arguments)
    if not root.is_dir():
        raise ConfigError(
            f"no store at {root}; `evergreen model fetch` makes it, --store or {STORE_VARIABLE} names another"
        )
    return Store(root, trust)


def size(text: str) -> int:
    """`8GB` as bytes."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: write a size as 500MB or 8GB")
    return int(float(match[1]) * _UNITS[match[2]])
