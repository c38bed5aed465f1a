"""Launch files as trees of elements that remember their lines.

Document type declarations are refused, so neither external nor exploding entities can come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from evergreen.launch.errors import LaunchError, Place

ENDINGS = (".launch.xml", ".xml", ".launch")
"""The file names that launch_xml claims."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, its attributes as written, and its children in order."""

    tag: str
    attributes: Mapping[str, str]
    children: tuple[Element, ...]
    place: Place

    def named(self, tag: str) -> tuple[Element, ...]:
        """The children with this tag."""
        return tuple(child for child in self.children if child.tag == tag)


@dataclass(slots=True)
class _Open:
    tag: str
    attributes: dict[str, str]
    place: Place
    children: list[Element] = field(default_factory=list)

    def close(self) -> Element:
        return Element(self.tag, self.attributes, tuple(self.children), self.place)


class _Builder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._open: list[_Open] = []
        self._root: Element | None = None

    def build(self, data: bytes) -> Element:
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            message = expat.ErrorString(error.code)
            raise LaunchError(f"{self._path}:{error.lineno}: no well-formed XML: {message}") from error
        if self._root is None:
            raise LaunchError(f"{self._path}: no element at all")
        return self._root

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._open.append(_Open(tag, attributes, Place(self._path, self._parser.CurrentLineNumber, tag)))

    def _end(self, _tag: str) -> None:
        element = self._open.pop().close()
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element

    def _text(self, text: str) -> None:
        if text.strip():
            line = self._parser.CurrentLineNumber
            raise LaunchError(f"{self._path}:{line}: text {text.strip()!r} between elements means nothing here")

    def _doctype(self, *_: object) -> None:
        line = self._parser.CurrentLineNumber
        raise LaunchError(f"{self._path}:{line}: document type declarations and entities are not allowed")


def read(path: Path) -> Element:
    """Read one launch file.

    Raises:
        LaunchError: the file is missing, is no XML, or is a launch file of another language.
    """
    if path.name.endswith((".py", ".yaml", ".yml")):
        raise LaunchError(f"{path}: only XML launch files can be read here; this one needs `ros2 launch`")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LaunchError(f"launch file {path}: {error.strerror or error}") from error
    return _Builder(path).build(data)
