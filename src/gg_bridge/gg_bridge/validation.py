"""Judging a configuration that a deployment proposes, before it is accepted (classic nucleus).

What can be known at once is judged: the configuration itself, and the manifest, without which nothing is fetched. The
files, and how the model behaves, are judged later: by the store and by the policy.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from gg_bridge.configuration import ModelConfiguration, parse
from gg_bridge.fetch.source import without_secrets
from gg_bridge.robot import Robot
from vla_core.errors import ConfigError, EvergreenError
from vla_core.manifest import Manifest

LIMIT_S = 12.0
"""The nucleus fails the deployment after 20 s of silence; a few of them may pass before we are asked."""
UNKNOWN_ROBOT = (
    "/policy has never said which cameras and joints there are. Let it run, even if it does not drive, and deploy again"
)
"""A guess would let through what has to be taken back later, on a nucleus that can still say no."""
T = TypeVar("T")

Preview = Callable[[ModelConfiguration], Manifest | None]
"""The manifest of the model wished for, checked against its hash, version and signature; None where only fetching the
whole archive can tell. It may raise EvergreenError, and take long."""


def judge(
    document: object,
    *,
    robot: Callable[[], Robot | None],
    preview: Preview,
    present: Callable[[ModelConfiguration], bool],
    refusal: Callable[[ModelConfiguration], str],
    limit_s: float = LIMIT_S,
) -> str:
    """Why the deployment must not set this configuration; empty where it may.

    Args:
        document: the component's whole configuration as it would be.
        robot: asks what this robot has, meanwhile; None where nobody said so yet.
        preview: see Preview.
        present: whether that wish is the one in force: no change is always right, as when a deployment is rolled back.
        refusal: why that wish was refused before; empty where it was not.
        limit_s: how long it may take.
    """
    try:
        wish = parse(document)
    except ConfigError as error:
        return str(error)
    if wish.is_empty or present(wish):
        return ""
    if reason := refusal(wish):
        return f"this robot refused it before: {reason}. Deploy another version, or call gg_bridge/retry on the robot"
    try:
        return _judge_model(wish, robot, preview, limit_s)
    except EvergreenError as error:
        return str(error)


def _judge_model(wish: ModelConfiguration, robot: Callable[[], Robot | None], preview: Preview, limit_s: float) -> str:
    until_s = time.monotonic() + limit_s
    asked, previewed = _begun(robot, "robot"), _begun(lambda: preview(wish), "preview")
    try:
        manifest = previewed.result(limit_s)
    except TimeoutError:
        late = f"the manifest of {without_secrets(wish.uri)} did not come within {limit_s:.0f} s"
        return f"{late}; is its server reachable from the robot?"
    if manifest is None:
        return ""
    with contextlib.suppress(TimeoutError):
        if (fits := asked.result(max(0.0, until_s - time.monotonic()))) is not None:
            return fits.objection(manifest)
    return f"whether this robot can run {manifest.label} is not known: {UNKNOWN_ROBOT}"


def _begun(work: Callable[[], T], name: str) -> Future[T]:
    """The result of `work`, whose thread is left behind where it takes too long."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            done.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return done
