"""Where Evergreen keeps sockets and caches."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder for what can be made again: `$EVERGREEN_CACHE`, else the user's cache folder."""
    if chosen := environment.get("EVERGREEN_CACHE"):
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", tempfile.gettempdir())) / ".cache"
    return Path(base) / "evergreen"


def run_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder for sockets and pty links: `$EVERGREEN_RUN_DIR`, else one for this user, mode 0700."""
    if chosen := environment.get("EVERGREEN_RUN_DIR"):
        return Path(chosen)
    if base := environment.get("XDG_RUNTIME_DIR"):
        return Path(base) / "evergreen"
    return Path(tempfile.gettempdir()) / f"evergreen-{os.getuid()}"
