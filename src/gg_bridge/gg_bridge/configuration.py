"""The component's configuration, `{"model": {"uri", "version", "sha256", "prompt", "swap"}}`, and what may be wrong.

`config.schema.json` beside this file is the truth about it: types, patterns, defaults. Keys that nobody knows are told
of, not refused: Greengrass keeps keys of earlier deployments, and they must not stop later ones.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from gg_bridge.fetch.source import without_secrets
from vla_core.errors import ConfigError

SECTION = "model"
BLUE_GREEN, RESTART = "blue_green", "restart"
_UNSPEAKABLE = re.compile(r"[\0\ud800-\udfff]")
"""JSON can say it, but neither ROS nor UTF-8 can carry it."""
SHOWN_CHARACTERS = 80
"""A value longer than this is cut in messages."""


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of the whole configuration."""
    text = resources.files(__package__ or "gg_bridge").joinpath("config.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@dataclass(frozen=True, slots=True)
class ModelConfiguration:
    """The model that a deployment asks for; the fields are the schema's."""

    uri: str = ""
    version: str = ""
    sha256: str = ""
    prompt: str = ""
    swap: str = BLUE_GREEN

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing: the robot stays as it is."""
        return not self.uri

    @property
    def digest(self) -> str:
        """The same for the same wish, on every robot and after every restart."""
        return _digest(asdict(self))

    @property
    def payload_digest(self) -> str:
        """The same for the same files swapped in the same way; the prompt makes no model good or bad."""
        return _digest({key: value for key, value in asdict(self).items() if key != "prompt"})


def digest_of(document: object) -> str:
    """As `ModelConfiguration.digest`, for a document that is none."""
    return _digest(document)


def _digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse(document: object) -> ModelConfiguration:
    """Read the component's configuration. A missing section or key has its default.

    Raises:
        ConfigError: names the key, the value it has and what is allowed.
    """
    document = {} if document is None else document
    if isinstance(document, Mapping) and document.get(SECTION, {}) is None:
        document = {**document, SECTION: {}}
    if error := best_match(Draft202012Validator(schema()).iter_errors(document)):
        raise ConfigError(_explain(error))
    section = document.get(SECTION, {}) if isinstance(document, Mapping) else {}
    known = ModelConfiguration.__dataclass_fields__
    for key in known:
        if bad := _UNSPEAKABLE.search(section.get(key, "")):
            raise ConfigError(f"configuration {SECTION}.{key} holds {bad[0]!r}, which is no character of a text")
    return ModelConfiguration(**{key: value for key, value in section.items() if key in known})


def unknown_keys(document: object) -> tuple[str, ...]:
    """One sentence for each key of the section that has no effect."""
    section = document.get(SECTION) if isinstance(document, Mapping) else None
    if not isinstance(section, Mapping):
        return ()
    known = tuple(ModelConfiguration.__dataclass_fields__)
    return tuple(_misspelt(str(key), known) for key in section if key not in known)


def _misspelt(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    return f"configuration key {SECTION}.{_printable(key)} is unknown and has no effect; {hint}"


def _explain(error: ValidationError) -> str:
    where = ".".join(map(str, error.absolute_path)) or "the configuration"
    shown = error.instance
    if isinstance(shown, str) and "://" in shown:
        shown = without_secrets(shown)
    value = _printable(json.dumps(shown, ensure_ascii=False, default=repr))
    value = value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"
    return f"configuration {where} is {value}; it has to be {_wanted(error)}"


def _printable(text: str) -> str:
    """One line, whatever is in it."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _wanted(error: ValidationError) -> str:
    rule, schema_part = error.validator_value, error.schema
    description = schema_part.get("description", "") if isinstance(schema_part, Mapping) else ""
    match error.validator:
        case "type":
            is_number = isinstance(error.instance, int | float) and not isinstance(error.instance, bool)
            cure = ", that is, in quotation marks" if rule == "string" and is_number else ""
            return {"string": "text", "object": "an object (a map)"}.get(str(rule), str(rule)) + cure
        case "enum":
            return " or ".join(map(str, rule if isinstance(rule, list) else [rule]))
        case "maxLength":
            return f"at most {rule} characters long"
        case _:
            return f"of the form {rule} ({description})"
