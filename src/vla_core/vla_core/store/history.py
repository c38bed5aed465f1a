"""The audit trail: what happened to a store, one JSON object a line, each on disk before the next thing happens."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vla_core.store import durable

FILE_NAME, OLDER_NAME = "history.jsonl", "history.1.jsonl"
MAX_BYTES = 4 << 20
"""About 20,000 lines; then the file becomes the older one, so that the trail takes twice this at most."""


def append(root: Path, event: str, facts: Mapping[str, object]) -> None:
    """Add a line with the present time; facts must be of JSON's kinds."""
    path = root / FILE_NAME
    if path.exists() and path.stat().st_size > MAX_BYTES:
        path.replace(root / OLDER_NAME)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    durable.append_line(path, json.dumps({"time": now, "event": event, **facts}))


def read(root: Path) -> Iterator[Mapping[str, Any]]:
    """All lines, oldest first; those that a cut left unfinished are passed over."""
    for name in (OLDER_NAME, FILE_NAME):
        with contextlib.suppress(FileNotFoundError), (root / name).open("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    if isinstance(entry := json.loads(line), dict):
                        yield entry
