"""Documents: links lead somewhere, and nothing in them belongs to one machine."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise, zip_longest
from pathlib import Path

import pytest

from evergreen.commands import train

ROOT = Path(__file__).parents[1]
CHECKOUT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


@CHECKOUT
def test_relative_links_resolve() -> None:
    broken = []
    for document in tracked("*.md"):
        for target, _ in LINK.findall(document.read_text()):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


@CHECKOUT
def test_every_picture_is_shown_somewhere() -> None:
    """A curve of a forerunner's training stayed behind."""
    shown = {
        (document.parent / target).resolve()
        for document in tracked("*.md")
        for target, _ in LINK.findall(document.read_text())
    }
    assert [str(path) for path in tracked("docs/*.png") if path.exists() and path not in shown] == []


@CHECKOUT
def test_what_is_trained_is_shipped() -> None:
    """The help named a configuration that there is not."""
    texts = [*train.COMMAND.examples, *(document.read_text() for document in tracked("*.md"))]
    named = {name for text in texts for name in re.findall(r"evergreen train ([a-z_]+)(?=[\s`]|$)", text)}
    assert named
    for name in named:
        assert (ROOT / f"src/vla_training/vla_training/configs/{name}.yaml").exists(), name


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/containers.md",
        "docs/deltas.md",
        "docs/models.md",
        "docs/release.md",
        "docs/training.md",
    ],
)
def test_commands_can_be_typed_as_they_stand(name: str) -> None:
    """The first ones had their folder, later ones had not, and nobody said why."""
    lines = (ROOT / name).read_text().splitlines()
    entered = next(number for number, line in enumerate(lines) if line.startswith("source .venv/bin/activate"))
    assert not [line for line in lines if ".venv/bin/" in line and ".venv/bin/activate" not in line]
    assert not [line for line in lines[:entered] if line.startswith("evergreen ")]


def test_recipes_are_written_and_checked_as_the_document_says(tmp_path: Path) -> None:
    """What the last command read, none had written; and the model's version was not the one that is shipped."""
    lines = (ROOT / "docs/containers.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    python -m gg_bridge.recipes")]
    script = "\n".join(commands).replace("python ", f"{shlex.quote(sys.executable)} ").replace("…", "a" * 64)
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    for name, version in re.findall(r"--model (\S+)@(\S+)", script):
        assert json.loads((ROOT / f"models/{name}/manifest.json").read_text())["version"] == version


def test_whatever_the_first_steps_make_is_removed_in_the_end() -> None:
    """A user with a living access key, a group and a bucket stayed behind."""
    made, _, rest = (ROOT / "docs/release.md").read_text().partition("### Cleaning up")
    removed = rest.partition("## How it works")[0]
    things = {word.removeprefix("keys-and-") for word in re.findall(r"aws (?:iot|iam) create-([a-z-]+)", made)}
    assert {"user", "access-key", "policy", "role", "role-alias", "thing", "thing-group", "certificate"} == things
    assert things <= set(re.findall(r"aws (?:iot|iam) delete-([a-z-]+)", removed))
    groups = set(re.findall(r"create-thing-group --thing-group-name (\S+)", made))
    assert groups == set(re.findall(r"delete-thing-group --thing-group-name (\S+)", removed))
    assert set(re.findall(r"aws s3 mb (\S+?)`", made)) == set(re.findall(r"aws s3 rb (\S+)", removed)) != set()


def test_lines_of_the_processes_diagram_meet() -> None:
    """They ended beside what they were to lead to."""
    block = (ROOT / "docs/architecture.md").read_text().split("```")[1].splitlines()
    loose = [
        (above, below, column)
        for above, below in pairwise(block)
        for column, (over, under) in enumerate(zip_longest(above, below, fillvalue=" "))
        if (over in "│▲" and under not in "│└┘") or (under in "│▲└┘" and over == " ")
    ]
    assert loose == []
