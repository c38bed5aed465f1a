"""The listening socket's folder and modes, without a server process."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vla_policy.serving.address import unix_address
from vla_policy.serving.lifetime import listening_socket


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_run_folder_can_be_entered(run_folder: Path):
    """The folder was made under the socket's umask: mode 0600, in which nobody but root could bind the socket."""
    path = run_folder / "new" / "policy.sock"
    before = os.umask(0o022)
    try:
        with listening_socket(unix_address(path)):
            assert mode(path.parent) == 0o700
            assert mode(path) == 0o600
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
