"""What the tests of fetching share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "vla_core" / "test"))  # the same small models as the store's tests

from store_support import write_model

__all__ = ["write_model"]
