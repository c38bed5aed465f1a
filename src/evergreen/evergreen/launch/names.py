"""ROS names, by the rules of rmw and by launch_ros's way of joining namespaces."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def join(base: str | None, namespace: str | None) -> str | None:
    """`namespace` below `base`, unless it is absolute; None where both are None. Trailing slashes go."""
    if base is None and namespace is None:
        return None
    if namespace is None:
        joined = str(base)
    elif not base or namespace.startswith("/"):
        joined = namespace
    else:
        joined = f"{base.rstrip('/')}/{namespace}"
    return joined if joined == "/" else joined.rstrip("/")


def absolute(namespace: str | None) -> str | None:
    """The namespace with a leading slash."""
    return namespace if namespace is None or namespace.startswith("/") else f"/{namespace}"


def check_node_name(name: str) -> None:
    """ValueError where no node can have this name."""
    if not _WORD.fullmatch(name) or len(name) > 255:
        raise ValueError(f"{name!r} is no node name; allowed: letters, digits and _, not a digit first")


def check_namespace(namespace: str) -> None:
    """ValueError where the absolute namespace is invalid."""
    if namespace != "/" and not all(_WORD.fullmatch(part) for part in namespace[1:].split("/")):
        raise ValueError(
            f"{namespace!r} is no namespace; allowed between slashes: letters, digits and _, not a digit first"
        )
