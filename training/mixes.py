"""Clocks with colours between two names, which no name fits: a search that chases "red" otherwise stops at orange.

The named clocks of `training.clocks` have colours within a few steps of their names; nothing there says how far a
colour's name reaches.
"""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from training.clocks import COLOURS, PARTS, Clock, legible

CLEAR = 0.35
"""A colour has the nearest name while that is at most this share of the way to the next nearest."""


def nearest(colour: tuple[float, ...]) -> list[str]:
    """All names, the nearest to an RGB colour of 0 to 255 first."""
    return sorted(COLOURS, key=lambda name: math.dist(COLOURS[name], colour))


def drawn(clock: Clock, part: str) -> tuple[float, ...]:
    """RGB of a part before light and shadow, 0 to 255."""
    return tuple(c + d for c, d in zip(COLOURS[getattr(clock, part)], clock.tint[PARTS.index(part)], strict=True))


def runner_up(clock: Clock, part: str) -> str:
    """The name that comes next for a part's colour, after its own."""
    return next(name for name in nearest(drawn(clock, part)) if name != getattr(clock, part))


def clear(clock: Clock, part: str) -> bool:
    """Whether a part's colour has a name."""
    colour, other = drawn(clock, part), COLOURS[runner_up(clock, part)]
    own = math.dist(colour, COLOURS[getattr(clock, part)])
    return own <= CLEAR * (own + math.dist(colour, other))


def mixed(clock: Clock) -> Clock:
    """The clock with one part or two in a colour on the way to another one; each is named by what is nearest."""
    rng = Random(f"mixed {clock.seed}")
    while True:
        changed = clock
        for part in rng.sample(PARTS, rng.randint(1, 2)):
            other, share = COLOURS[rng.choice(list(COLOURS))], rng.uniform(0.1, 0.5)
            colour = tuple(c + share * (o - c) for c, o in zip(drawn(clock, part), other, strict=True))
            name = nearest(colour)[0]
            tint = list(changed.tint)
            tint[PARTS.index(part)] = tuple(round(c - n) for c, n in zip(colour, COLOURS[name], strict=True))
            changed = replace(changed, **{part: name}, tint=tuple(tint))
        if legible(changed.rim, changed.face, changed.hands, changed.background):
            return changed
