"""Message definitions as MCAP's `ros2msg` wants them: the text of the .msg file and of all that it uses."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vla_core.errors import ConfigError

_SEPARATOR = "=" * 80
_FIELD = re.compile(r"^\s*(?P<type>[A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+")
_PRIMITIVES = frozenset(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)) | {
    "bool",
    "byte",
    "char",
    "float32",
    "float64",
    "string",
    "wstring",
}


def prefixes(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where ROS packages are installed: AMENT_PREFIX_PATH, then this Python environment."""
    named = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return (*(Path(text) for text in named if text), Path(sys.prefix))


def definition(datatype: str, where: Sequence[Path]) -> str:
    """The whole definition of `datatype`, such as `sensor_msgs/msg/JointState`.

    Raises:
        ConfigError: a message is not installed in `where`.
    """
    package, _, name = datatype.split("/")
    texts: dict[tuple[str, str], str] = {}
    waiting = [(package, name)]
    while waiting:
        key = waiting.pop(0)
        if key not in texts:
            texts[key] = _read(*key, where)
            waiting += _used(texts[key], key[0])
    first, *rest = texts.items()
    return "".join([first[1], *(f"\n{_SEPARATOR}\nMSG: {key[0]}/{key[1]}\n{text}" for key, text in rest)])


def _read(package: str, name: str, where: Sequence[Path]) -> str:
    for prefix in where:
        path = prefix / "share" / package / "msg" / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError(
        f"message {package}/msg/{name} is not installed (share/{package}/msg/{name}.msg in "
        f"{os.pathsep.join(map(str, where))}); source ROS's setup.bash"
    )


def _used(text: str, package: str) -> list[tuple[str, str]]:
    """The messages that fields of this one are made of."""
    found = []
    for line in text.splitlines():
        match = _FIELD.match(line.split("#", 1)[0])
        if match is None or match["type"] in _PRIMITIVES:
            continue
        owner, slash, name = match["type"].rpartition("/")
        found.append((owner.split("/")[0] if slash else package, name))
    return found
