"""Hands as searches draw them: bent, thick or faint in places, doubled, or at odds with one another.

These need neither a search nor a model. Each picture has to be compared with renders before anything is said of it:
some still show their time.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from editor import images
from training import clock_language as language
from training import clocks
from training.clocks import Clock

SIZE = 128
SEEN = 0.02
"""Least change of a pixel, of [0, 1], that belongs to a hand."""


def bent(clock: Clock, bare: Tensor, rng: Random, generator: torch.Generator) -> tuple[Tensor, int]:
    """A picture (1, 3, 128, 128) in [0, 1] of a clock at any time, its hands spoilt, and that time.

    The time is in minutes since twelve; `bare` (1, 3, 128, 128) is the clock without hands.
    """
    minutes = rng.randrange(720)
    shown = language.with_time(clock, minutes)
    hands = _shot(shown) - bare
    if rng.random() < 0.3:
        hands = _at_odds(shown, bare, minutes + rng.choice((-1, 1)) * rng.randint(3, 30))
    if rng.random() < 0.85:
        hands = _warped(hands, rng.uniform(0.5, 5.0), rng.randint(3, 7), generator)
    if rng.random() < 0.4:
        hands = _thick(hands, rng.choice((3, 5, 7)), generator)
    if rng.random() < 0.3:
        hands = hands * (rng.uniform(1, 5) + 3 * _smooth(5, 1, generator)).sigmoid()
    if rng.random() < 0.2:
        other = _shot(language.with_time(clock, rng.randrange(720))) - bare
        beside = hands.abs().sum(1, keepdim=True) < 0.05
        hands = hands + other * (3 * _smooth(4, 1, generator) - rng.uniform(0, 3)).sigmoid() * beside
    return (bare + hands).clamp(0, 1), minutes


def _at_odds(shown: Clock, bare: Tensor, other: int) -> Tensor:
    """The minute hand of a clock over the hour hand of another time: what they change."""
    minute = _shot(replace(shown, hour_hand=clocks.GONE)) - bare
    hour = _shot(replace(language.with_time(shown, other % 720), minute_hand=clocks.GONE)) - bare
    return torch.where(minute.abs().sum(1, keepdim=True) > SEEN, minute, hour)


def _warped(hands: Tensor, pixels: float, cells: int, generator: torch.Generator) -> Tensor:
    """Moved by about so many pixels, smoothly over so many cells a side."""
    straight = F.affine_grid(torch.eye(2, 3)[None], [1, 3, SIZE, SIZE], align_corners=False)
    bend = 2 * pixels / SIZE * _smooth(cells, 2, generator).permute(0, 2, 3, 1)
    return F.grid_sample(hands, straight + bend, mode="bilinear", padding_mode="zeros", align_corners=False)


def _thick(hands: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Thicker in some places: the strongest change within `width` pixels."""
    strength = hands.abs().sum(1, keepdim=True)
    _, at = F.max_pool2d(strength, width, 1, width // 2, return_indices=True)
    wide = hands.flatten(2).gather(2, at.flatten(2).expand(-1, 3, -1)).view_as(hands)
    return torch.lerp(hands, wide, (3 * _smooth(5, 1, generator)).sigmoid())


def _smooth(cells: int, channels: int, generator: torch.Generator) -> Tensor:
    """Noise (1, channels, 128, 128) that varies over so many cells a side."""
    noise = torch.randn(1, channels, cells, cells, generator=generator)
    return F.interpolate(noise, size=(SIZE, SIZE), mode="bicubic")


def _shot(clock: Clock) -> Tensor:
    return images.to_unit(clocks.render(clock))
