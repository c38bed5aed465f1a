"""Single keys from the terminal, without Enter. LeRobot's: right keeps, left discards, Esc ends."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from enum import Enum, auto

ESCAPE_S = 0.05
"""An arrow key sends its whole sequence at once; Esc alone sends nothing more."""


class Key(Enum):
    """What a key asks for."""

    NEXT = auto()
    """Keep the present episode; or, between episodes, begin the next."""
    DISCARD = auto()
    END = auto()


_KEYS = {
    b"\x1b[C": Key.NEXT,
    b"\x1bOC": Key.NEXT,
    b" ": Key.NEXT,
    b"n": Key.NEXT,
    b"\x1b[D": Key.DISCARD,
    b"\x1bOD": Key.DISCARD,
    b"x": Key.DISCARD,
    b"r": Key.DISCARD,
    b"\x1b": Key.END,
    b"q": Key.END,
}


@contextlib.contextmanager
def pressed() -> Iterator[int | None]:
    """Deliver single keys on the descriptor that is given; None where there is no terminal to read from."""
    if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        yield None  # no terminal, or somebody else's turn: asking it would stop this process
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)  # Ctrl-C remains a signal
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read(descriptor: int, timeout_s: float) -> Key | None:
    """The next key that means something, or None when the time is over."""
    if not select.select([descriptor], [], [], timeout_s)[0]:
        return None
    data = os.read(descriptor, 1)
    if data == b"\x1b" and select.select([descriptor], [], [], ESCAPE_S)[0]:
        data += os.read(descriptor, 2)
    return _KEYS.get(data)
