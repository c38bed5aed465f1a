"""What one episode's scene looks like, and how a seed draws it.

A `Layout` says where the cubes lie, how large and what colour they are, how the light falls, how the table is tinted,
how far each camera is from where it should be, and where the arm starts. `World.reset` applies it.

A *variety* names from which ranges a seed draws:

- `plain`: a black and a white cube of 25 mm; only places and turns differ.
- `varied`: everything differs within ranges that a robot in daily use meets.
- `lighting`, `size`, `camera`, `distractors`, `yaw`: as `varied`, but that aspect lies outside those ranges, at or
  towards its extremes. These measure how far a policy carries.
- `training`: everything differs over all of both.

Without `names`, a scene is made of a black and a white cube and of distractors whose colour the seed draws: the world
of the models that know one cube. With `names`, exactly these cubes lie on the table: any of NAMED, which a prompt can
ask for, and of `orange` and `purple`, which none can; a second cube of one colour is called `"<colour> 2"`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np

from vla_core.errors import ConfigError
from vla_sim.scene import (
    CAMERAS,
    COLOURS,
    CUBE_SIZE_M,
    CUBES,
    DOF,
    EXTRAS,
    LAMP_DIRECTION,
    SPOT_XY,
    TABLE_COLOUR,
)
from vla_sim.targets import MOST_CUBES
from vla_sim.targets import NAMED as NAMED  # noqa: PLC0414  whoever draws a scene finds it here
from vla_sim.truth import CubePose

Colour = tuple[float, float, float]
Vector = tuple[float, float, float]

X_RANGE_M: Final = (0.16, 0.28)
Y_RANGE_M: Final = (-0.13, 0.13)
"""Of the plain variety: a box well within reach."""
REACH_M: Final = (0.12, 0.32)
"""Distance from the base at which the hand grasps from above: all that the expert tries for, see `vla_sim.expert`."""
SECTOR_RAD: Final = math.radians(85)
"""To either side of straight ahead: the half disc that a hand reaches from above and the front camera shows whole."""
YAW_RANGE_RAD: Final = (-math.pi / 4, math.pi / 4)
"""A cube looks the same after a quarter turn: this is every way it can lie."""
HARD_YAW_RAD: Final = math.radians(30)
"""Beyond this from square to the hand, a grasp must turn the wrist by nearly its most."""
APART_M: Final = 0.06
"""Between centres, and from the spot: the open jaws fit between two cubes."""
_TRIES: Final = 2000
START_NOISE_RAD: Final = 0.04
_PAN_AXIS_X_M: Final = 0.0388

PALETTE: Final[Mapping[str, Colour]] = {
    "red": (0.72, 0.08, 0.08),
    "green": (0.10, 0.55, 0.16),
    "blue": (0.08, 0.16, 0.65),
    "yellow": (0.85, 0.72, 0.08),
    "orange": (0.85, 0.38, 0.05),
    "purple": (0.42, 0.12, 0.50),
}
"""Colours of cubes that are neither black nor white."""
STRANGERS: Final = ("orange", "purple")
"""Colours of cubes that only lie in the way; each lies between two of NAMED."""
SECOND: Final = " 2"
"""Ends the name of the second cube of one colour."""
_GREYS: Final[Mapping[str, tuple[float, float]]] = {"black": (0.015, 0.06), "white": (0.86, 0.98)}
_SHADE: Final = (0.88, 1.12)
_TINT: Final = (0.95, 1.05)
"""Of named cubes. Distractors of drawn colours vary more, but there an orange one may pass for red: nobody asks."""


class Aspect(StrEnum):
    """What a shift can push beyond its daily range."""

    LIGHTING = "lighting"
    SIZE = "size"
    CAMERA = "camera"
    DISTRACTORS = "distractors"
    YAW = "yaw"


PLAIN: Final = "plain"
VARIED: Final = "varied"
TRAINING: Final = "training"
VARIETIES: Final = (PLAIN, VARIED, TRAINING, *(aspect.value for aspect in Aspect))


@dataclass(frozen=True, slots=True)
class Light:
    """`level` times the nominal brightness, `tint` per colour, and where the lamp shines to."""

    level: float = 1.0
    tint: Colour = (1.0, 1.0, 1.0)
    lamp_direction: Vector = LAMP_DIRECTION


@dataclass(frozen=True, slots=True)
class CameraShift:
    """A camera off its nominal pose: metres along the axes of its parent, and a rotation vector, rad, about its own."""

    offset_m: Vector = (0.0, 0.0, 0.0)
    turn_rad: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Layout:
    """One episode's scene.

    Attributes:
        cubes: those on the table, by name: the nameable ones of `scene.CUBES` and distractors of `scene.EXTRAS`, or
            colours (see `draw`).
        colours: of these, RGB in 0..1.
        light, table: how the light falls; the table's colour.
        cameras: those that are off their nominal pose.
        start_rad: added to HOME, rad.
    """

    cubes: Mapping[str, CubePose]
    colours: Mapping[str, Colour]
    light: Light = field(default_factory=Light)
    table: Colour = TABLE_COLOUR
    cameras: Mapping[str, CameraShift] = field(default_factory=dict)
    start_rad: tuple[float, ...] = (0.0,) * DOF


def draw(
    seed: int,
    variety: str = PLAIN,
    target: str = "black",
    cubes_of: int | None = None,
    names: Sequence[str] | None = None,
) -> Layout:
    """The layout of a seed; the same for the same arguments, on every machine.

    Args:
        seed: 0 or more.
        variety: one of VARIETIES.
        target: the cube that must be there; any other may be missing in all varieties but `plain`.
        cubes_of: put the cubes where this seed's plain scene has them: what else differs still does.
        names: exactly these cubes are there, at most four; then `target`, one of NAMED, may be missing. Needed for a
            target other than black and white.

    Raises:
        ConfigError: the seed is negative, or there is no such variety, target or name.
    """
    if seed < 0:
        raise ConfigError(f"a seed must be 0 or more, not {seed}")
    if variety not in VARIETIES:
        raise ConfigError(f"no variety {variety!r}: there are {', '.join(VARIETIES)}")
    targets = CUBES if names is None else NAMED
    if target not in targets:
        raise ConfigError(f"no cube '{target}': the simulation has {' and '.join(targets)}")
    if names is not None:
        _check_names(names)
    colours = COLOURS if names is None else plain_colours(names)
    if variety == PLAIN:
        drawn = Layout(_place_plain(seed, names or CUBES), colours)
    else:
        drawn = _Draw(seed, variety, target, names).layout()
    return drawn if cubes_of is None else replace(drawn, cubes=_place_plain(cubes_of, names or CUBES), colours=colours)


def colour_of(name: str) -> str:
    """The colour that a cube's name says: "red" of "red" and of "red 2"."""
    return name.removesuffix(SECOND)


