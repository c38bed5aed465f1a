"""One demonstration by the scripted expert; `vla_training.record_expert` makes many.

Physics and pictures are those of the simulator; the loop is in-process and faster than real time. Three things make the
demonstrations teach more than the perfect path (the first is DART, Laskey et al. 2017):

- correlated noise on what is executed, while the labels stay clean: the policy sees how to come back to the path;
- starts near HOME, anywhere else, and with the jaws just closed beside the cube, for trying again;
- now and then a push in mid-motion, from which the arm comes back to its path;
- the arm holds still at the end, so that the policy learns to stop.

With `targets`, any of several colours is asked for in the scenes of `vla_training.scripts`: the cube may be there, be
missing, or another one may be asked for on the way. Only successes are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError
from vla_sim.expert import Expert, Miss, Stage
from vla_sim.layout import NAMED, PLAIN, START_NOISE_RAD, colour_of
from vla_sim.world import HOME_RAD, OTHERS_MAY_MOVE_M, TIMESTEP_S, World
from vla_training import scripts
from vla_training.dataset import Episode
from vla_training.evaluate import LoopSettings, see, to_ticks
from vla_training.localisation import locate
from vla_training.scripts import Kind, Prompter, Script

SETPOINTS_PER_ACTION = 10
"""The driver's 100 Hz over the policy's 10 Hz: setpoints lie on straight lines between actions."""
SETTLE_STEPS = 250  # 0.5 s of physics to be somewhere
AT_HOME_RAD = 0.1
"""Farther than this from HOME, in any joint, an arm does not rest; servos and gravity leave 0.02."""
NOISE_RAD = 0.02
"""5 mm at the finger tips; three times the servo's own error."""
NOISE_MEMORY = 0.8
"""Share of the noise that lasts from one action to the next: half a second of drift, not a tremor."""
CALM = frozenset({Stage.DESCEND, Stage.CLOSE, Stage.LOWER, Stage.OPEN})
CALM_SHARE = 0.4
"""Of the noise, while the jaws are around the cube: the grasp tolerates about 6 mm."""
LYING_M = 0.003
"""A cube that was put down has its centre this near to half its size above the table."""
PUSHED_SHARE = 0.25
PUSH_RAD = 0.07
"""Standard deviation of a push: 2 cm at the finger tips, gone after a second."""
ANYWHERE_SHARE = 0.15
ANYWHERE_ABSENT_SHARE = 0.5
"""Where there is nothing to fetch, coming home is all that can be learnt."""
MISSED_SHARE = 0.15
MISS_M = 0.03
"""Far enough for the jaws to close on nothing, or on an edge."""
_ANYWHERE_LOW_RAD = np.array([-1.4, -0.6, -0.4, 0.9, 0.9, 0.0])
_ANYWHERE_HIGH_RAD = np.array([1.4, 0.3, 0.8, 1.65, 2.4, 0.6])
_PUSHED_JOINTS = np.array([1, 1, 1, 1, 1, 0])
"""Not the gripper: a push does not open the jaws."""


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What is recorded.

    Attributes:
        loop: camera, rate and scenes; the target, where there are no `targets`.
        picture_every: of so many frames one has a picture, the others only joints.
        targets: colours that are asked for in turn, by the sentences of `vla_training.phrases`.
    """

    loop: LoopSettings = LoopSettings()  # noqa: RUF009 (frozen)
    picture_every: int = 1
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.picture_every < 1:
            raise ConfigError(f"picture_every {self.picture_every} must be at least 1")


class Demonstrator:
    """One world and one expert; makes one episode after another."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._world = World(cameras=(settings.loop.camera,))
        self._expert = self._new_expert(settings.loop.target)
        self._period_s = 1 / settings.loop.rate_hz
        self._substeps = round(self._period_s / SETPOINTS_PER_ACTION / TIMESTEP_S)

    def close(self) -> None:
        """Free the renderer."""
        self._world.close()

    def episode(self, seed: int) -> Episode | None:
        """The demonstration of one scene, or None where noise made it fail."""
        rng = np.random.default_rng([seed, 2])
        loop, script = self._settings.loop, self._script(seed)
        self._world.reset(seed, variety=loop.variety, target=script.targets[-1], names=script.names)
        self._start(rng, script)
        self._expert = self._new_expert(script.targets[0])  # a new one: it keeps the plan of the episode before
        return self._follow(seed, rng, script)

    def _script(self, seed: int) -> Script:
        if self._settings.targets:
            return scripts.draw(seed, self._settings.targets)
        return Script(Kind.STEADY, (self._settings.loop.target,), ("",))

    def _new_expert(self, target: str) -> Expert:
        # Demonstrations of one cube stay, bit for bit, what they were before there were tidy experts.
        return Expert(self._world.model, target, tidy=bool(self._settings.targets))

    def _start(self, rng: np.random.Generator, script: Script) -> None:
        """Bring the arm to where the demonstration begins."""
        kind = rng.random()
        anywhere = ANYWHERE_ABSENT_SHARE if script.kind is Kind.ABSENT else ANYWHERE_SHARE
        if kind < MISSED_SHARE:
            self._miss(rng, script)
        elif kind < MISSED_SHARE + anywhere:
            self._ramp(rng.uniform(_ANYWHERE_LOW_RAD, _ANYWHERE_HIGH_RAD), 4 * SETTLE_STEPS)
        elif self._settings.loop.variety == PLAIN:  # the other varieties start off HOME by themselves
            self._ramp(np.array(HOME_RAD) + rng.normal(0, START_NOISE_RAD, len(HOME_RAD)), SETTLE_STEPS)

    def _ramp(self, goal: NDArray[np.float64], steps: int) -> None:
        start = self._world.joint_positions()
        for share in np.linspace(0, 1, steps // self._substeps):
            self._world.step(start + share * (goal - start), self._substeps)

    def _miss(self, rng: np.random.Generator, script: Script) -> None:
        """Grasp beside the cube, up to some moment of the empty lift."""
        angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.0) * MISS_M
        miss = Miss(far * math.cos(angle), far * math.sin(angle), rng.uniform(-0.4, 0.4))
        truth = self._world.truth()
        # Where the cube is not there, beside any other that has a name: the expert would not go anywhere.
        present = [colour for name in truth.cubes if (colour := colour_of(name)) in NAMED]
        beside = script.targets[0] if script.targets[0] in present or not present else present[0]
        plan = self._new_expert(beside).plan(truth, self._world.joint_positions(), miss)
        ends = dict(plan.stages)
        if Stage.LIFT not in ends:  # nothing that can be grasped
            return
        until_s = rng.uniform(ends[Stage.DESCEND] + 0.2, ends[Stage.LIFT])
        for time_s in np.arange(0, until_s, self._period_s / SETPOINTS_PER_ACTION):
            self._world.step(plan.at(time_s)[0], self._substeps)

    def _follow(self, seed: int, rng: np.random.Generator, script: Script) -> Episode | None:
        world, loop = self._world, self._settings.loop
        states, actions, pictured, images = [], [], [], []
        prompts, cubes = [], []
        prompter = Prompter(script)
        offset = int(rng.integers(self._settings.picture_every))
        noise: NDArray[np.float64] = np.zeros(len(HOME_RAD))
        still = 0
        push_at = int(rng.integers(5, 40)) if rng.random() < PUSHED_SHARE else -1
        for frame in range(round(script.limit_s * loop.rate_hz)):
            time_s = frame * self._period_s
            state, truth = to_ticks(world.joint_positions()), world.truth()
            if (frame + offset) % self._settings.picture_every == 0:
                pictured.append(frame)
                images.append(see(world, loop))
                cubes.append(locate(world, loop.camera))
            prompter.look(truth, self._expert, time_s, self._period_s)
            self._expert.target = prompter.target
            here, there = self._expert.chunk(truth, state, time_s, 2, loop.rate_hz)
            states.append(state)
            actions.append(here)
            prompts.append(prompter.prompt)
            noise_before, noise = noise, self._next_noise(noise, time_s, rng)
            if frame == push_at and self._expert.stage(time_s + self._period_s) not in CALM:
                noise = noise + rng.normal(0, PUSH_RAD, len(noise)) * _PUSHED_JOINTS
            for share in np.arange(1, SETPOINTS_PER_ACTION + 1) / SETPOINTS_PER_ACTION:
                target = here + share * (there - here) + noise_before + share * (noise - noise_before)
                world.step(to_ticks(target), self._substeps)
            at_rest = np.array_equal(here, there) and frame > 0
            still = still + 1 if at_rest else 0
            if still >= round(script.rest_s * loop.rate_hz):
                break
        if not (prompter.done and self._succeeded(script)):
            return None
        return Episode(
            seed,
            np.array(states, np.float32),
            np.array(actions, np.float32),
            np.array(pictured),
            np.array(images),
            prompts=tuple(prompts) if self._settings.targets else (),
            cubes=np.array(cubes, np.float32) if self._settings.targets else None,
        )

    def _succeeded(self, script: Script) -> bool:
        """By what was asked for last: placed, or where it is not there, the arm at rest and nothing touched."""
        world = self._world
        if script.present:
            return world.outcome(script.targets[-1], script.excused).success
        resting = np.abs(world.joint_positions() - HOME_RAD).max() < AT_HOME_RAD
        cubes = world.truth().cubes
        left_alone = all(
            world.moved_m(name) <= OTHERS_MAY_MOVE_M for name in cubes if colour_of(name) not in script.excused
        )
        return bool(resting) and left_alone and all(abs(cube.height) < LYING_M for cube in cubes.values())

    def _next_noise(self, noise: NDArray[np.float64], time_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """A first-order random walk that forgets, calmer while the jaws are around the cube."""
        size = NOISE_RAD * (CALM_SHARE if self._expert.stage(time_s + self._period_s) in CALM else 1.0)
        return NOISE_MEMORY * noise + math.sqrt(1 - NOISE_MEMORY**2) * rng.normal(0, size, len(noise))
