"""Where a policy server is: `unix:/path`, `tcp:host:port`, `ws://host[:port][/path]` or `wss://…`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vla_core.errors import ConfigError

FORMS = "unix:/path, tcp:host:port, ws://host:port or wss://host:port"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_UNIX_PATH_BYTES = 107
"""`sun_path` of Linux holds 108 bytes with the closing zero."""
_DEFAULT_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """One server's address; either `socket_path` or `host` and `port` are set.

    Attributes:
        text: as the user wrote it.
        socket_path: of a Unix socket, else None.
        host, port: of TCP.
        secure: TLS.
        resource: path of the websocket's request.
    """

    text: str
    socket_path: Path | None = None
    host: str = ""
    port: int = 0
    secure: bool = False
    resource: str = "/"

    @property
    def uri(self) -> str:
        """What the websocket handshake names."""
        if self.socket_path is not None:
            return f"ws://localhost{self.resource}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.secure else 'ws'}://{host}:{self.port}{self.resource}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.socket_path is not None or self.host in LOOPBACK

    def __str__(self) -> str:
        return self.text


def unix_address(path: Path) -> Address:
    """Address of a Unix socket.

    Raises:
        ConfigError: the path is not absolute, or longer than the kernel takes.
    """
    if not path.is_absolute():
        raise ConfigError(f"socket path {str(path)!r} must be absolute, such as unix:/run/evergreen/policy.sock")
    if len(str(path).encode()) > MAX_UNIX_PATH_BYTES:
        raise ConfigError(
            f"socket path {path} is longer than the {MAX_UNIX_PATH_BYTES} bytes that Linux allows; "
            "set EVERGREEN_RUN_DIR to a shorter folder"
        )
    return Address(f"unix:{path}", socket_path=path)


def parse_address(text: str) -> Address:
    """Parse an address in one of the FORMS.

    Raises:
        ConfigError: it has none of them.
    """
    if text.startswith("unix:"):
        return unix_address(Path(text.removeprefix("unix:")))
    if text.startswith("tcp:"):
        parts = urlsplit(f"//{text.removeprefix('tcp:')}")
        scheme = "tcp"
    else:
        parts = urlsplit(text)
        scheme = parts.scheme
    if scheme not in ("tcp", *_DEFAULT_PORTS) or not parts.hostname or parts.username is not None:
        raise ConfigError(f"{text!r} is no address of a policy server: give {FORMS}")
    try:
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{text!r}: {error}") from error
    if port is None:
        port = _DEFAULT_PORTS.get(scheme)
    if port is None:
        raise ConfigError(f"{text!r} lacks a port: give {FORMS}")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(text, host=parts.hostname, port=port, secure=scheme == "wss", resource=resource)
