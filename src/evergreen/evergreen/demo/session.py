"""One demo run, from start to files: launches the graph, plays the episodes, measures, writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from evergreen.demo.asked import Conversation, Request
from evergreen.demo.graph import Graph
from evergreen.demo.results import Episode
from evergreen.demo.screen import Screen, View
from vla_core.errors import EvergreenError
from vla_core.joints import SO101_JOINTS

START_TIMEOUT_S = 60.0
"""A first start compiles the scene and Python's byte code on a slow machine."""
HOME_S = 1.5
"""Waited for in full even at home: the driver holds while two publishers command within a second."""
HOME_TIMEOUT_S = 4.0
HOME_TRIES = 3
HOME_TOLERANCE_RAD = 0.12
"""A servo with proportional gain alone stops short under load; closer than this the arm is out of the way."""
SERVICE_TIMEOUT_S = 15.0
POLL_S = 0.1
STATUS_PERIOD_S = 1.0
SETTLE_S = 0.3
HELD_OUT_SEEDS = 1_000_000
"""Recording refuses scenes from here on."""
LASTING_S = 0.6
"""A cube that rolls off again, or that the leaving hand takes along, was not placed."""
WRONG_LIFTED = "the wrong cube was lifted"
MIN_FRESH_CAMERAS_FPS = 1.0


class DemoError(EvergreenError):
    """The graph did not come up, or broke down while the demo ran."""


class Simulation(Protocol):
    """The simulator's control socket, as far as a demo needs it."""

    def reset(
        self,
        seed: int,
        *,
        keep_arm: bool = False,
        variety: str = "plain",
        target: str = "black",
        names: Sequence[str] | None = None,
    ) -> Mapping[str, Any]:
        """Lay out the scene of a seed."""
        ...

    def outcome(self, target: str, excused: Sequence[str] = ()) -> Mapping[str, Any]:
        """Judge the scene; the arm may have moved `excused` cubes."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Home pose, simulated time and counters."""
        ...


class Robot(Protocol):
    """What the demo asks of the graph."""

    def trigger(self, name: str, timeout_s: float) -> str | None:
        """Call `policy/<name>`; None when done, else why not."""
        ...

    def configure(self, timeout_s: float) -> bool:
        """Let the policy load its model; False when it could not."""
        ...

    def move(self, target: Mapping[str, float], seconds: float) -> None:
        """Send the arm to a pose."""
        ...

    def say(self, prompt: str) -> None:
        """Give the policy another instruction."""
        ...

    def photograph(self, cameras: Sequence[str]) -> None:
        """Take one picture with every camera that is not filmed anyway."""
        ...


