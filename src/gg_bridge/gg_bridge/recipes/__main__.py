"""`python -m gg_bridge.recipes`: write a recipe, or check some.

python -m gg_bridge.recipes robot --nucleus lite --version 1.0.0 --image registry.example.org/evergreen:1
python -m gg_bridge.recipes --check recipe.json another.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gg_bridge.recipes import NUCLEI, WAYS, Facts, RecipeError, check, check_text, render, to_text
from gg_bridge.recipes.check import LIMIT_BYTES
from gg_bridge.recipes.examples import examples
from vla_core.errors import EvergreenError

EXIT_USAGE = 2


def main(words: list[str] | None = None) -> int:
    """Do what was asked and return the exit code."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.check:
            _check(arguments.check)
        elif arguments.examples:
            _write_examples(arguments.examples)
        else:
            _write(arguments)
    except (EvergreenError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gg_bridge.recipes", description="Write a recipe, or check some.")
    parser.add_argument("way", nargs="?", choices=WAYS, help="the robot, or how a model is shipped")
    parser.add_argument("--check", nargs="+", type=Path, metavar="FILE", help="check these instead of writing one")
    parser.add_argument("--examples", type=Path, metavar="FOLDER", help="write one of each kind there instead")
    parser.add_argument("--nucleus", choices=NUCLEI, default="lite")
    parser.add_argument("--version", default="1.0.0", help="of the component")
    parser.add_argument("--image", default="", help="reference of the image, best with a digest")
    parser.add_argument("--model", default="", help="name@version")
    parser.add_argument(
        "--uri", default="", help="of the archive (artifact); what `evergreen model fetch` takes (script)"
    )
    parser.add_argument("--sha256", default="", help="of the archive, or of manifest.json")
    parser.add_argument("--size-bytes", type=int, default=0, help="of the archive (artifact)")
    return parser


def _check(files: list[Path]) -> None:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
            recipe = check_text(text)
        except OSError as error:
            raise RecipeError(f"{file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RecipeError(f"{file}: the recipe is no text: {error}") from error
        except RecipeError as error:
            raise RecipeError(f"{file}: {error}") from error
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        print(f"{file}: {name} {version}, {len(text.encode())} of {LIMIT_BYTES} bytes")


def _write_examples(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in examples().items():
        check_text(text)
        (folder / name).write_text(text, encoding="utf-8")


def _write(arguments: argparse.Namespace) -> None:
    if not arguments.way:
        raise RecipeError(f"name what to write: {', '.join(WAYS)}; or --check FILE, or --examples FOLDER")
    if not arguments.image:
        raise RecipeError("--image is missing: the reference of the image, best with a digest")
    facts = Facts(
        arguments.version,
        arguments.image,
        model=arguments.model,
        uri=arguments.uri,
        sha256=arguments.sha256,
        size_bytes=arguments.size_bytes,
    )
    recipe = render(arguments.way, arguments.nucleus, facts)
    check(recipe)
    sys.stdout.write(to_text(recipe))


if __name__ == "__main__":
    sys.exit(main())
