"""What the bridge remembers across its own restarts; it lies in the store, and is lost with it.

A Greengrass nucleus restarts the component when it pleases: Lite about ten seconds after a change of configuration,
which is in the middle of fetching or swapping. So what was asked for and how it ended is written down before anybody is
told of it, by one rename.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gg_bridge.configuration import ModelConfiguration
from vla_core.errors import ConfigError
from vla_core.store.durable import replace_text
from vla_core.swap import NEXT_TRY

FORMAT = 1
KEPT_REFUSALS = 200
"""Nobody deploys more broken models than that and then the first of them again."""
FILE_NAME = "memory.json"
ASIDE_NAME = "memory.unreadable.json"
MODE = 0o600
"""The address may be a presigned one: whoever reads it can fetch the model."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The latest wish, how far it came, and what was refused.

    Attributes:
        generation: counts the wishes, so that the same wish, made again after another, is a request of its own.
        digest: of the latest wish; empty before the first.
        wish: that wish.
        label: the model it turned out to be, as `name@version`; empty until it is in the store.
        outcome: how it ended; empty while it is under way.
        reason: why it ended so.
        lost: how often the policy forgot the request, that is, ended while it worked on it.
        put_off: how often the policy refused it for what may be over later.
        good_label, good_prompt: of the last wish that succeeded.
        complaint: digest of the last configuration that could not be read, which was reported.
        refused: payload digest to the reason, the latest last.
    """

    generation: int = 0
    digest: str = ""
    wish: ModelConfiguration = field(default_factory=ModelConfiguration)
    label: str = ""
    outcome: str = ""
    reason: str = ""
    lost: int = 0
    put_off: int = 0
    good_label: str = ""
    good_prompt: str = ""
    complaint: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def request_id(self) -> str:
        """The same after every restart of the bridge, another for every wish."""
        return f"{self.digest}-{self.generation}" if self.digest else ""

    @property
    def asked_id(self) -> str:
        """Under which the policy is asked: another for each try, since it answers one that it knows from memory."""
        return f"{self.request_id}{NEXT_TRY}{self.put_off + 1}" if self.put_off else self.request_id

    @property
    def is_under_way(self) -> bool:
        """Whether a wish waits for its end."""
        return bool(self.digest) and not self.outcome

    def with_refusal(self, payload_digest: str, reason: str) -> Memory:
        """One more model that must not be tried again by itself."""
        refused = {key: old for key, old in self.refused.items() if key != payload_digest} | {payload_digest: reason}
        for key in list(refused)[: max(0, len(refused) - KEPT_REFUSALS)]:
            del refused[key]
        return replace(self, refused=refused)

    def without_refusal(self, payload_digest: str) -> Memory:
        """That model may be tried again."""
        return replace(self, refused={key: old for key, old in self.refused.items() if key != payload_digest})


def load(folder: Path) -> Memory:
    """Read `memory.json` in `folder`; an empty memory where there is none.

    Raises:
        ConfigError: the file is there, and nonsense; it was not this program that wrote it.
    """
    path = folder / FILE_NAME
    try:
        return _parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error!r}") from error


def recall(folder: Path, log: Callable[[str, bool], None]) -> Memory:
    """What is remembered; where that cannot be read, it is put aside and the bridge begins anew.

    Nobody may be near the robot to delete a file, and the next deployment must reach it all the same.
    """
    try:
        return load(folder)
    except ConfigError as error:
        log(f"{error}; it is put aside as {ASIDE_NAME}, and the bridge begins anew", True)
        with contextlib.suppress(OSError):
            (folder / FILE_NAME).replace(folder / ASIDE_NAME)
        return Memory(generation=secrets.randbelow(1 << 31))  # so that no request has the id of an earlier one


def save(folder: Path, memory: Memory) -> None:
    """Replace the file in one step; after a power cut it is the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / FILE_NAME, json.dumps({"format": FORMAT, **asdict(memory)}, indent=1) + "\n", MODE)


def _parse(raw: dict[str, Any]) -> Memory:
    if raw.pop("format") != FORMAT:
        raise ValueError("written by another release")
    memory = Memory(**raw | {"wish": ModelConfiguration(**raw["wish"]), "refused": dict(raw["refused"])})
    texts = (memory.digest, memory.label, memory.outcome, memory.reason, memory.good_label, memory.complaint)
    if not isinstance(memory.generation, int) or not all(isinstance(text, str) for text in texts):
        raise TypeError("a value of the wrong type")
    return memory