def scene_seed(seed: int, index: int) -> int:
    """Seed of scene `index`, below 1000, of a run with `seed`: no model has seen it, neighbouring runs share none."""
    return HELD_OUT_SEEDS + seed * 1000 + index


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play."""

    episodes: int
    seed: int
    time_limit_s: float
    target: str
    cameras: tuple[str, ...]
    policy: str
    prompt: str
    then: tuple[Request, ...] = ()
    """What is said next, each once the arm has lifted what was asked for before."""
    film: bool = True
    variety: str = "plain"
    cubes: Callable[[int, Sequence[str]], Sequence[str]] | None = None
    """By seed and targets, where any colour may be asked for; None for the scenes of models that know one cube."""

    def seed_of(self, index: int) -> int:
        """Seed of the scene of episode `index`, from 1."""
        return scene_seed(self.seed, index)


@dataclass(slots=True)
class Session:
    """Plays a plan on a running graph.

    `failed` says why the graph broke down, or None; `typing` whether a person may type prompts.
    """

    plan: Plan
    graph: Graph
    robot: Robot
    simulation: Simulation
    screen: Screen
    failed: Callable[[], str | None]
    typing: bool = False
    finished: list[Episode] = field(default_factory=list)
    realtime_factor: float | None = None
    realtime_factor_min: float = 1.0
    _next_status_s: float = 0.0
    _clock: tuple[float, float] = (0.0, 0.0)
    _doing: str = "starting"
    _index: int = 0
    _began_s: float = 0.0
    _photographed: bool = False

    def wait_until_ready(self) -> None:
        """Wait for all cameras, the arm and the policy.

        Raises:
            DemoError: something did not come up in time; the message says what.
        """
        self._doing = "starting the simulation, cameras, arm and policy"
        if not self._wait(lambda: not self._missing(), START_TIMEOUT_S):
            raise DemoError(f"after {START_TIMEOUT_S:.0f} s still waiting for {', '.join(self._missing())}")
        self._doing = "loading the model"
        self._refresh()
        if not self.robot.configure(START_TIMEOUT_S):
            raise DemoError(f"the policy could not load its model: {self.graph.policy_reason or 'no answer'}")

    def play(self) -> list[Episode]:
        """Run all episodes."""
        self._clock = (self._simulated_s(), time.monotonic())
        self.graph.filming = self.plan.film
        for index in range(1, self.plan.episodes + 1):
            self._index = index
            self._go_home()
            episode = self._play_one(index)
            self.finished.append(episode)
            mark = "placed" if episode.success else f"NOT placed: {episode.detail}"
            far = "" if episode.distance_m is None else f"  {episode.distance_m * 1000:.0f} mm from the spot"
            self.screen.say(
                f"episode {index}/{self.plan.episodes}  seed {episode.seed}  {mark}  {episode.seconds:.1f} s{far}"
            )
        if not self._photographed:
            self._photograph()
        self._go_home()
        self.graph.filming = False
        return self.finished

    def _missing(self) -> list[str]:
        rates = self.graph.camera_rates()
        missing = [f"camera {name}" for name in self.plan.cameras if rates.get(name, 0.0) < MIN_FRESH_CAMERAS_FPS]
        if not self.graph.joints:
            missing.append("joint_states of the arm")
        if not self.graph.policy_state:
            missing.append("the policy")
        return missing

    def _go_home(self) -> None:
        self._doing = "bringing the arm home"
        self._trigger("stop")
        home = dict(zip(SO101_JOINTS, self.simulation.status()["home"], strict=True))
        # More than one try: the driver drops what it plays when it loses its servos.
        if not any(self._moved_to(home) for _ in range(HOME_TRIES)):
            far = max(home, key=lambda joint: abs(self.graph.joints.get(joint, 9.0) - home[joint]))
            raise DemoError(f"the arm did not come home in {HOME_TRIES} tries, {far} least of all; see demo.log")

    def _moved_to(self, pose: Mapping[str, float]) -> bool:
        self.robot.move(pose, HOME_S)
        over_s = time.monotonic() + HOME_S
        return self._wait(lambda: time.monotonic() >= over_s and self._is_at(pose), HOME_TIMEOUT_S)

    def _is_at(self, pose: Mapping[str, float]) -> bool:
        joints = self.graph.joints
        return all(abs(joints.get(name, 9.0) - value) < HOME_TOLERANCE_RAD for name, value in pose.items())

    def _play_one(self, index: int) -> Episode:
        seed = self.plan.seed_of(index)
        requests = self._requests()
        names = self._lay(seed, requests)
        self._wait(lambda: False, SETTLE_S)  # the cubes come to rest
        asked = Conversation(requests, time.time_ns(), self.plan.target)
        self.graph.caption = self._caption(asked, index, seed)
        self._began_s = time.monotonic()
        self.graph.recording = True
        self._trigger("start")
        outcome: dict[str, Any] = {}
        succeeded_s: list[float] = []

        def done() -> bool:
            asked.hear(self.graph.prompt, self.graph.prompt_target, time.monotonic() - self._began_s, time.time_ns())
            self.graph.caption = self._caption(asked, index, seed)
            self._doing = f"the policy moves the {asked.target} cube to the spot"
            self._watch_time()
            outcome.update(self._judge(asked, names, wrong=bool(outcome.get("wrong_lifted"))))
            if outcome["lifted"] and not self._photographed:
                self._photograph()
            if (prompt := asked.next(lifted=outcome["lifted"])) is not None:
                self.robot.say(prompt)
            if not outcome["success"] or asked.goes_on:
                succeeded_s.clear()
                return False
            succeeded_s.append(time.monotonic())
            return succeeded_s[-1] - succeeded_s[0] >= LASTING_S

        success = self._wait(done, self.plan.time_limit_s)
        seconds = (succeeded_s[0] if success else time.monotonic()) - self._began_s
        self.graph.recording = False
        simulated_s, monotonic_s = self._simulated_s(), time.monotonic()
        self.realtime_factor = (simulated_s - self._clock[0]) / (monotonic_s - self._clock[1])
        told = tuple(asked.turns) if self.plan.cubes is not None else ()
        detail = "" if success else why_not(outcome)
        return Episode(index, seed, success, seconds, detail, outcome["distance_m"], told, time.time_ns())

    def _requests(self) -> list[Request]:
        """What is asked for in the episode that begins: the plan anew, or what somebody typed last."""
        own = Request(self.plan.prompt, self.plan.target)
        if not self.plan.then:
            typed = self.graph.prompt not in ("", self.plan.prompt)
            return [Request(self.graph.prompt, self.graph.prompt_target) if typed else own]
        if self.graph.prompt not in ("", self.plan.prompt):
            self.robot.say(self.plan.prompt)
            if not self._wait(lambda: self.graph.prompt == self.plan.prompt, SERVICE_TIMEOUT_S):
                raise DemoError(f"the policy did not hear {self.plan.prompt!r} within {SERVICE_TIMEOUT_S:.0f} s")
        return [own, *self.plan.then]

    def _lay(self, seed: int, requests: Sequence[Request]) -> Sequence[str] | None:
        """Begin a scene in which all that is asked for lies there; the cubes, where any may be asked for."""
        targets = [request.target or self.plan.target for request in requests]
        scene: dict[str, Any] = {"variety": self.plan.variety, "target": targets[0]}
        if self.plan.cubes is not None:
            scene["names"] = self.plan.cubes(seed, targets)
        self.simulation.reset(seed, keep_arm=True, **scene)
        return scene.get("names")

    def _judge(self, asked: Conversation, names: Sequence[str] | None, *, wrong: bool) -> Mapping[str, Any]:
        """How the task stands; a person may ask for a cube that is not there.

        `wrong`: a wrong cube has been lifted already, which a later prompt for that cube does not mend.
        """
        if names is not None and asked.target not in names:
            return {"success": False, "lifted": False, "distance_m": None, "absent": asked.target}
        found = self.simulation.outcome(asked.target, asked.excused)
        wrong = wrong or found["wrong_lifted"]
        return {**found, "absent": "", "wrong_lifted": wrong, "success": found["success"] and not wrong}

    def _caption(self, asked: Conversation, index: int, seed: int) -> str:
        who = self.plan.policy if self.plan.cubes is None else f'"{asked.turns[-1].request.prompt}"'
        return f"{who}   episode {index}/{self.plan.episodes}   seed {seed}"

    def _simulated_s(self) -> float:
        return float(self.simulation.status()["time_s"])

    def _photograph(self) -> None:
        self._photographed = True
        self.graph.want_stills(self.plan.cameras)
        self.robot.photograph(self.plan.cameras)

    def _watch_time(self) -> None:
        """Ask once a second how the simulation kept up of late: a mean over the run would hide a stall."""
        now_s = time.monotonic()
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_PERIOD_S
            self.realtime_factor_min = min(self.realtime_factor_min, float(self.simulation.status()["realtime_factor"]))

    def _trigger(self, name: str) -> None:
        problem = self.robot.trigger(name, SERVICE_TIMEOUT_S)
        if problem:
            raise DemoError(f"the policy did not {name}: {problem}")

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while True:
            if problem := self.failed():
                raise DemoError(problem)
            self._refresh()
            if condition():
                return True
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(POLL_S)

    def _refresh(self) -> None:
        now_s = time.monotonic()
        self.graph.tick(now_s)
        stamp_ns = self.graph.newest_stamp_ns()
        self.screen.show(
            View(
                title=f"Evergreen demo, seed {self.plan.seed}",
                doing=self._doing,
                policy=self.graph.active_model or self.plan.policy,
                prompt=self.graph.prompt or self.plan.prompt,
                episode=self._index,
                episodes=self.plan.episodes,
                seconds=now_s - self._began_s if self.graph.recording else 0.0,
                time_limit_s=self.plan.time_limit_s,
                finished=self.finished,
                camera_fps=self.graph.camera_rates(),
                latency=self.graph.latency(),
                chunk_age_ms=None if stamp_ns is None else (time.time_ns() - stamp_ns) / 1e6,
                realtime_factor=self.realtime_factor,
                holds=self.graph.policy_reason if self.graph.policy_state == "holding" else "",
                typing=self.typing,
            ),
            now_s,
        )


def why_not(outcome: Mapping[str, Any]) -> str:
    """What is missing for success; empty where nothing is."""
    if outcome.get("success"):
        return ""
    faults = {
        f"there is no {outcome.get('absent')} cube": outcome.get("absent"),
        WRONG_LIFTED: outcome.get("wrong_lifted"),
        "the cube was never lifted": not outcome.get("lifted"),
        "the cube is not on the spot": not outcome.get("placed"),
        "the gripper still holds the cube": not outcome.get("released"),
    }
    return next((fault for fault, is_so in faults.items() if is_so), "the other cube was moved")
