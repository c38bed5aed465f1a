"""Recipes of Evergreen's Greengrass components: what `render` makes, `check` judges.

A recipe is data: it is made from facts by pure functions, and written, uploaded and registered by others.
"""

from gg_bridge.recipes.check import check, check_text
from gg_bridge.recipes.facts import CLASSIC, LITE, MODEL, NUCLEI, ROBOT, WAYS, Facts, NucleusKind, RecipeError, Way
from gg_bridge.recipes.render import configuration_update, render, to_text

__all__ = [
    "CLASSIC",
    "LITE",
    "MODEL",
    "NUCLEI",
    "ROBOT",
    "WAYS",
    "Facts",
    "NucleusKind",
    "RecipeError",
    "Way",
    "check",
    "check_text",
    "configuration_update",
    "render",
    "to_text",
]
