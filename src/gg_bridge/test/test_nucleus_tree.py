"""The configuration tree with its times: the rules that both nuclei share."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gg_bridge.testing.configuration import ConfigurationConflict, ConfigurationTree, NoSuchKey
from vla_core.errors import ConfigError

KEYS = st.sampled_from(["a", "b", "C", "c", "model"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


def unique_keys(value: Any) -> bool:
    if not isinstance(value, dict):
        return True
    return len({key.casefold() for key in value}) == len(value) and all(map(unique_keys, value.values()))


OBJECTS = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda below: st.dictionaries(KEYS, st.one_of(LEAVES, below), max_size=3),
    max_leaves=8,
).filter(unique_keys)


def tree(value: dict[str, Any], timestamp_ms: int = 10) -> ConfigurationTree:
    made = ConfigurationTree()
    made.merge(value, timestamp_ms)
    return made


def folded(value: Any) -> Any:
    """Without the case of keys, and with booleans unlike numbers."""
    if isinstance(value, dict):
        return {key.casefold(): folded(item) for key, item in value.items()}
    return (type(value).__name__, value)


@given(OBJECTS)
def test_what_was_merged_is_read(value: dict[str, Any]) -> None:
    assert folded(tree(value).value()) == folded(value)


@given(OBJECTS, OBJECTS)
def test_merging_twice_changes_nothing_more(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = tree(one)
    made.merge(two, 11, replace=True)
    before = folded(made.value())
    assert made.merge(two, 12, replace=True).changed == ()
    assert folded(made.value()) == before


@given(OBJECTS, OBJECTS, st.integers(0, 20))
def test_changed_is_exactly_what_changed_and_outdated_what_was_refused(
    one: dict[str, Any], two: dict[str, Any], timestamp_ms: int
) -> None:
    made = tree(one)
    before = {tuple(key.casefold() for key in path): folded(value) for path, value in made.leaves()}
    change = made.merge(two, timestamp_ms, replace=True)
    after = {tuple(key.casefold() for key in path): folded(value) for path, value in made.leaves()}
    changed = {tuple(key.casefold() for key in path) for path in change.changed}
    assert changed == {path for path in after if after[path] != before.get(path)}
    outdated = {tuple(key.casefold() for key in path) for path in change.outdated}
    assert all(after[path] == before[path] for path in outdated)
    if timestamp_ms >= 10:
        assert not outdated


@given(OBJECTS, OBJECTS)
def test_defaults_never_change_what_is_there(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = tree(one)
    before = dict(made.leaves())
    made.add_defaults(two)
    after = dict(made.leaves())
    assert all(after[path] == value for path, value in before.items())


@given(OBJECTS, OBJECTS)
def test_a_reset_of_everything_leaves_the_defaults(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = tree(one)
    made.reset([""], two)
    assert folded(made.value()) == folded(two)


@given(OBJECTS, OBJECTS)
def test_a_copy_goes_its_own_way(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = tree(one)
    before = copy.deepcopy(made.value())
    made.copy().merge(two, 11, replace=True)
    assert made.value() == before


@given(OBJECTS, OBJECTS)
def test_a_refused_merge_changes_nothing(one: dict[str, Any], two: dict[str, Any]) -> None:
    made = tree(one)
    before = copy.deepcopy(made.value())
    try:
        made.merge(two, 11)
    except ConfigurationConflict:
        assert made.value() == before


def test_a_leaf_is_read_with_its_name() -> None:
    made = tree({"model": {"uri": "a", "none": None, "list": [1]}})
    assert made.read(("model", "uri")) == {"uri": "a"}
    assert made.read(("model", "none")) == {"none": None}
    assert made.read(("model",)) == {"uri": "a", "none": None, "list": [1]}
    assert made.value(("MODEL", "URI")) == "a"


@pytest.mark.parametrize("path", [("x",), ("model", "x"), ("model", "uri", "x")])
def test_what_is_not_there_is_not_found(path: tuple[str, ...]) -> None:
    with pytest.raises(NoSuchKey, match="/".join(path)):
        tree({"model": {"uri": "a"}}).read(path)


def test_each_leaf_has_its_own_time() -> None:
    made = tree({"old": 1}, 10)
    made.merge({"new": 1}, 20)
    change = made.merge({"old": 2, "new": 2}, 15)
    assert (change.changed, change.outdated) == ((("old",),), (("new",),))
    assert made.value() == {"old": 2, "new": 1}


def test_an_unchanged_value_gets_the_new_time() -> None:
    made = tree({"x": 1}, 10)
    assert made.merge({"x": 1}, 20).changed == ()
    assert made.merge({"x": 2}, 15).outdated == (("x",),)


def test_true_is_not_one() -> None:
    assert tree({"x": 1}).merge({"x": True}, 11).changed == (("x",),)


@pytest.mark.parametrize("update", [{"model": 1}, {"leaf": {"x": 1}}, {"model": {"uri": {"x": 1}}}])
def test_a_leaf_and_a_branch_do_not_take_each_others_place(update: dict[str, Any]) -> None:
    made = tree({"model": {"uri": "a"}, "leaf": 1})
    with pytest.raises(ConfigurationConflict):
        made.merge(update, 11)
    assert made.merge(update, 11, replace=True).changed


def test_a_reset_goes_back_to_the_default_or_to_nothing() -> None:
    defaults = {"model": {"uri": "a"}, "a/b": 1}
    made = tree({"model": {"uri": "b", "extra": 1}, "a/b": 2, "gone": 3})
    change = made.reset(["/model/uri", "/a~1b", "/gone", "/never/was"], defaults)
    assert made.value() == {"model": {"uri": "a", "extra": 1}, "a/b": 1}
    assert set(change.changed) == {("model", "uri"), ("a/b",), ("gone",)}


def test_a_pointer_begins_with_a_slash() -> None:
    with pytest.raises(ConfigError, match="JSON pointer"):
        tree({}).reset(["model"], {})
