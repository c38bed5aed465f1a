"""What every benchmark says besides its numbers, and where it says it."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Where and when: numbers without it mean nothing."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def publish(result: Mapping[str, Any], file: Path | None) -> None:
    """Print `result` as JSON; write it to `file` too, where one is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
