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
LINE, NO_LINE = 0.45, 0.15
"""How much of a line from the centre outwards has a second hand's colour: above the first it is one, and where none has
more than the second there is none."""
INNER, OUTER = 0.24, 0.78
"""Between which shares of the dial's radius a line is looked for: beyond the hub, and short of the marks."""


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


class Sweep:
    """One clock without a second hand, to tell whether a picture of it has one: a line clear of its hands.

    A second hand that lies along a hand is not told from a hand that has its colour in part: it counts as none.
    """

    ANGLES, PLACES = 180, 20

    def __init__(self, clock: Clock) -> None:
        self.clock = replace(clock, second_hand=False)
        plain = replace(self.clock, blur=0.0, grain=0.0)
        bare = replace(plain, hour_hand=clocks.GONE, minute_hand=clocks.GONE, tail=0.0)
        shown, self.face = (images.to_unit(clocks.render(c))[0] for c in (plain, bare))
        far = torch.tensor(clocks.sweep_colour(clock))[:, None, None] / 255 - self.face
        self.towards = far / far.square().sum(0, keepdim=True).clamp(min=0.01)
        angles = torch.arange(self.ANGLES) * 2 * math.pi / self.ANGLES
        radii = torch.linspace(INNER, OUTER, self.PLACES) * clock.dial
        x = clock.x + radii * angles.sin()[:, None]
        y = clock.y - radii * angles.cos()[:, None]
        self.rays = torch.stack([2 * x - 1, 2 * y - 1], -1)[None]
        hands = ((shown - self.face).abs().amax(0) > CHANGED).float()
        self.clear = self._along(F.max_pool2d(hands[None], 5, stride=1, padding=2)[0]) < 0.02

    def read(self, picture: Tensor) -> float:
        """The most that any line has of a second hand's colour, in [0, 1], in a picture (3, 128, 128) in [0, 1]."""
        cover = ((picture - self.face) * self.towards).sum(0).clamp(0, 1)
        along, count = self._along(F.max_pool2d(cover[None], 3, stride=1, padding=1)[0]), self.clear.sum(1)
        mean = (along * self.clear).sum(1) / count.clamp(min=1)
        return float(mean[count > 0.6 * self.PLACES].max())

    def label(self, picture: Tensor) -> FoundLook | None:
        """What a picture of the clock that was to get a second hand shows of it; None where that is open to doubt."""
        found = self.read(picture)
        if NO_LINE < found < LINE:
            return None
        return FoundLook(_pixels(picture), self.clock.seed, "second hand", "yes", "yes" if found >= LINE else "no")

    def _along(self, values: Tensor) -> Tensor:
        """Values (128, 128) along the lines, (ANGLES, PLACES)."""
        return F.grid_sample(values[None, None], self.rays, align_corners=False)[0, 0]


def _pixels(picture: Tensor) -> np.ndarray:
    return np.asarray(images.to_pil(picture[None]))


def _apart(a: int, b: int) -> int:
    """Minutes between two times of a clock's face."""
    return min((a - b) % 720, (b - a) % 720)
