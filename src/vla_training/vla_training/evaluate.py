"""One episode in closed loop, and what many of them add up to.

Runs in one process, faster than real time, without ROS, but with what the ROS graph does to a policy: JPEG pictures,
servo ticks, setpoints at 100 Hz, inference that takes time while the arm moves on, and `vla_core.chunk.join`, the
function that the policy node joins chunks with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla_core.chunk import NS_PER_S, ActionChunk, Hold, JoinRules, Plan, join
from vla_core.errors import ConfigError
from vla_core.image import decode_resize, encode_jpeg
from vla_sim.layout import PLAIN
from vla_sim.world import TIMESTEP_S, World

TICK_RAD = 2 * math.pi / 4096
"""Resolution of an STS3215's target and of its measured position."""
SETPOINT_PERIOD_NS = 10_000_000
"""The driver writes the bus at 100 Hz."""
HELD_OUT_SEED = 1_000_000
"""Scenes of training have smaller seeds than this, scenes of evaluation larger."""
VALIDATION_SEED = 900_000
"""Scenes from this one to HELD_OUT_SEED choose among checkpoints; training and the last measurement do not use them."""
_WILSON_Z = 1.959964  # 95 %
_JUDGE_PERIOD_NS = 100_000_000
_SETTLED_NS = NS_PER_S
"""An episode ends once success has lasted this long: a cube that falls over later would not count."""

PolicyCall = Callable[[NDArray[np.uint8], NDArray[np.float64]], NDArray[np.float64]]
"""Picture `(h, w, 3)` uint8 and state `(dof,)` rad to actions `(chunk, dof)` rad. One that also has a method `begin` is
told when an episode begins."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What the closed loop is made of.

    Attributes:
        camera, width, height: what the policy sees.
        rate_hz: of the policy's actions.
        latency_s: from the picture's capture to the first setpoint that uses the answer.
        skew_s: how much newer the joint positions are than the picture; both carry the picture's stamp.
        replan_s: between observations; the node asks anew when this much of a chunk is played.
        rules: how chunks are joined.
        limit_s: simulated time given to an episode.
        target: the cube that must be placed.
        variety: how much scenes differ from each other, see `vla_sim.layout`.
        cubes_of: seed of the plain scene whose cubes all scenes have; None for each its own.
    """

    camera: str = "front"
    width: int = 192
    height: int = 96
    rate_hz: float = 10.0
    latency_s: float = 0.10
    skew_s: float = 0.04
    replan_s: float = 0.5
    rules: JoinRules = JoinRules()  # noqa: RUF009 (frozen)
    limit_s: float = 20.0
    target: str = "black"
    variety: str = PLAIN
    cubes_of: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.skew_s <= self.latency_s:
            raise ConfigError(f"skew_s {self.skew_s} must lie between 0 and latency_s {self.latency_s}")
        if min(self.latency_s, self.replan_s, self.limit_s, self.rate_hz) <= 0:
            raise ConfigError(
                f"latency_s {self.latency_s}, replan_s {self.replan_s}, limit_s {self.limit_s} and "
                f"rate_hz {self.rate_hz} must be above 0"
            )


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one scene ended; distances in metres, times in simulated seconds.

    `wrong_lifted` and `wrong_touched`: another object than the target, at any time.
    """

    seed: int
    success: bool
    lifted: bool
    placed: bool
    wrong_lifted: bool
    wrong_touched: bool
    distance_m: float
    others_moved_m: float
    time_s: float
    largest_gap_rad: float
    """Largest disagreement between the plan in force and the chunk that took over."""
    note: str = ""
    """Why it failed, where that is no matter of cubes."""


def to_ticks(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles as a servo can hold or report them, rad."""
    return np.rint(angles_rad / TICK_RAD) * TICK_RAD


def lay(world: World, seed: int, settings: LoopSettings) -> None:
    """Begin an episode with a scene of these settings."""
    world.reset(seed, variety=settings.variety, target=settings.target, cubes_of=settings.cubes_of)


def see(world: World, settings: LoopSettings) -> NDArray[np.uint8]:
    """One picture the way it reaches the policy on the robot: through a JPEG and `decode_resize`."""
    return decode_resize(encode_jpeg(world.render(settings.camera)), settings.width, settings.height)


