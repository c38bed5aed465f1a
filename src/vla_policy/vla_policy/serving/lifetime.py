"""How a server process lives and ends: niceness, a parent to outlive never, and a listening socket of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from vla_core.errors import ConfigError
from vla_policy.serving.address import Address

BACKLOG = 16
PARENT_GRACE_S = 2.0
"""An orphan gets this long to close its connections, then it is gone whatever it computes."""
PROBE_TIMEOUT_S = 1.0
"""A living server's kernel accepts at once; a second covers a machine that is short of breath."""
EXIT_ORPHANED = 3


def die_with(parent_pid: int) -> None:
    """End this process soon after `parent_pid` ended.

    Unlike PR_SET_PDEATHSIG, which fires when the *thread* ends that started us, this follows the process.
    """
    try:
        parent = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        os._exit(EXIT_ORPHANED)
    except OSError as error:
        raise ConfigError(f"--parent-pid {parent_pid}: cannot watch it: {error}") from error
    threading.Thread(target=_follow, args=(parent,), name="parent-watch", daemon=True).start()


def _follow(parent: int) -> None:
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    poller.poll()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PARENT_GRACE_S)
    os._exit(EXIT_ORPHANED)


@contextlib.contextmanager
def listening_socket(address: Address) -> Iterator[socket.socket]:
    """A bound socket; a Unix socket is for this user only, replaces one whose server died, and goes when we do.

    Raises:
        ConfigError: another server has the address, or it cannot be bound.
    """
    if address.secure or address.resource != "/":
        raise ConfigError(f"--listen {address}: serve unix:/path or tcp:host:port, and TLS through a proxy before it")
    if address.socket_path is None:
        with _bind_tcp(address) as server:
            yield server
        return
    with _bind_unix(address.socket_path) as server:
        inode = address.socket_path.stat().st_ino
        try:
            yield server
        finally:
            with contextlib.suppress(FileNotFoundError):
                if address.socket_path.stat().st_ino == inode:  # not a successor's
                    address.socket_path.unlink()


def _bind_tcp(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"--listen {address}: {error}") from error
    server = socket.socket(family, kind, protocol)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"--listen {address}: port {address.port} is in use; stop what uses it or choose another"
            ) from error
        raise ConfigError(f"--listen {address}: {error}") from error
    return server


def _bind_unix(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _bind_privately(server, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            path.unlink()
            _bind_privately(server, path)
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"--listen unix:{path}: a living server has this socket; stop it or choose another"
            ) from error
        raise ConfigError(f"--listen unix:{path}: {error}") from error
    return server


def _bind_privately(server: socket.socket, path: Path) -> None:
    """Mode 0600 from the first moment. Only here: a folder made under this umask could not be entered."""
    umask = os.umask(0o177)
    try:
        server.bind(str(path))
    finally:
        os.umask(umask)


def _is_stale(path: Path) -> bool:
    """Whether `path` is a socket that nobody serves any more."""
    if not path.is_socket():
        raise ConfigError(f"--listen unix:{path}: there is a file that is no socket; remove it or choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
