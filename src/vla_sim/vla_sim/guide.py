"""A simulated hand that shows the task to a limp arm: `python -m vla_sim.guide --control PATH --target black`.

It leads all joints along the scripted expert's plan, as somebody would who teaches. On standard output it says `ready`,
and begins with the next line of standard input, when the arm is limp; then it says `there`, and holds the arm until
standard input ends, when torque is on again. So the arm never falls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import EvergreenError
from vla_core.joints import SO101_JOINTS
from vla_sim.control import SimClient
from vla_sim.expert import Expert
from vla_sim.truth import Truth

STEP_S: Final = 0.1
"""Of the hand, from pose to pose in straight lines."""
HOLD_S: Final = 0.05
"""The first thing that the hand does is to hold what just went limp."""
REST_S: Final = 0.5
"""The hand rests at the end."""
CORRECTION: Final = 0.3
STRONGEST_RAD: Final = 0.3
"""A hand feels that the arm sags and lifts it; `vla_sim.world` makes it a soft spring."""


def lead(client: SimClient, expert: Expert, slowness: float) -> float:
    """Lead the arm through the whole task and hold it there; returns how long the plan takes, s.

    Raises:
        SimError: the arm is not limp, or the simulator is gone.
        ConfigError: the simulator's answer is malformed.
    """
    truth = Truth.from_json(client.truth())
    _move(client, np.array(truth.joints), HOLD_S)
    plan = expert.plan(truth, np.array(truth.joints))
    lift: NDArray[np.float64] = np.zeros(len(SO101_JOINTS))
    for time_s in np.arange(STEP_S, plan.duration_s + STEP_S, STEP_S):
        pose = plan.at(time_s)[0]
        _move(client, pose + lift, STEP_S * slowness)
        sag = pose - np.array(Truth.from_json(client.truth()).joints)
        lift = np.clip(lift + CORRECTION * sag, -STRONGEST_RAD, STRONGEST_RAD)
        lift[-1] = 0.0  # the gripper is stopped by what it holds
    _move(client, pose + lift, REST_S)
    return plan.duration_s


def _move(client: SimClient, pose: NDArray[np.float64], duration_s: float) -> None:
    client.hand_guide(dict(zip(SO101_JOINTS, map(float, pose), strict=True)), duration_s=duration_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Lead once; 2 where that cannot work."""
    parser = argparse.ArgumentParser(prog="python -m vla_sim.guide", description="Show the task to a limp arm.")
    parser.add_argument("--control", type=Path, required=True, help="the simulator's control socket")
    parser.add_argument("--target", default="black", help="cube to place (default %(default)s)")
    parser.add_argument(
        "--slowness", type=float, default=2.0, help="times slower than the expert (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        with SimClient(options.control) as client:
            expert = Expert(target=options.target)
            print("ready", flush=True)
            if not sys.stdin.readline():
                return 0
            try:
                lead(client, expert, options.slowness)
                print("there", flush=True)
                sys.stdin.read()
            finally:
                client.release()
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
