"""Which cubes lie on a table where any of six colours may be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vla_sim.layout import NAMED, SECOND, STRANGERS, Aspect
from vla_sim.targets import MOST_CUBES

FEWEST_CUBES: Final = 2


def draw_names(
    random: np.random.Generator,
    present: Sequence[str],
    absent: Sequence[str] = (),
    *,
    twin: bool = False,
    count: int | None = None,
) -> tuple[str, ...]:
    """Two to four names for `vla_sim.layout.draw`, each number equally often.

    Args:
        random: the source of all choices.
        present: colours that must be there.
        absent: colours that must not.
        twin: the first of `present` is there twice.
        count: so many cubes, instead of two to four.
    """
    sure = [*present, *([f"{present[0]}{SECOND}"] if twin else [])]
    drawn = int(random.integers(max(FEWEST_CUBES, len(sure)), MOST_CUBES + 1))
    others = [colour for colour in (*NAMED, *STRANGERS) if colour not in (*present, *absent)]
    chosen = random.permutation(others)[: (count or drawn) - len(sure)]
    return (*sure, *map(str, chosen))


def names_for(seed: int, variety: str, present: Sequence[str], absent: Sequence[str] = ()) -> tuple[str, ...]:
    """The cubes of a seed's scene in which somebody asks for `present` and `absent`; the same every time."""
    count = MOST_CUBES if variety == Aspect.DISTRACTORS else None
    return draw_names(np.random.default_rng([seed, 5]), present, absent, count=count)
