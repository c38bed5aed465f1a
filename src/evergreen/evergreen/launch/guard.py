"""Ends a launcher's processes when the launcher is killed and cannot do it itself. A script of the standard library.

The launcher writes `+<process group>` and `-<process group>` lines to its standard input. When that input ends, every
group still listed gets SIGTERM and, if it does not end, SIGKILL. It complements `PR_SET_PDEATHSIG`, which reaches only
the launcher's direct children and cannot insist.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

PATIENCE_S = 5.0
"""From SIGTERM to SIGKILL, as the launcher itself would wait."""
POLL_S = 0.05


def main() -> int:
    """Follow standard input to its end, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while groups and time.monotonic() < deadline:
        time.sleep(POLL_S)
        _signal(groups, 0)
    _signal(groups, signal.SIGKILL)
    return 0


def _signal(groups: set[int], number: int) -> None:
    """Send a signal to each group and forget the groups that are gone; 0 only looks."""
    for group in list(groups):
        with contextlib.suppress(PermissionError):
            try:
                os.killpg(group, number)
            except ProcessLookupError:
                groups.discard(group)


if __name__ == "__main__":
    sys.exit(main())
