"""`evergreen teach record`: listens to the arm's joints while a hand leads them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from evergreen.recording import keys
from evergreen.teach import stopping
from evergreen.teach.errors import TeachError
from evergreen.teach.node import TeachNode
from vla_core import taught
from vla_core.errors import ConfigError
from vla_core.taught import Taught
from vla_ros.spinning import spinning

ARM_S = 10.0
"""Time for the arm to be heard, and for a service to answer."""
WARNING_S = 3.0
"""Between the announcement and the release: time to take hold of the arm."""
POLL_S = 0.05
CONTROL_VARIABLE = "EVERGREEN_SIM_CONTROL"


@dataclass(frozen=True, slots=True)
class Options:
    """How to listen.

    Attributes:
        out: file to write.
        duration_s: until then; None until a key or Ctrl-C.
        limp: let the arm go limp while recording.
        sim_hand: a cube's name: in simulation, a hand shows how to place it. Implies limp.
        control: the simulator's control socket, for sim_hand.
        namespace: of the robot.
    """

    out: Path
    duration_s: float | None = None
    limp: bool = False
    sim_hand: str = ""
    control: Path | None = None
    namespace: str = ""


def record(options: Options, say: Callable[[str], None]) -> Taught:
    """Listen, and write the file.

    Raises:
        TeachError: the arm is not there or would not go limp.
        ConfigError: nothing moved, or the file cannot be written.
    """
    control = _control(options)
    with (
        stopping.asked() as stop,
        spinning(TeachNode, options.namespace) as node,
        ExitStack() as stack,
    ):
        _wait_for_arm(node, stop)
        hand = None if control is None else stack.enter_context(_SimulatedHand(control, options.sim_hand, stop))
        with _limp(node, options, stop, say):
            node.samples.clear()
            if hand is not None:
                hand.lead()
            else:
                _listen(options, stop, say)
            samples = list(node.samples)
    if not samples:
        raise TeachError("no joint states came while recording")
    names = tuple(samples[0][1])
    rows = [(stamp_ns, row) for stamp_ns, row in samples if set(row) == set(names)]
    made = taught.from_samples(
        names,
        [(stamp_ns - rows[0][0]) / 1e9 for stamp_ns, _ in rows],
        [[row[name] for name in names] for _, row in rows],
    )
    taught.save(made, options.out)
    say(
        f"{options.out}: {made.duration_s:.1f} s, {len(made.positions)} poses; to repeat it:"
        f" evergreen teach replay {options.out}"
    )
    return made


def _control(options: Options) -> Path | None:
    if not options.sim_hand:
        return None
    named = options.control or os.environ.get(CONTROL_VARIABLE)
    if not named:
        raise ConfigError(f"--sim-hand needs the simulator's control socket: give --control or set {CONTROL_VARIABLE}")
    return Path(named)


def _wait_for_arm(node: TeachNode, stop: threading.Event) -> None:
    deadline_s = time.monotonic() + ARM_S
    while node.newest is None:
        if stop.wait(POLL_S):
            raise TeachError("interrupted before the arm was heard")
        if time.monotonic() > deadline_s:
            raise TeachError(f"no joint_states within {ARM_S:.0f} s: does the arm driver run in this ROS domain?")


@contextmanager
def _limp(node: TeachNode, options: Options, stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """The arm is limp inside, if that was asked for, and holds again afterwards in any case."""
    if not (options.limp or options.sim_hand):
        say("recording what moves the arm (--limp lets it go, so that you can lead it)")
        yield
        return
    if not options.sim_hand:
        say(f"HOLD THE ARM: it goes limp in {WARNING_S:.0f} s")
        if stop.wait(WARNING_S):
            raise TeachError("interrupted; the arm was not released")
    try:
        done, sentence = node.trigger("release", ARM_S)
        if not done:
            raise TeachError(sentence)
        say("the arm is limp: lead it")
        yield
    finally:
        done, sentence = node.trigger("resume", ARM_S)
        say("the arm holds again" if done else f"THE ARM MAY BE LIMP: {sentence}")


def _listen(options: Options, stop: threading.Event, say: Callable[[str], None]) -> None:
    """Until the time is over, a key, or Ctrl-C."""
    end_s = None if options.duration_s is None else time.monotonic() + options.duration_s
    with keys.pressed() as descriptor:
        if end_s is None:
            say("recording; Ctrl-C ends" if descriptor is None else "recording; space, Esc or Ctrl-C ends")
        while not stop.is_set() and (end_s is None or time.monotonic() < end_s):
            if descriptor is None:
                stop.wait(POLL_S)
            elif keys.read(descriptor, POLL_S) is not None:
                return


class _SimulatedHand:
    """Leads the simulated arm; a process of its own, since it needs MuJoCo. Made before the arm goes limp."""

    def __init__(self, control: Path, target: str, stop: threading.Event) -> None:
        command = [sys.executable, "-m", "vla_sim.guide", "--control", str(control), "--target", target]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self._stop = stop

    def __enter__(self) -> Self:
        self._await("ready")
        return self

    def __exit__(self, *_: object) -> None:
        """It lets go."""
        try:
            self._process.communicate(timeout=ARM_S)  # closes its standard input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def lead(self) -> None:
        """Show the whole task; afterwards the hand holds on."""
        if self._process.stdin:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        self._await("there")

    def _await(self, word: str) -> None:
        output = self._process.stdout
        if output is None:
            raise TeachError("the simulated hand has no output")
        while not select.select([output.fileno()], [], [], POLL_S)[0] and not self._stop.is_set():
            pass
        if self._stop.is_set() or output.readline().strip() != word:
            self._process.terminate()
            complaint = self._process.communicate()[1].strip().removeprefix("error: ").splitlines()
            why = complaint[-1] if complaint and not self._stop.is_set() else "interrupted"
            raise TeachError(f"the simulated hand failed: {why}")
