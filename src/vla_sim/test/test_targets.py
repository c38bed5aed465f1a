"""The cube that a prompt names."""

import pytest

from vla_core.errors import ConfigError
from vla_sim.scene import OBJECTS
from vla_sim.targets import MOST_CUBES, target_of


def test_a_table_has_as_many_cubes_as_a_scene_has_objects():
    assert len(OBJECTS) == MOST_CUBES


def test_the_one_cube_that_is_named():
    assert target_of("Put the WHITE cube away") == "white"
    assert target_of("the coloured one: yellow!") == "yellow"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [("", "prompt '' names no cube"), ("the black one, not the white one", "names black and white; it must name one")],
)
def test_none_or_several_are_never_guessed(prompt: str, reason: str):
    with pytest.raises(ConfigError, match=reason):
        target_of(prompt)