class _Asker:
    """The policy node's part of the loop: observe, wait for the answer, join.

    Times are simulated nanoseconds since the episode began.
    """

    def __init__(self, world: World, policy: PolicyCall, settings: LoopSettings) -> None:
        self._world, self._policy, self._settings = world, policy, settings
        self._latency_ns = round(settings.latency_s * NS_PER_S)
        self._skew_ns = round(settings.skew_s * NS_PER_S)
        self._replan_ns = round(settings.replan_s * NS_PER_S)
        self._picture: NDArray[np.uint8] | None = None
        self._seen_ns = 0
        self._due_ns = 0
        self._chunk: ActionChunk | None = None
        self.plan: Plan | None = None
        self.largest_gap_rad = 0.0

    def tick(self, now_ns: int) -> None:
        """Do what is due: take a picture, ask with the newest joint positions, or join the answer."""
        if self._picture is None and now_ns >= self._due_ns:
            self._picture, self._seen_ns = see(self._world, self._settings), now_ns
        if self._picture is not None and self._chunk is None and now_ns >= self._seen_ns + self._skew_ns:
            actions = self._policy(self._picture, to_ticks(self._world.joint_positions()))
            self._chunk = ActionChunk(self._seen_ns, self._settings.rate_hz, actions)
        if self._chunk is not None and now_ns >= self._seen_ns + self._latency_ns:
            self._join(self._chunk, now_ns)
            self._due_ns = max(now_ns, self._seen_ns + self._replan_ns)
            self._picture = self._chunk = None

    def _join(self, chunk: ActionChunk, now_ns: int) -> None:
        joined = join(chunk, now_ns, self.plan, to_ticks(self._world.joint_positions()), self._settings.rules)
        if isinstance(joined, Hold):
            return
        if self.plan is not None:
            self.largest_gap_rad = max(
                self.largest_gap_rad, float(np.abs(chunk.at(now_ns) - self.plan.at(now_ns)).max())
            )
        self.plan = joined


def run_episode(
    world: World,
    policy: PolicyCall,
    seed: int,
    settings: LoopSettings,
    watch: Callable[[World], None] = lambda _: None,
) -> EpisodeResult:
    """Play one scene to success or to the time limit; `watch` is called every 0.1 s."""
    lay(world, seed, settings)
    return play_out(world, policy, seed, settings, Placing(world, settings.target), watch=watch)


class Judge(Protocol):
    """Watches an episode and says how it ended."""

    def step(self) -> None:
        """10 ms of the episode have passed."""
        ...

    def look(self, now_ns: int) -> bool:
        """Whether the episode is over; asked every 0.1 s."""
        ...

    def result(self, seed: int, now_ns: int, largest_gap_rad: float) -> EpisodeResult:
        """How it ended."""
        ...


class Placing:
    """Judges whether the cube of a colour is placed, and stays so for a while."""

    def __init__(self, world: World, target: str, excused: Sequence[str] = ()) -> None:
        """Judge `target`; cubes of the colours `excused` may be carried about."""
        self._world, self._target, self._excused = world, target, excused
        self._since_ns: int | None = None
        self._settled = self._touched = False

    def step(self) -> None:
        """Notice what the arm touches."""
        self._touched = self._touched or self._world.touches_other(self._target, self._excused)

    def look(self, now_ns: int) -> bool:
        """Whether success has lasted for a second."""
        if not self._world.outcome(self._target, self._excused).success:
            self._since_ns = None
        elif self._since_ns is None:
            self._since_ns = now_ns
        elif now_ns - self._since_ns >= _SETTLED_NS:
            self._settled = True
        return self._settled

    def result(self, seed: int, now_ns: int, largest_gap_rad: float) -> EpisodeResult:
        """As the scene is now."""
        end = self._world.outcome(self._target, self._excused)
        return EpisodeResult(
            seed=seed,
            success=self._settled,
            lifted=end.lifted,
            placed=end.placed,
            wrong_lifted=end.wrong_lifted,
            wrong_touched=self._touched,
            distance_m=end.distance_m,
            others_moved_m=end.others_moved_m,
            time_s=(self._since_ns or now_ns) / NS_PER_S,
            largest_gap_rad=largest_gap_rad,
        )


def play_out(
    world: World,
    policy: PolicyCall,
    seed: int,
    settings: LoopSettings,
    judge: Judge,
    *,
    watch: Callable[[World], None] = lambda _: None,
) -> EpisodeResult:
    """Play the scene that lies there to where `judge` ends it, or to the time limit."""
    substeps = round(SETPOINT_PERIOD_NS / NS_PER_S / TIMESTEP_S)
    asker = _Asker(world, policy, settings)
    setpoint = to_ticks(world.joint_positions())
    now_ns = 0
    if (begin := getattr(policy, "begin", None)) is not None:
        begin()
    while now_ns < settings.limit_s * NS_PER_S:
        asker.tick(now_ns)
        if asker.plan is not None:
            setpoint = to_ticks(asker.plan.at(now_ns))
        world.step(setpoint, substeps)
        judge.step()
        now_ns += SETPOINT_PERIOD_NS
        if now_ns % _JUDGE_PERIOD_NS == 0:
            watch(world)
            if judge.look(now_ns):
                break
    return judge.result(seed, now_ns, asker.largest_gap_rad)


def refuse_held_out(seeds: Iterable[int]) -> None:
    """Keep training away from the scenes that evaluation uses.

    Raises:
        ConfigError: one of `seeds` belongs to evaluation.
    """
    if any(seed >= VALIDATION_SEED for seed in seeds):
        raise ConfigError(f"seeds from {VALIDATION_SEED} on are for evaluation; choose others for training")


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson, 1927)."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ConfigError(f"{successes} successes in {trials} trials is impossible")
    share, z2 = successes / trials, _WILSON_Z**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _WILSON_Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def evaluate(policy: PolicyCall, seeds: Sequence[int], settings: LoopSettings) -> Iterator[EpisodeResult]:
    """Play the scenes of `seeds`, one after another."""
    world = World(cameras=(settings.camera,))
    try:
        for seed in seeds:
            yield run_episode(world, policy, seed, settings)
    finally:
        world.close()
