"""Recipes: what each way needs, what both nuclei take, and what the check finds."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gg_bridge.recipes import CLASSIC, LITE, NUCLEI, WAYS, Facts, RecipeError, check, check_text, render, to_text
from gg_bridge.recipes import configuration_update as update_of
from gg_bridge.recipes.__main__ import main
from gg_bridge.recipes.check import LIMIT_BYTES
from gg_bridge.recipes.examples import examples
from gg_bridge.recipes.facts import ARTIFACT_LIMIT_BYTES, NucleusKind, Way
from vla_core.signing import KEYS_VARIABLE, REQUIRE_VARIABLE

SHA = "a" * 64
IMAGE = f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/evergreen@sha256:{SHA}"
FACTS: dict[Way, Facts] = {
    "robot": Facts("1.0.0", IMAGE),
    "image": Facts("1.0.0", IMAGE, model="evergreen-white@1.1.0"),
    "artifact": Facts("1.0.0", IMAGE, "evergreen-white@1.1.0", "s3://fleet/white-1.1.0.tar.gz", SHA, 26_000_000),
    "script": Facts("1.0.0", IMAGE, "evergreen-white@1.1.0", "https://host/white-1.1.0.tar.gz?a=1&b=2", SHA),
}
EVERY = [(way, nucleus) for way in WAYS for nucleus in NUCLEI]


def run_of(recipe: dict[str, Any]) -> str:
    return str(recipe["Manifests"][0]["Lifecycle"]["run"]["Script"])


@pytest.mark.parametrize(("way", "nucleus"), EVERY)
def test_every_recipe_is_valid_small_and_the_same_twice(way: Way, nucleus: NucleusKind) -> None:
    recipe = render(way, nucleus, FACTS[way])
    text = to_text(recipe)
    assert check_text(text) == recipe
    assert len(text.encode()) < LIMIT_BYTES / 3
    assert to_text(render(way, nucleus, FACTS[way])) == text


@pytest.mark.parametrize(("way", "nucleus"), EVERY)
def test_containers_run_in_the_foreground_shut_in_and_unprivileged(way: Way, nucleus: NucleusKind) -> None:
    run = run_of(render(way, nucleus, FACTS[way]))
    assert "\nexec docker run --rm " in run
    for demand in ("--read-only", "--cap-drop ALL", "no-new-privileges", "--network host", "--ipc host"):
        assert demand in run
    assert not re.search(r"--privileged|--detach|\s-d\s|RequiresPrivilege", run)


def test_the_robot_gets_nothing_of_the_nucleus() -> None:
    text = to_text(render("robot", CLASSIC, FACTS["robot"]))
    assert "accessControl" not in text
    assert "SVCUID" not in text
    assert "--device" in text


@pytest.mark.parametrize("way", ["image", "artifact", "script"])
@pytest.mark.parametrize("nucleus", NUCLEI)
def test_a_model_may_only_report(way: Way, nucleus: NucleusKind) -> None:
    access = render(way, nucleus, FACTS[way])["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]
    grants = [
        (operation, resource)
        for policies in access.values()
        for policy in policies.values()
        for operation in policy["operations"]
        for resource in policy["resources"]
    ]
    report = ("aws.greengrass#PublishToIoTCore", "evergreen/{iot:thingName}/update")
    shadow = ("aws.greengrass#PublishToIoTCore", "$aws/things/{iot:thingName}/shadow/name/evergreen/update")
    assert grants == [report, shadow]


def test_the_two_nuclei_differ_where_they_must() -> None:
    lite, classic = (render("image", nucleus, FACTS["image"]) for nucleus in (LITE, CLASSIC))
    assert lite["Manifests"][0]["Platform"]["runtime"] == "aws_nucleus_lite"
    assert "shutdown" not in lite["Manifests"][0]["Lifecycle"]
    assert "ComponentDependencies" not in lite
    assert "docker stop" in classic["Manifests"][0]["Lifecycle"]["shutdown"]["Script"]
    assert "aws.greengrass.DockerApplicationManager" in classic["ComponentDependencies"]
    assert "aws.greengrass.TokenExchangeService" in classic["ComponentDependencies"]  # for the private registry


def test_the_image_says_itself_what_it_carries() -> None:
    assert "EVERGREEN_PAYLOAD" not in run_of(render("image", LITE, FACTS["image"]))


def test_an_artifact_is_mounted_and_named_with_its_hash() -> None:
    recipe = render("artifact", LITE, FACTS["artifact"])
    run = run_of(recipe)
    assert '--volume "{artifacts:path}:/opt/evergreen/payload:ro"' in run
    assert "--env EVERGREEN_PAYLOAD=file:/opt/evergreen/payload/white-1.1.0.tar.gz" in run
    assert f"--env EVERGREEN_PAYLOAD_SHA256={SHA} --env EVERGREEN_PAYLOAD_VERSION=1.1.0" in run
    assert [artifact["Uri"] for artifact in recipe["Manifests"][0]["Artifacts"]] == [
        f"docker:{IMAGE}",
        "s3://fleet/white-1.1.0.tar.gz",
    ]


def test_a_script_fetches_into_the_store_and_the_bridge_finds_it_there() -> None:
    lifecycle = render("script", LITE, FACTS["script"])["Manifests"][0]["Lifecycle"]
    wanted = f"model fetch 'https://host/white-1.1.0.tar.gz?a=1&b=2' --sha256 {SHA} --version 1.1.0"
    assert wanted in lifecycle["install"]["Script"]
    assert lifecycle["install"]["Timeout"] > 3600
    assert "EVERGREEN_PAYLOAD='https://host/white-1.1.0.tar.gz?a=1&b=2'" in lifecycle["run"]["Script"]
    assert "CREDENTIALS" not in to_text(render("script", LITE, FACTS["script"]))


@pytest.mark.parametrize(("way", "nucleus"), EVERY)
def test_signatures_can_be_required_of_whatever_takes_a_model(way: Way, nucleus: NucleusKind) -> None:
    """No configuration reached `require_signature`, and no key was in any container: unsigned models were taken."""
    recipe = render(way, nucleus, FACTS[way])
    defaults = recipe["ComponentConfiguration"]["DefaultConfiguration"]
    assert defaults["signatures"] == {"trusted_keys": "", "required": "0"}
    assert defaults["settings"] == "/etc/evergreen"
    lifecycle = recipe["Manifests"][0]["Lifecycle"]
    steps = [lifecycle[name] for name in ("install", "run") if name in lifecycle]
    assert len(steps) == 1 + (way == "script")
    for step in steps:
        assert step["Setenv"][KEYS_VARIABLE] == "{configuration:/signatures/trusted_keys}"
        assert step["Setenv"][REQUIRE_VARIABLE] == "{configuration:/signatures/required}"
        assert step["Setenv"]["EVERGREEN_SETTINGS"] == "{configuration:/settings}"
        assert f"--env {KEYS_VARIABLE} --env {REQUIRE_VARIABLE}" in step["Script"]
        assert '--volume "$EVERGREEN_SETTINGS:/etc/evergreen:ro"' in step["Script"]


@pytest.mark.parametrize("nucleus", NUCLEI)
def test_the_bridge_is_looked_after_also_in_the_robots_image(nucleus: NucleusKind) -> None:
    """The image's own health check asks for the arm, which is in the other container."""
    health = "--health-cmd '/opt/evergreen/workspace/entrypoint health model' --health-start-period 180s"
    scripts = {way: render(way, nucleus, FACTS[way])["Manifests"][0]["Lifecycle"] for way in WAYS}
    assert {way for way in WAYS if health in scripts[way]["run"]["Script"]} == {"artifact", "script"}
    assert "--no-healthcheck" in scripts["script"]["install"]["Script"]


