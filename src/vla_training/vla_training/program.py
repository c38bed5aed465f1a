"""What `evergreen train` does once its arguments are read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vla_core.errors import ConfigError
from vla_training.config import load_config

SHIPPED = Path(__file__).parent / "configs"


def find_config(name: str) -> Path:
    """A YAML file by its path, or a shipped one by its name.

    Raises:
        ConfigError: there is neither.
    """
    for path in (SHIPPED / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    raise ConfigError(f"no configuration {name!r}: it is neither a file nor one of {known}")


def train(arguments: argparse.Namespace) -> int:
    """Train what `arguments.config` describes.

    Raises:
        EvergreenError: the configuration or the data cannot work.
    """
    path = find_config(arguments.config)
    config = load_config(path)
    import torch  # noqa: PLC0415  takes long, and a mistake in the configuration is told without it

    from vla_training import train as training  # noqa: PLC0415  as above

    folder = arguments.out or Path("out/train") / path.stem
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    model = training.train(config, folder, {"config": path.name})
    print(f"model: {model}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"config": path.name, "model": str(model)}) + "\n", encoding="utf-8")
    return 0
