"""YAML whose mappings remember the line of every key, and refuse a key that stands twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vla_core.errors import ConfigError

MERGE_TAG = "tag:yaml.org,2002:merge"


class Mapping(dict[str, Any]):
    """A mapping as read, with `lines`: key to line number, from 1."""

    def __init__(self, pairs: dict[str, Any], lines: dict[str, int]) -> None:
        super().__init__(pairs)
        self.lines = lines


class _Loader(yaml.SafeLoader):
    """SafeLoader that builds `Mapping`."""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _key(loader: _Loader, node: yaml.Node) -> str:
    key = loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else None
    if not isinstance(key, str):
        written = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        raise ConfigError(f"line {_line(node)}: the key {written!r} is not text; put it in quotes")
    return key


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Mapping:
    own: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == MERGE_TAG:
            continue
        key = _key(loader, key_node)
        if key in own:
            raise ConfigError(f"line {_line(key_node)}: {key!r} stands twice, first in line {own[key]}; rename one")
        own[key] = _line(key_node)
    loader.flatten_mapping(node)  # puts what `<<` merges in before the mapping's own keys
    pairs: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = _key(loader, key_node)
        pairs[key] = loader.construct_object(value_node, deep=True)
        lines[key] = _line(key_node)
    return Mapping(pairs, lines)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def load(path: Path) -> Any:
    """Read one YAML document.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has a key twice. The message starts with the file's name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark is not None else ""
        raise ConfigError(f"{path}:{where} no valid YAML: {getattr(error, 'problem', error)}") from error
    finally:
        loader.dispose()