def plain_colours(names: Iterable[str]) -> dict[str, Colour]:
    """What cubes look like where nothing differs."""
    known = {**PALETTE, **COLOURS}
    return {name: known[colour_of(name)] for name in names}


def _check_names(names: Sequence[str]) -> None:
    known = (*NAMED, *STRANGERS)
    for name in names:
        if colour_of(name) not in known:
            raise ConfigError(f"no cube '{name}': its colour must be one of {', '.join(known)}")
    if not 1 <= len(names) <= MOST_CUBES or len(set(names)) < len(names):
        raise ConfigError(
            f"cubes {', '.join(names) or 'none'}: a table has 1 to {MOST_CUBES}, each of another name "
            f"(a second red one is 'red{SECOND}')"
        )


def _place_plain(seed: int, names: Sequence[str]) -> dict[str, CubePose]:
    random = np.random.default_rng(seed)
    for _ in range(_TRIES):
        cubes = {
            name: CubePose(
                float(random.uniform(*X_RANGE_M)),
                float(random.uniform(*Y_RANGE_M)),
                CUBE_SIZE_M / 2,
                float(random.uniform(*YAW_RANGE_RAD)),
            )
            for name in names
        }
        if _fits(list(cubes.values())):
            return cubes
    raise ConfigError(f"seed {seed} finds no room for {len(names)} cubes: make the area larger or the cubes fewer")


def _fits(cubes: list[CubePose]) -> bool:
    clear_of_spot = all(cube.distance_to(SPOT_XY) >= APART_M for cube in cubes)
    pairs = ((a, b) for index, a in enumerate(cubes) for b in cubes[index + 1 :])
    return clear_of_spot and all(a.distance_to((b.x, b.y)) >= APART_M for a, b in pairs)


def neighbour_m(cubes: Mapping[str, CubePose], name: str) -> float:
    """From the centre of the cube `name` to that of the nearest other; inf where it lies alone."""
    others = (cube for other, cube in cubes.items() if other != name)
    return min((cubes[name].distance_to((cube.x, cube.y)) for cube in others), default=math.inf)


def in_reach(x: float, y: float) -> bool:
    """Whether a cube with its centre there, metres, can be grasped from above."""
    return REACH_M[0] <= math.hypot(x, y) <= REACH_M[1] and abs(math.atan2(y, x)) <= SECTOR_RAD


def turn_from_square_rad(cube: CubePose) -> float:
    """How far a cube is turned from lying square to a hand that reaches out to it, -45 to 45 degrees, in rad."""
    radial = math.atan2(cube.y, cube.x - _PAN_AXIS_X_M)
    return (cube.yaw - radial + math.pi / 4) % (math.pi / 2) - math.pi / 4