def test_only_a_script_that_reads_s3_gets_credentials() -> None:
    facts = Facts("1.0.0", "r.example.org/evergreen:1", uri="s3://fleet/white", sha256=SHA)
    recipe = render("script", LITE, facts)
    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN" in recipe["Manifests"][0]["Lifecycle"]["install"]["Script"]
    assert "aws.greengrass.TokenExchangeService" in recipe["ComponentDependencies"]


def test_an_artifact_above_the_limit_is_refused_with_the_way_out() -> None:
    render("artifact", LITE, Facts("1.0.0", IMAGE, "", "s3://b/m.tar", SHA, ARTIFACT_LIMIT_BYTES))
    with pytest.raises(RecipeError, match=r"2,000,000,001 bytes.*way 'image'.*way 'script'"):
        render("artifact", LITE, Facts("1.0.0", IMAGE, "", "s3://b/m.tar", SHA, ARTIFACT_LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    ("way", "facts"),
    [
        ("artifact", Facts("1.0.0", IMAGE)),
        ("artifact", Facts("1.0.0", IMAGE, uri="https://host/m.tar", sha256=SHA, size_bytes=1)),
        ("artifact", Facts("1.0.0", IMAGE, uri="s3://b/folder", sha256=SHA, size_bytes=1)),
        ("artifact", Facts("1.0.0", IMAGE, uri="s3://b/m.tar", sha256=SHA)),
        ("script", Facts("1.0.0", IMAGE, uri="https://host/m.tar")),
        ("image", Facts("1.0.0", IMAGE, uri="s3://b/m.tar", sha256=SHA)),
    ],
)
def test_facts_that_do_not_suffice_are_refused(way: Way, facts: Facts) -> None:
    with pytest.raises(RecipeError):
        render(way, LITE, facts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "1.0"},
        {"version": "v1.0.0"},
        {"image": ""},
        {"image": "-v/:/host"},
        {"image": "a b"},
        {"model": "white"},
        {"uri": "https://host/'; reboot; '"},
        {"uri": "https://host/{a}"},
        {"uri": "https://host/$HOME"},
        {"uri": "https://host/\nreboot"},
        {"sha256": "A" * 64},
    ],
)
def test_facts_that_could_become_program_text_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(RecipeError):
        Facts(**{"version": "1.0.0", "image": IMAGE, **wrong})  # type: ignore[arg-type]


