"""Looks as searches leave them half-way: hands in two colours, marks of two kinds, a second hand that is a stub.

These need neither a search nor a model: how much of a change each picture shows is known from how it was made.
"""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from editor import images
from training import clock_language as language
from training import clocks
from training.bent import SIZE, warped
from training.clocks import Clock, legible
from training.mixes import WHOLE, patches

HALVED = ("hands", "marks", "second hand")
HALF = (0.25, 0.75)
"""Shares of a change between which neither value of a look is there."""


def half(clock: Clock, attribute: str, rng: Random, generator: torch.Generator) -> tuple[Tensor, str, str]:
    """A clock changed in part: its picture (1, 3, 128, 128) in [0, 1], the value it changes to, and the value it has.

    The attribute is one of HALVED. Of three pictures about one shows each value, and one neither: the last is empty.
    """
    clock = replace(clock, second=rng.randrange(60))
    target = language.another(clock, attribute, rng)
    while not legible(target.rim, target.face, target.hands, target.background):
        target = language.another(clock, attribute, rng)
    before, after = _shot(clock), _shot(target)
    change, (low, high) = after - before, rng.choice(((0.0, WHOLE), HALF, (1 - WHOLE, 1.0)))
    share, mask = -1.0, torch.empty(0)
    while not low <= share <= high:
        mask = _mask(clock, attribute, change, rng)
        share = float((change.abs() * mask).sum() / change.abs().sum())
    old, new = (language.value(c, attribute) for c in (clock, target))
    shown = old if share <= WHOLE else new if share >= 1 - WHOLE else ""
    bare = before if attribute == "marks" else _shot(_without(clock, attribute))
    drawn = before + change * mask - bare
    if rng.random() < 0.7:
        drawn = warped(drawn, rng.uniform(0.3, 2.0), rng.randint(3, 6), generator)
    return (bare + drawn).clamp(0, 1), new, shown


def _mask(clock: Clock, attribute: str, change: Tensor, rng: Random) -> Tensor:
    """Where the change is made, (128, 128) in [0, 1]: in patches, or as suits the attribute."""
    if rng.random() < 0.25:
        return torch.from_numpy(patches(rng.uniform(0, 1), rng))
    if attribute == "marks":
        return _hours(clock, rng)
    if attribute == "hands" and rng.random() < 0.5:
        return _core(change, rng) if rng.random() < 0.5 else _turned(clock, rng)
    return _reach(clock, rng)


def _polar(clock: Clock) -> tuple[Tensor, Tensor]:
    """How far each pixel is from the centre, in radii of the dial, and its angle in turns clockwise from twelve."""
    side = (torch.arange(SIZE) + 0.5) / SIZE
    x, y = side[None] - clock.x, side[:, None] - clock.y
    return torch.hypot(x, y) / clock.dial, torch.atan2(x, -y) / (2 * math.pi) % 1


def _reach(clock: Clock, rng: Random) -> Tensor:
    """From the centre as far as some circle, or from there outwards."""
    away, _ = _polar(clock)
    inner = ((rng.uniform(0.0, 1.0) - away) * 15 + 0.5).clamp(0, 1)
    return inner if rng.random() < 0.7 else 1 - inner


def _turned(clock: Clock, rng: Random) -> Tensor:
    """About one hand of two: on one side of a line through the centre."""
    _, turn = _polar(clock)
    return ((turn - rng.random()) % 1 < rng.uniform(0.3, 0.7)).float()


def _hours(clock: Clock, rng: Random) -> Tensor:
    """About some of the twelve hours."""
    _, turn = _polar(clock)
    chosen = torch.tensor(rng.sample([0.0] * 12 + [1.0] * 12, 12))
    if rng.random() < 0.5:
        chosen = torch.zeros(12)
        chosen[: rng.randint(0, 12)] = 1
        chosen = chosen.roll(rng.randrange(12))
    return chosen[(turn * 12).round().long() % 12]


def _core(change: Tensor, rng: Random) -> Tensor:
    """Within the strokes and not at their edges, or at their edges alone."""
    strength = (change.abs().amax(1, keepdim=True) > 0.05).float()
    inside = F.avg_pool2d(strength, 3, stride=1, padding=1)[0, 0]
    core = ((inside - rng.uniform(0.3, 1.0)) * 4 + 0.5).clamp(0, 1)
    return core if rng.random() < 0.5 else 1 - core


def _without(clock: Clock, attribute: str) -> Clock:
    """The clock without what changes, to move that on its ground."""
    if attribute == "second hand":
        return replace(clock, second_hand=False)
    return replace(clock, hour_hand=clocks.GONE, minute_hand=clocks.GONE, tail=0.0)


def _shot(clock: Clock) -> Tensor:
    return images.to_unit(clocks.render(clock))