class _Draw:
    """The random choices of one seed; every aspect has its own generator, so that a shift changes nothing else."""

    def __init__(self, seed: int, variety: str, target: str, names: Sequence[str] | None) -> None:
        self._seed, self._variety, self._target, self._names = seed, variety, target, names

    def _random(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, *what.encode()])

    def _signed(self, random: np.random.Generator, aspect: Aspect, inner: float, outer: float) -> float:
        """A number in -inner..inner, beyond it up to `outer` under a shift, or anywhere while training."""
        if self._variety == TRAINING:
            return float(random.uniform(-outer, outer))
        if self._variety == aspect:
            return float(random.uniform(inner, outer) * random.choice([-1, 1]))
        return float(random.uniform(-inner, inner))

    def layout(self) -> Layout:
        cubes = self._cubes()
        start = self._random("start").normal(0, START_NOISE_RAD, DOF)
        return Layout(
            cubes,
            self._colours(cubes),
            self._light(),
            self._table(),
            {name: self._camera(name) for name in CAMERAS},
            tuple(float(value) for value in start),
        )

    def _cubes(self) -> dict[str, CubePose]:
        random = self._random("cubes")
        names = [self._target, *self._distractors()] if self._names is None else list(self._names)
        sizes = self._sizes(names)
        for _ in range(_TRIES):
            cubes = {name: self._cube(random, sizes[name]) for name in names}
            hard = all(abs(turn_from_square_rad(cube)) > HARD_YAW_RAD for cube in self._asked(cubes))
            if _fits(list(cubes.values())) and (self._variety != Aspect.YAW or hard):
                return cubes
        raise ConfigError(f"seed {self._seed} finds no room for {len(names)} cubes")

    def _asked(self, cubes: Mapping[str, CubePose]) -> list[CubePose]:
        return [cube for name, cube in cubes.items() if colour_of(name) == self._target]

    def _cube(self, random: np.random.Generator, size: float) -> CubePose:
        while True:
            x, y = float(random.uniform(0.0, REACH_M[1])), float(random.uniform(-REACH_M[1], REACH_M[1]))
            if in_reach(x, y):
                return CubePose(x, y, size / 2, float(random.uniform(*YAW_RANGE_RAD)), size)

    def _distractors(self) -> list[str]:
        """One or two in daily use; three at the extreme."""
        random = self._random("distractors")
        count = int(random.integers(1, 3))
        if self._variety == Aspect.DISTRACTORS:
            count = 3
        elif self._variety == TRAINING:
            count = int(random.integers(1, 4))
        # The other nameable cube is the one that must not be mistaken for the target: it is there most of the time.
        others = [name for name in CUBES if name != self._target] if random.random() < 0.8 or count == 3 else []
        return [*others, *EXTRAS][:count]

    def _sizes(self, names: list[str]) -> dict[str, float]:
        random = self._random("sizes")
        return {name: CUBE_SIZE_M + self._signed(random, Aspect.SIZE, 0.0012, 0.003) for name in names}

    def _colours(self, cubes: Mapping[str, CubePose]) -> dict[str, Colour]:
        if self._names is not None:
            return {name: self._shade(name) for name in cubes}
        random = self._random("colours")
        black, white = random.uniform(*_GREYS["black"]), random.uniform(*_GREYS["white"])
        shades: dict[str, Colour] = {"black": (black,) * 3, "white": (white,) * 3}
        for name in EXTRAS:
            colour = PALETTE[str(random.choice(list(PALETTE)))]
            red, green, blue = np.clip(np.array(colour) * random.uniform(0.85, 1.15, 3), 0, 1)
            shades[name] = (float(red), float(green), float(blue))
        return {name: shades[name] for name in cubes}

    def _shade(self, name: str) -> Colour:
        """Of a named cube; each has its own generator, so that another cube on the table changes nothing."""
        random = self._random(f"colour {name}")
        colour = colour_of(name)
        if colour in _GREYS:
            return (float(random.uniform(*_GREYS[colour])),) * 3
        shade, tint = random.uniform(*_SHADE), random.uniform(*_TINT, 3)
        red, green, blue = np.clip(np.array(PALETTE[colour]) * shade * tint, 0, 1)
        return float(red), float(green), float(blue)

    def _light(self) -> Light:
        random = self._random("light")
        level = 1.0 + self._signed(random, Aspect.LIGHTING, 0.12, 0.35)
        warm = self._signed(random, Aspect.LIGHTING, 0.03, 0.10)
        away = 0.5 * self._signed(random, Aspect.LIGHTING, 0.4, 1.2)
        angle = random.uniform(0, 2 * math.pi)
        direction = (
            LAMP_DIRECTION[0] + away * math.cos(angle),
            LAMP_DIRECTION[1] + away * math.sin(angle),
            LAMP_DIRECTION[2],
        )
        return Light(level, (1 + warm, 1.0, 1 - warm), direction)

    def _table(self) -> Colour:
        random = self._random("table")
        shade, tint = random.uniform(0.75, 1.12), random.uniform(0.94, 1.06, 3)
        red, green, blue = np.array(TABLE_COLOUR) * shade * tint
        return float(red), float(green), float(blue)

    def _camera(self, name: str) -> CameraShift:
        random = self._random(f"camera {name}")
        offset = [self._signed(random, Aspect.CAMERA, 0.002, 0.005) for _ in range(3)]
        turn = [math.radians(self._signed(random, Aspect.CAMERA, 0.4, 1.0)) for _ in range(3)]
        return CameraShift((offset[0], offset[1], offset[2]), (turn[0], turn[1], turn[2]))