def test_a_deployment_clears_what_earlier_ones_configured() -> None:
    assert update_of("image") == {"reset": ["/model"]}
    assert update_of("robot") == {}


def broken(way: Way, nucleus: NucleusKind, *path: str | int, value: object) -> dict[str, Any]:
    recipe: Any = copy.deepcopy(render(way, nucleus, FACTS[way]))
    part = recipe
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert isinstance(recipe, dict)
    return recipe


LIFECYCLE = ("Manifests", 0, "Lifecycle")


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (broken("image", LITE, *LIFECYCLE, "shutdown", value={"Script": "true"}), "Greengrass Lite has no such step"),
        (broken("image", LITE, *LIFECYCLE, "run", "Skipif", value="onpath docker"), "Greengrass Lite does not know it"),
        (broken("image", LITE, *LIFECYCLE, "run", value={"script": "true"}), "'script' was unexpected"),
        (broken("image", CLASSIC, *LIFECYCLE, "run", "Script", value="echo ${HOME}"), "write $NAME"),
        (broken("robot", LITE, *LIFECYCLE, "run", "Script", value="echo {configuration:/a}"), "by Setenv"),
        (broken("robot", LITE, *LIFECYCLE, "run", "Script", value="docker run \\\n --rm -d x"), "no --detach"),
        (broken("image", LITE, "ComponentVersion", value="1.0"), "ComponentVersion"),
        (broken("image", LITE, "Manifests", value=[]), "Manifests"),
        (broken("image", LITE, "Manifests", 0, "Artifacts", 0, "Uri", value="http://x/y"), "Artifacts/0/Uri"),
        (
            broken(
                "image",
                LITE,
                "ComponentDependencies",
                value={"aws.greengrass.DockerApplicationManager": {"VersionRequirement": "1"}},
            ),
            "fetches images itself",
        ),
        (
            broken(
                "image",
                LITE,
                "ComponentConfiguration",
                "DefaultConfiguration",
                "accessControl",
                value={"s": {"p": {"operations": ["aws.greengrass#PublishToIoTCore"], "resources": ["*"]}}},
            ),
            "resources",
        ),
    ],
)
def test_the_check_finds_what_a_nucleus_or_aws_would_refuse(recipe: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        check(recipe)


def test_text_that_is_too_long_or_no_json_is_refused() -> None:
    recipe = render("image", LITE, FACTS["image"]) | {"ComponentPublisher": "x" * LIMIT_BYTES}
    with pytest.raises(RecipeError, match=r"at most 16000"):
        check_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match="no JSON"):
        check_text("{")


def test_the_program_writes_and_checks(tmp_path: Any) -> None:
    words = [sys.executable, "-m", "gg_bridge.recipes"]
    made = subprocess.run([*words, "image", "--image", IMAGE], capture_output=True, text=True, check=True)
    file = tmp_path / "recipe.json"
    file.write_text(made.stdout)
    checked = subprocess.run([*words, "--check", str(file)], capture_output=True, text=True, check=True)
    assert "dev.evergreen.Model 1.0.0" in checked.stdout
    file.write_text(made.stdout.replace("Manifests", "manifests"))
    refused = subprocess.run([*words, "--check", str(file)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


def test_the_program_says_what_is_missing_and_which_file_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said that image '' was no reference, and "[Errno 2]"."""
    text, binary = tmp_path / "README.md", tmp_path / "image.png"
    text.write_text("# no recipe")
    binary.write_bytes(b"\xff\xd8")
    for words, told in (
        ([], "name what to write: robot, image, artifact, script"),
        (["robot"], "--image is missing"),
        (["--check", str(tmp_path / "robot.json")], f"{tmp_path}/robot.json: No such file"),
        (["--check", str(text)], f"{text}: the recipe is no JSON"),
        (["--check", str(binary)], f"{binary}: the recipe is no text"),
    ):
        assert main(words) == 2
        assert f"error: {told}" in capsys.readouterr().err


class TestExamples:
    FOLDER = Path(__file__).parents[1] / "recipes"

    def test_those_in_the_repository_are_what_would_be_made_today(self) -> None:
        found = {path.name: path.read_text() for path in self.FOLDER.glob("*.json")}
        assert found == examples(), "run: python -m gg_bridge.recipes --examples src/gg_bridge/recipes"

    def test_they_are_written_and_pass_the_check(self, tmp_path: Path) -> None:
        folder = tmp_path / "new"
        assert main(["--examples", str(folder)]) == 0
        assert {path.name for path in folder.iterdir()} == examples().keys()
        assert main(["--check", *map(str, folder.iterdir())]) == 0
