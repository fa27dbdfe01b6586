"""Clocks with parts that no colour's name fits: a search that chases "red" otherwise stops at orange, or at half a rim.

The named clocks of `training.clocks` have colours within a few steps of their names, each all over its part; nothing
there says how far a name reaches. Half of these have colours on the way from one name to another, half have parts in
patches of two colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from random import Random

import numpy as np
from PIL import Image

from training import clocks
from training.clocks import COLOURS, PARTS, Clock, legible

CLEAR = 0.35
"""A colour has the nearest name while that is at most this share of the way to the next nearest."""
WHOLE = 0.1
"""A part has the name of its larger patches while the others take at most this share of it."""


@dataclass(frozen=True)
class Mixed(Clock):
    """A clock with parts in mixed colours; each is named by what is nearest."""

    unclear: tuple[str, ...]
    """Parts that no name fits."""
    other: Clock | None
    """What shows in the patches; None where colours are mixed evenly."""
    share: float
    """Of the picture that the patches take."""

    @property
    def patches(self) -> np.ndarray:
        """Where the other clock shows: (128, 128) in [0, 1]."""
        return patches(self.share, Random(f"patches {self.seed}"))

    def picture(self) -> Image.Image:
        """The clock, in places as the other clock."""
        pair = [np.asarray(clocks.render(c), np.float32) for c in (self, self.other or self)]
        here = self.patches[..., None]
        return Image.fromarray((pair[0] * (1 - here) + pair[1] * here).round().astype(np.uint8))


def patches(share: float, rng: Random, side: int = 128) -> np.ndarray:
    """A map (side, side) of smooth patches, 1 in about this share of it."""
    noise = np.random.default_rng(rng.getrandbits(32)).standard_normal((5, 5)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    edge = np.quantile(smooth, 1 - share) if share else smooth.max() + 1
    return np.clip((smooth - edge) * 12 + 0.5, 0, 1)


def nearest(colour: tuple[float, ...]) -> list[str]:
    """All names, the nearest to an RGB colour of 0 to 255 first."""
    return sorted(COLOURS, key=lambda name: math.dist(COLOURS[name], colour))


def drawn(clock: Clock, part: str) -> tuple[float, ...]:
    """RGB of a part before light and shadow, 0 to 255; in patches, of the larger ones."""
    return tuple(c + d for c, d in zip(COLOURS[getattr(clock, part)], clock.tint[PARTS.index(part)], strict=True))


def runner_up(clock: Clock, part: str) -> str:
    """The name that comes next for a part: of the patches in it, or the next nearest to its colour."""
    own = getattr(clock, part)
    if isinstance(clock, Mixed) and clock.other is not None and getattr(clock.other, part) != own:
        return getattr(clock.other, part)
    return next(name for name in nearest(drawn(clock, part)) if name != own)


def clear(clock: Clock, part: str) -> bool:
    """Whether a name fits a part's colour."""
    return not (isinstance(clock, Mixed) and part in clock.unclear)


def mixed(clock: Clock) -> Mixed:
    """The clock with one part or two in mixed colours: even seeds in patches, odd ones all over."""
    rng = Random(f"mixed {clock.seed}")
    own = {field.name: getattr(clock, field.name) for field in fields(Clock)}
    while True:
        parts = rng.sample(PARTS, rng.randint(1, 2))
        names = [rng.choice([name for name in COLOURS if name != getattr(clock, part)]) for part in parts]
        if clock.seed % 2 == 0:
            other, share = replace(clock, **dict(zip(parts, names, strict=True))), rng.uniform(0.0, 0.5)
            found = Mixed(**own, unclear=(), other=other, share=share)
            found = replace(found, unclear=tuple(part for part in parts if _taken(found, part) > WHOLE))
        else:
            other, found = clock, Mixed(**own, unclear=(), other=None, share=0.0)
            for part, name in zip(parts, names, strict=True):
                found = _between(found, part, COLOURS[name], rng.uniform(0.1, 0.5))
        if all(legible(c.rim, c.face, c.hands, c.background) for c in (other, found)):
            return found


def _taken(clock: Mixed, part: str) -> float:
    """The share of a part that patches take, by circles in place of outlines."""
    side = (np.arange(128) + 0.5) / 128
    away = np.hypot(side[None] - clock.x, side[:, None] - clock.y) / clock.radius
    inside = 1 - clock.rim_width
    low, high = {"hands": (0, 0.5), "face": (0, inside), "rim": (inside, 1), "background": (1.2, 9)}[part]
    return float(clock.patches[(away >= low) & (away <= high)].mean())


def _between(clock: Mixed, part: str, other: tuple[int, int, int], share: float) -> Mixed:
    """The clock with a part's colour so far on the way to another."""
    colour = tuple(c + share * (o - c) for c, o in zip(drawn(clock, part), other, strict=True))
    first, second = nearest(colour)[:2]
    own, away = (math.dist(colour, COLOURS[name]) for name in (first, second))
    tint = list(clock.tint)
    tint[PARTS.index(part)] = tuple(round(c - n) for c, n in zip(colour, COLOURS[first], strict=True))
    unclear = clock.unclear if own <= CLEAR * (own + away) else (*clock.unclear, part)
    return replace(clock, **{part: first}, tint=tuple(tint), unclear=unclear)
