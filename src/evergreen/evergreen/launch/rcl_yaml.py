"""YAML between PyYAML, which follows YAML 1.1, and rcl's reader of parameter files, which goes its own way.

rcl takes every plain scalar for a number that C's `strtod` takes for one: `1e5`, `08`, `nan`, `0x1p3` are text to
PyYAML, which writes them plain, and doubles to the node. It also takes `y` and `n` for booleans. What stands in
quotation marks is text to both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

FLOAT_TAG = "tag:yaml.org,2002:float"
_STRTOD = re.compile(
    r"""[-+]?(?: (?:[0-9]+\.?[0-9]*|\.[0-9]+) (?:e[-+]?[0-9]+)?
              | 0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+) (?:p[-+]?[0-9]+)?
              | inf(?:inity)? | nan )$""",
    re.VERBOSE | re.IGNORECASE,
)
"""What C17 7.22.1.3 lets `strtod` take, without NAN(characters)."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, and the numbers beyond it that rcl reads."""


class _Dumper(yaml.SafeDumper):
    """Writes `_Text` in double quotation marks, which nobody can take for anything else."""


class _Text(str):
    """A value that has to arrive as text."""

    __slots__ = ()


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    if not _STRTOD.match(text):
        return float(loader.construct_yaml_float(node))  # only YAML 1.1 has it: .inf, 1_0.5, 1:30.5
    return float.fromhex(text) if "x" in text.lower() else float(text)


_Loader.add_implicit_resolver(FLOAT_TAG, _STRTOD, list("-+.0123456789iInN"))
_Loader.add_constructor(FLOAT_TAG, _construct_float)
_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def load(text: str) -> Any:
    """Read YAML with numbers as rcl reads them; yaml.YAMLError where it is none."""
    return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader


def dump_parameters(owner: str, values: Mapping[str, object]) -> str:
    """A parameter file: `values` of the node `owner`. Text arrives as text, whatever it says."""
    marked = {name: _marked(value) for name, value in values.items()}
    content = {owner: {"ros__parameters": marked}}
    return yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True)


def _marked(value: object) -> object:
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return _Text(value) if isinstance(value, str) else value
