"""Judges a recipe: AWS's format, its limits, and what the nucleus that it is for can do."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, Final

from jsonschema import Draft202012Validator

from gg_bridge.recipes.facts import LITE, NucleusKind, RecipeError

LIMIT_BYTES: Final = 16_000
"""Of a recipe (AWS's quotas say 16 KB; the smaller meaning of it)."""
_VARIABLES: Final = re.compile(
    r"\{(artifacts:(path|decompressedPath)|kernel:rootPath|iot:thingName|work:path|configuration:/[A-Za-z0-9_/.-]+)\}"
)
"""What both nuclei replace."""
_LITE_LACKS: Final = ("shutdown", "recover", "bootstrap")
_DOCKER_MANAGER: Final = "aws.greengrass.DockerApplicationManager"


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON schema of the recipes that we write."""
    text = resources.files(__package__ or "gg_bridge.recipes").joinpath("recipe.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def check(recipe: Mapping[str, Any]) -> None:
    """Whether AWS and the nucleus will take this recipe.

    Raises:
        RecipeError: names each place, what it holds and what is allowed.
    """
    if problems := list(_problems(recipe)):
        raise RecipeError("; ".join(problems))


def check_text(text: str) -> dict[str, Any]:
    """`check` for a recipe as it is uploaded; also its size. Returns the recipe.

    Raises:
        RecipeError: as `check`, or it is no JSON.
    """
    try:
        recipe = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"the recipe is no JSON: {error}") from error
    if (size := len(text.encode())) > LIMIT_BYTES:
        raise RecipeError(f"the recipe has {size} bytes; Greengrass takes at most {LIMIT_BYTES}")
    check(recipe)
    loaded: dict[str, Any] = recipe
    return loaded


def nucleus_of(recipe: Mapping[str, Any]) -> NucleusKind:
    """Whom a valid recipe is for."""
    runtimes = {manifest["Platform"].get("runtime") for manifest in recipe["Manifests"]}
    return "classic" if runtimes == {None} else "lite"


def _problems(recipe: Mapping[str, Any]) -> Iterator[str]:
    errors = sorted(Draft202012Validator(schema()).iter_errors(recipe), key=lambda error: list(map(str, error.path)))
    for error in errors:
        where = "/".join(map(str, error.absolute_path)) or "the recipe"
        yield f"{where}: {error.message[:200]}"
    if errors:
        return
    nucleus = nucleus_of(recipe)
    for index, manifest in enumerate(recipe["Manifests"]):
        yield from _lifecycle_problems(f"Manifests/{index}/Lifecycle", manifest["Lifecycle"], nucleus)
    if nucleus == LITE and _DOCKER_MANAGER in recipe.get("ComponentDependencies", {}):
        yield f"ComponentDependencies: {_DOCKER_MANAGER} does not run on Greengrass Lite, which fetches images itself"


def _lifecycle_problems(where: str, lifecycle: Mapping[str, Any], nucleus: NucleusKind) -> Iterator[str]:
    for name, step in lifecycle.items():
        if nucleus == LITE and name in _LITE_LACKS:
            yield f"{where}/{name}: Greengrass Lite has no such step"
        if name == "Setenv":
            continue
        if nucleus == LITE and "Skipif" in step:
            yield f"{where}/{name}/Skipif: Greengrass Lite does not know it"
        yield from _script_problems(f"{where}/{name}/Script", step["Script"], name)
        for key, value in step.get("Setenv", {}).items():
            yield from _brace_problems(f"{where}/{name}/Setenv/{key}", value)


def _script_problems(where: str, script: str, step: str) -> Iterator[str]:
    yield from _brace_problems(where, script)
    if "{configuration:" in script:
        yield f'{where}: a configuration\'s value would become program text; hand it over by Setenv, as "$NAME"'
    if step == "run" and re.search(r"docker run\b[^\n]*\s(-d|--detach)\b", script.replace("\\\n", " ")):
        yield f"{where}: a detached container succeeds at once, and its death goes unnoticed; no --detach"


def _brace_problems(where: str, text: str) -> Iterator[str]:
    if re.search(r"[{}]", _VARIABLES.sub("", text)):
        yield f"{where}: braces are for recipe variables alone, since Greengrass Lite takes each for one; write $NAME"
