"""Clocks with parts that no colour's name fits: a search that chases "red" otherwise stops at orange, or at half a rim.

The named clocks of `training.clocks` have colours within a few steps of their names, each all over its part; nothing
there says how far a name reaches. Half of these have colours on the way from one name to another, a quarter have parts
in patches of two colours, and a quarter are in patches of two shapes or two kinds of marks, or have a part of a second
hand: half a square is no square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from random import Random

import numpy as np
from PIL import Image

from training import clocks
from training.clocks import COLOURS, MARKS, PARTS, SHAPES, Clock, legible

CLEAR = 0.35
"""A colour has the nearest name while that is at most this share of the way to the next nearest."""
WHOLE = 0.1
"""A part has the name of its larger patches while the others take at most this share of it."""
FORMS = {"shape": SHAPES, "marks": MARKS}
"""What else than colours may be in patches of two values."""
SWEEP = "second hand"
"""What may be missing in patches."""


@dataclass(frozen=True)
class Mixed(Clock):
    """A clock with parts in mixed colours; each is named by what is nearest."""

    unclear: tuple[str, ...]
    """Attributes that no name fits."""
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


def runner_up(clock: Clock, attribute: str) -> str | None:
    """The value that comes next: in its patches, or by the next nearest colour; None where there is none."""
    own = getattr(clock, attribute, None)
    if isinstance(clock, Mixed) and clock.other is not None and getattr(clock.other, attribute, None) != own:
        return str(getattr(clock.other, attribute))
    if attribute not in PARTS:
        return None
    return next(name for name in nearest(drawn(clock, attribute)) if name != own)


def clear(clock: Clock, attribute: str) -> bool:
    """Whether a name fits a part's colour, the shape or the marks."""
    return not (isinstance(clock, Mixed) and attribute in clock.unclear)


def mixed(clock: Clock) -> Mixed:
    """The clock with colours mixed all over (odd seeds) or in patches (half of the even ones), or with mixed forms."""
    rng = Random(f"mixed {clock.seed}")
    kind = (_patched_colours, _blended, _patched_form, _blended)[clock.seed % 4]
    while True:
        found = kind(clock, rng)
        if all(legible(c.rim, c.face, c.hands, c.background) for c in (found.other or found, found)):
            return found


def _mix(clock: Clock, other: Clock | None, share: float) -> Mixed:
    own = {field.name: getattr(clock, field.name) for field in fields(Clock)}
    return Mixed(**own, unclear=(), other=other, share=share)


def _other_colours(clock: Clock, rng: Random) -> dict[str, str]:
    """One part or two with other names."""
    parts = rng.sample(PARTS, rng.randint(1, 2))
    return {part: rng.choice([name for name in COLOURS if name != getattr(clock, part)]) for part in parts}


def _patched_colours(clock: Clock, rng: Random) -> Mixed:
    names = _other_colours(clock, rng)
    found = _mix(clock, replace(clock, **names), rng.uniform(0.0, 0.5))
    return replace(found, unclear=tuple(part for part in names if _taken(found, part) > WHOLE))


def _blended(clock: Clock, rng: Random) -> Mixed:
    found = _mix(clock, None, 0.0)
    for part, name in _other_colours(clock, rng).items():
        found = _between(found, part, COLOURS[name], rng.uniform(0.1, 0.5))
    return found


def _patched_form(clock: Clock, rng: Random) -> Mixed:
    form = rng.choice((*FORMS, SWEEP))
    if form == SWEEP:
        return _patched_sweep(clock, rng)
    other = replace(clock, **{form: rng.choice([value for value in FORMS[form] if value != getattr(clock, form)])})
    found, taken = _mix(clock, other, rng.uniform(0.0, 0.6)), 1.0
    while taken > 0.5:
        found = replace(found, share=0.9 * found.share)
        taken = _differing(found)
    return replace(found, unclear=(form,) if taken > WHOLE else ())


def _patched_sweep(clock: Clock, rng: Random) -> Mixed:
    found = _mix(replace(clock, second_hand=True), replace(clock, second_hand=False), rng.uniform(0.0, 0.9))
    while (taken := _differing(found)) > 1 - WHOLE:
        found = replace(found, share=0.9 * found.share)
    return replace(found, unclear=(SWEEP,) if taken > WHOLE else ())


def _differing(clock: Mixed, side: int = 32) -> float:
    """The share that patches take of all that tells the clock from the other one."""
    pair = [np.asarray(clocks.render(replace(c, grain=0.0), side), np.float32) for c in (clock, clock.other or clock)]
    change = np.abs(pair[0] - pair[1]).sum(-1)
    return float((patches(clock.share, Random(f"patches {clock.seed}"), side) * change).sum() / change.sum())


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
