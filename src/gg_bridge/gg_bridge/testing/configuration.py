"""A component's configuration as both nuclei keep it: a tree whose every leaf has the time of its last change.

Pure: times are given in, milliseconds since 1970. Keys ignore case and keep the spelling they came with; lists and null
are leaves; an empty object is a branch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vla_core.errors import ConfigError, EvergreenError

KeyPath: TypeAlias = tuple[str, ...]

DEFAULT_TIMESTAMP_MS = 1
"""A recipe's defaults are older than everything else, so that whatever was set survives them."""


class ConfigurationConflict(EvergreenError):  # noqa: N818 (named as in the nucleus)
    """A value where a branch is, or a branch where a value is."""


class NoSuchKey(EvergreenError):  # noqa: N818 (an answer, as much as an error)
    """There is nothing at a key path."""


@dataclass(slots=True)
class _Leaf:
    name: str
    value: Any
    timestamp_ms: int


@dataclass(slots=True)
class _Branch:
    name: str
    children: dict[str, _Leaf | _Branch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What a merge did: the leaves with a new value, in the merge's order, and those whose value was newer already."""

    changed: tuple[KeyPath, ...] = ()
    outdated: tuple[KeyPath, ...] = ()

    def __add__(self, other: Change) -> Change:
        return Change(tuple(dict.fromkeys(self.changed + other.changed)), self.outdated + other.outdated)


class ConfigurationTree:
    """The tree. A refused change changes nothing."""

    def __init__(self) -> None:
        self._root = _Branch("")

    def copy(self) -> ConfigurationTree:
        """An independent tree with the same content, for going back to."""
        twin = ConfigurationTree()
        twin._root = copy.deepcopy(self._root)
        return twin

    def value(self, key_path: Sequence[str] = ()) -> Any:
        """The value of a leaf, or a branch as an object.

        Raises:
            NoSuchKey: there is nothing.
        """
        return _plain(self._find(key_path))

    def read(self, key_path: Sequence[str] = ()) -> dict[str, Any]:
        """What GetConfiguration answers: a leaf comes as `{leaf: value}`.

        Raises:
            NoSuchKey: there is nothing.
        """
        node = self._find(key_path)
        return {node.name: copy.deepcopy(node.value)} if isinstance(node, _Leaf) else _plain(node)

    def merge(
        self, value: Mapping[str, Any], timestamp_ms: int, key_path: Sequence[str] = (), *, replace: bool = False
    ) -> Change:
        """Write every leaf of `value` below `key_path`.

        Args:
            value: an object; an empty one makes a branch.
            timestamp_ms: a leaf that was changed later than this keeps its value.
            key_path: below which to write; missing branches are made.
            replace: let a branch take a leaf's place, and the other way round.

        Raises:
            ConfigurationConflict: without `replace`, a leaf meets a branch.
        """
        for key in reversed(key_path):
            value = {key: value}
        if not replace:
            _check(self._root, value, ())
        writer = _Writer(timestamp_ms)
        writer.write(self._root, value, ())
        return Change(tuple(writer.changed), tuple(writer.outdated))

    def add_defaults(self, value: Mapping[str, Any]) -> Change:
        """Add the leaves whose keys are missing. Whatever is there stays, also what the defaults have no longer."""
        return self.merge(_missing(self._root, value), DEFAULT_TIMESTAMP_MS)

    def reset(self, pointers: Sequence[str], defaults: Mapping[str, Any]) -> Change:
        """Put what JSON pointers name back to the defaults; what has no default goes. "" is everything.

        `Change.changed` has the leaves whose value is another one now, or gone.
        """
        before = dict(self.leaves())
        for pointer in pointers:
            path = _parse_pointer(pointer)
            self._delete(path)
            chosen = _at(defaults, path)
            if chosen is not _NOTHING:
                self._restore(path, chosen)
        after = dict(self.leaves())
        changed = [path for path in {**before, **after} if before.get(path, _NOTHING) != after.get(path, _NOTHING)]
        return Change(tuple(changed))

    def leaves(self) -> Iterator[tuple[KeyPath, Any]]:
        """Every leaf with its path."""
        yield from _leaves(self._root, ())

    def _restore(self, path: KeyPath, value: Any) -> None:
        if not path:
            self.merge(value, DEFAULT_TIMESTAMP_MS)
        else:
            self.merge({path[-1]: value}, DEFAULT_TIMESTAMP_MS, path[:-1], replace=True)

    def _find(self, key_path: Sequence[str]) -> _Leaf | _Branch:
        node: _Leaf | _Branch = self._root
        for key in key_path:
            child = node.children.get(key.casefold()) if isinstance(node, _Branch) else None
            if child is None:
                raise NoSuchKey(f"the configuration has no {'/'.join(key_path)}")
            node = child
        return node

    def _delete(self, path: KeyPath) -> None:
        if not path:
            self._root = _Branch("")
            return
        try:
            parent = self._find(path[:-1])
        except NoSuchKey:
            return
        if isinstance(parent, _Branch):
            parent.children.pop(path[-1].casefold(), None)


class _Writer:
    def __init__(self, timestamp_ms: int) -> None:
        self._timestamp_ms = timestamp_ms
        self.changed: list[KeyPath] = []
        self.outdated: list[KeyPath] = []

    def write(self, branch: _Branch, value: Mapping[str, Any], path: KeyPath) -> None:
        for key, item in value.items():
            here = (*path, key)
            old = branch.children.get(key.casefold())
            if isinstance(item, Mapping):
                if not isinstance(old, _Branch):
                    old = branch.children[key.casefold()] = _Branch(key)
                self.write(old, item, here)
            elif isinstance(old, _Leaf):
                self._update(old, item, here)
            else:
                branch.children[key.casefold()] = _Leaf(key, copy.deepcopy(item), self._timestamp_ms)
                self.changed.append(here)

    def _update(self, leaf: _Leaf, value: Any, path: KeyPath) -> None:
        if leaf.timestamp_ms > self._timestamp_ms:
            self.outdated.append(path)
            return
        leaf.timestamp_ms = self._timestamp_ms
        if not _same(leaf.value, value):
            leaf.value = copy.deepcopy(value)
            self.changed.append(path)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return type(one) is type(other) and bool(one == other)


def _check(branch: _Branch, value: Mapping[str, Any], path: KeyPath) -> None:
    for key, item in value.items():
        old = branch.children.get(key.casefold())
        here = "/".join((*path, key))
        if isinstance(item, Mapping):
            if isinstance(old, _Leaf):
                raise ConfigurationConflict(f"{here} has a value, so nothing fits below it")
            if isinstance(old, _Branch):
                _check(old, item, (*path, key))
        elif isinstance(old, _Branch):
            raise ConfigurationConflict(f"{here} is an object, so it cannot take the value {item!r}")


def _missing(branch: _Branch, defaults: Mapping[str, Any]) -> dict[str, Any]:
    missing: dict[str, Any] = {}
    for key, item in defaults.items():
        old = branch.children.get(key.casefold())
        if old is None:
            missing[key] = item
        elif isinstance(old, _Branch) and isinstance(item, Mapping):
            below = _missing(old, item)
            if below:
                missing[key] = below
    return missing


def _plain(node: _Leaf | _Branch) -> Any:
    if isinstance(node, _Leaf):
        return copy.deepcopy(node.value)
    return {child.name: _plain(child) for child in node.children.values()}


def _leaves(node: _Branch, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    for child in node.children.values():
        here = (*path, child.name)
        if isinstance(child, _Leaf):
            yield here, child.value
        else:
            yield from _leaves(child, here)


_NOTHING = object()


def _parse_pointer(pointer: str) -> KeyPath:
    if pointer and not pointer.startswith("/"):
        raise ConfigError(f"reset {pointer!r} is no JSON pointer: it begins with /, or is empty for everything")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _at(value: Any, path: KeyPath) -> Any:
    for key in path:
        if not isinstance(value, Mapping):
            return _NOTHING
        value = next((item for name, item in value.items() if name.casefold() == key.casefold()), _NOTHING)
    return value
