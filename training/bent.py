"""Clocks with hands that are drawn badly, in the ways in which searches draw them; a renderer's work, no network's.

Only what the hands change in the picture is spoilt: frame, marks and colours stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch.nn import functional as F

from training import clock_language as language
from training import clocks
from training.clocks import COLOURS, Clock
from training.mixes import patches

WARPED = 4.5
"""Pixels of 128 that a place is moved by, as the largest deviation of the moves."""
REMAINS = 0.5
"""Share that hands which stood elsewhere may keep: with more they would be the clock's."""

Change = np.ndarray
"""What hands change in a picture: float (128, 128, 3), of 255."""


def bare(clock: Clock) -> Clock:
    """The clock without its hour and minute hands."""
    return replace(clock, hour_hand=(0.01, 0.01), minute_hand=(0.01, 0.01), tail=0.0)


def bent(clock: Clock, rng: Random) -> Image.Image:
    """The clock with up to three things wrong with its hands; in one of seven nothing is."""
    empty = _pixels(bare(clock))
    change = _pixels(clock) - empty
    for way in rng.sample(WAYS, rng.choice((0, 1, 1, 1, 2, 2, 3))):
        change = way(clock, change, rng)
    return Image.fromarray(np.clip(np.rint(empty + change), 0, 255).astype(np.uint8))


def warped(clock: Clock, change: Change, rng: Random) -> Change:
    """Every place moved a little, neighbours together."""
    side, cells = len(change), rng.randint(4, 12)
    reach = rng.uniform(0.3, WARPED) * min(1.0, 6 / cells)
    moves = torch.from_numpy(np.random.default_rng(rng.getrandbits(32)).standard_normal((1, 2, cells, cells))).float()
    moves = F.interpolate(moves, size=(side, side), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1) + reach * moves * 2 / side
    image = torch.from_numpy(change).permute(2, 0, 1)[None]
    found = F.grid_sample(image, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return found[0].permute(1, 2, 0).numpy()


def gaps(clock: Clock, change: Change, rng: Random) -> Change:
    """Hands that are missing in part, or pale there."""
    gone = rng.choice((1.0, rng.random()))
    return change * (1 - gone * patches(rng.uniform(0.03, 0.35), rng)[..., None])


def swollen(clock: Clock, change: Change, rng: Random) -> Change:
    """Hands of another length or width, in part."""
    (hour, broad), (minute, narrow) = clock.hour_hand, clock.minute_hand
    other = replace(
        clock, hour_hand=(hour * rng.uniform(0.7, 1.35), broad * rng.uniform(0.5, 2.2)),
        minute_hand=(min(1.0, minute * rng.uniform(0.6, 1.2)), narrow * rng.uniform(0.5, 2.5)),
        tail=rng.choice((clock.tail, rng.uniform(0, 0.4))),
    )  # fmt: skip
    return change + patches(rng.uniform(0.2, 0.9), rng)[..., None] * (_hands(other, clock) - change)


def remains(clock: Clock, change: Change, rng: Random) -> Change:
    """Hands that stood elsewhere shine through, or stand there in part."""
    return _behind(clock, change, rng.choice((-1, 1)) * rng.randint(12, 360), rng)


def doubled(clock: Clock, change: Change, rng: Random) -> Change:
    """The same of hands that stood near by: thick ones, or forks."""
    return _behind(clock, change, rng.choice((-1, 1)) * rng.randint(2, 12), rng)


def splashed(clock: Clock, change: Change, rng: Random) -> Change:
    """Crooked strokes on the dial, most of them as the hands are coloured, others in no colour of the clock."""
    before = Image.fromarray(np.clip(_pixels(bare(clock)) + change, 0, 255).astype(np.uint8))
    canvas, side = before.copy(), len(change)
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.randint(1, 8)):
        colour = COLOURS[clock.hands if rng.random() < 0.6 else rng.choice(list(COLOURS))]
        far, around = rng.choice((0.0, rng.random())) * clock.dial, rng.uniform(0, 2 * math.pi)
        points = [((clock.x + far * math.sin(around)) * side, (clock.y - far * math.cos(around)) * side)]
        way = rng.uniform(0, 2 * math.pi)
        for _ in range(rng.randint(2, 6)):
            way += rng.uniform(-0.6, 0.6)
            x, y = points[-1]
            points.append((x + 5 * math.sin(way), y - 5 * math.cos(way)))
        draw.line(points, fill=colour, width=rng.randint(1, 4), joint="curve")
    blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2))
    after, without = (np.asarray(image.filter(blur), np.float32) for image in (canvas, before))
    place = (np.arange(side) + 0.5) / side
    inside = (np.hypot(place[None] - clock.x, place[:, None] - clock.y) < clock.dial).astype(np.float32)
    return change + rng.uniform(0.3, 1.0) * inside[..., None] * (after - without)


def softened(clock: Clock, change: Change, rng: Random) -> Change:
    """Hands out of focus."""
    image = torch.from_numpy(change).permute(2, 0, 1)[None]
    for _ in range(rng.choice((1, 2))):
        image = F.avg_pool2d(image, 3, stride=1, padding=1)
    return image[0].permute(1, 2, 0).numpy()


WAYS: tuple[Callable[[Clock, Change, Random], Change], ...] = (
    warped, warped, warped, gaps, swollen, remains, doubled, splashed, softened,
)  # fmt: skip
"""What may be wrong; what stands here more than once is likelier."""


def _pixels(clock: Clock) -> np.ndarray:
    return np.asarray(clocks.render(clock), np.float32)


def _hands(shown: Clock, clock: Clock) -> Change:
    """What the hands of one clock change in the picture of another."""
    return _pixels(shown) - _pixels(bare(clock))


def _behind(clock: Clock, change: Change, away: int, rng: Random) -> Change:
    """Parts of hands that stood so many minutes away, where the clock's own change less."""
    other = _hands(language.with_time(clock, clock.minutes + away), clock)
    faint, few = (rng.uniform(0.1, REMAINS), rng.uniform(0.1, 0.6)), (1.0, rng.uniform(0.03, 0.25))
    strength, area = faint if rng.random() < 0.5 else few
    share = strength * patches(area, rng)[..., None]
    stronger = np.abs(other).sum(-1, keepdims=True) > np.abs(change).sum(-1, keepdims=True)
    return np.where(stronger, change + share * (other - change), change).astype(np.float32)
