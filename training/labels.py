"""What a picture that a model made shows of a known clock: found by comparing it with renders, by no network."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from editor import images
from editor.adapters import LatentCodec
from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.finds import TIMELESS, Found, FoundLook
from training.world import Request

SURE, LOST, WRECKED = 0.35, 0.5, 0.7
"""Error of the nearest hands, as a share: below the first, their time is the picture's; above the next, none is."""
NEAR = 10
"""Minutes: bent hands this near to the time that was asked for may show it to a person, so nothing is said of them,
unless they are wrecked with no second hand to blame, which searches draw where they like."""
WHOLE, REDRAWN, NEITHER = 0.15, 0.2, 0.45
"""Error of a look, as a share of what tells it from the source's: a part below the first has the colour, and what is
redrawn a little aside, outlines and hands, below the second; above the third neither is there, or both."""
CHANGED = 0.05
"""Least change of a pixel, of [0, 1], that tells two looks apart."""


class Dial:
    """One clock's hands at every time, to read a picture of it by comparison."""

    @torch.no_grad()
    def __init__(self, clock: Clock, codec: LatentCodec) -> None:
        self.clock, self.known = clock, {}
        side = (torch.arange(128) + 0.5) / 128
        self.inside = (side[None] - clock.x).square() + (side[:, None] - clock.y).square() < clock.dial**2
        bare = replace(clock, hour_hand=clocks.GONE, minute_hand=clocks.GONE, tail=0.0)
        self.bare = images.to_unit(clocks.render(bare))
        self.seen_bare = codec.render(codec.encode(self.bare.to(codec.vae.device))).cpu()

    def hands(self, minutes: int) -> Tensor:
        """What the hands change in the dial's pixels (P, 3), at so many minutes since twelve."""
        minutes %= 720
        if minutes not in self.known:
            shown = images.to_unit(clocks.render(language.with_time(self.clock, minutes)))
            self.known[minutes] = self._dial(shown - self.bare)
        return self.known[minutes]

    def read(self, picture: Tensor) -> tuple[int, float]:
        """Minutes since twelve of the hands nearest to those in a picture (3, 128, 128) in [0, 1], and how near.

        The second is the error's share of all that differs from a clock without hands: 0 is equal; two pairs of
        hands at half strength, or none, are near 1.
        """
        change = self._dial(picture[None] - self.seen_bare)

        def error(minutes: int) -> float:
            return float((self.hands(minutes) - change).square().mean())

        coarse = sorted(range(0, 720, 5), key=error)[:4]
        best = min((minutes + step for minutes in coarse for step in range(-2, 3)), key=error)
        return best % 720, error(best) / float(change.square().mean())

    def label(self, picture: Tensor, asked: int) -> Found | None:
        """What time a picture of the dial's clock shows; None where that is open to doubt."""
        minutes, error = self.read(picture)
        near = asked != TIMELESS and _apart(minutes, asked) <= NEAR
        lost = (WRECKED if not self.clock.second_hand else math.inf) if near else LOST
        if SURE < error < lost:
            return None
        return Found(_pixels(picture), self.clock.seed, minutes if error <= SURE else TIMELESS, asked)

    def _dial(self, change: Tensor) -> Tensor:
        soft = F.avg_pool2d(change, 3, stride=1, padding=1)
        return soft[0].permute(1, 2, 0)[self.inside]


class Look:
    """One clock before and after a change of a colour or its shape, to tell how far a picture of it is."""

    @torch.no_grad()
    def __init__(self, clock: Clock, wanted: Request, codec: LatentCodec) -> None:
        ((self.attribute, _),) = wanted.changes
        self.clock, target = clock, language.apply(clock, wanted)
        self.before, self.after = (language.value(c, self.attribute) for c in (clock, target))
        pair = torch.cat([images.to_unit(clocks.render(c)) for c in (clock, target)])
        self.where = ((pair[0] - pair[1]).abs().amax(0) > CHANGED).float()
        self.seen = codec.render(codec.encode(pair.to(codec.vae.device))).cpu()
        self.dials = [Dial(c, codec) for c in (clock, target)] if self.attribute == "hands" else []

    def errors(self, picture: Tensor) -> tuple[float, float]:
        """How far a picture (3, 128, 128) in [0, 1] is from source and target where these differ.

        As shares of their own squared distance; of hands, which may stand elsewhere, as `Dial.read` has it.
        """
        if self.dials:
            undone, left = (dial.read(picture)[1] for dial in self.dials)
            return undone, left
        soft = F.avg_pool2d(torch.stack([picture, *self.seen]), 3, stride=1, padding=1) * self.where
        apart = (soft[1] - soft[2]).square().sum()
        return float((soft[0] - soft[1]).square().sum() / apart), float((soft[0] - soft[2]).square().sum() / apart)

    def label(self, picture: Tensor) -> FoundLook | None:
        """What a picture of the clock has of the change; None where that is open to doubt, as of bent hands."""
        undone, left = self.errors(picture)
        near = REDRAWN if self.attribute in ("hands", "shape") else WHOLE
        least = min(undone, left)
        if near < least and (self.dials or least < NEITHER):
            return None
        shown = "" if least > near else self.after if left < undone else self.before
        return FoundLook(_pixels(picture), self.clock.seed, self.attribute, self.after, shown)


def _pixels(picture: Tensor) -> np.ndarray:
    return np.asarray(images.to_pil(picture[None]))


def _apart(a: int, b: int) -> int:
    """Minutes between two times of a clock's face."""
    return min((a - b) % 720, (b - a) % 720)
