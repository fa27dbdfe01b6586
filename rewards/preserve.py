"""Closeness to the source, of its pixels or latents and of its outlines and layout, to add to log-odds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

PIXEL_TOLERANCE = 0.1
"""Deviation in [0, 1] pixel units that begins to cost: a clear change, about 20 dB."""
EDGE = 0.05
"""Step between neighbouring pixels, in [0, 1], that begins to count as an edge; stronger ones count by logarithm."""
GRID, SOFT = 128, 3
"""Edges are looked for in images of at most so many pixels a side, and their places taken in squares of so many."""
SIZES, SHIFTS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2), (-0.03, 0.0, 0.03)
"""Sizes and places, in shares of the side, at which a source is looked for."""


@dataclass(frozen=True)
class Preserve:
    """-mean of log(1 + e^2 / tolerance^2) / 2, e^2 a place's squared deviation, averaged over its channels; a `Reward`.

    Up to a constant the mean log-density of a Cauchy law in place of a normal one: a deviation of one tolerance
    everywhere costs 0.35, of ten 2.3, as many nats of a check's log-odds. What must change may change altogether, and
    all the rest is held; with the plain square, a weight that kept hands crisp forbade another background.
    The mean is weighted by `weight`; so the cost doesn't grow with the size of the image or of what must stay.

    `source` and what it is compared with are of one kind: images in [0, 1], or latents in the flow
    map's scale, whose tolerance is best a stated share of their standard deviation.
    """

    source: Float[Tensor, "#batch c h w"]
    tolerance: float = PIXEL_TOLERANCE
    weight: Float[Tensor, "#batch 1 h w"] | None = None
    """How much each place must stay, zero or more; None for everywhere alike. See `outside`."""

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, not {self.tolerance!r}.")
        if self.weight is None:
            return
        if self.weight.shape[-2:] != self.source.shape[-2:] or self.weight.shape[-3] != 1:
            raise ValueError(f"A weight must be a map of {tuple(self.source.shape[-2:])}: resize it with `outside`.")
        if (self.weight < 0).any() or not (self.weight.sum((1, 2, 3)) > 0).all():
            raise ValueError("A weight must be zero or more, and above zero somewhere: nothing would have to stay.")

    def __call__(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, " batch"]:
        """Zero for the source itself, below for everything else."""
        squares = (images - self.source.to(images)).square().mean(1, keepdim=True)
        cost = (squares / self.tolerance**2).log1p() / 2
        if self.weight is None:
            return -cost.mean((1, 2, 3))
        weight = self.weight.to(images)
        return -(cost * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))


def outside(mask: Float[Tensor, "#batch 1 height width"], size: tuple[int, int]) -> Float[Tensor, "#batch 1 h w"]:
    """The weight map of what lies outside `mask` (1 where the edit may act), averaged down to `size`.

    For latents, `size` is theirs: a latent that the mask touches in part must stay in part.
    """
    return 1.0 - F.interpolate(mask, size=size, mode="area")


class Kept(NamedTuple):
    """What images lose by edges that lie elsewhere than a source's, both (batch,) in [-2, 0]."""

    outlines: Float[Tensor, " batch"]
    """Pearson's correlation with the source's edges, less 1: another colour costs next to nothing, where edges stay."""
    drift: Float[Tensor, " batch"]
    """What that correlation is under the best with the source moved or scaled as a whole: parts may change colours,
    outlines and places for nothing, while a picture that is drawn anew a little larger or to one side pays."""


class Layout:
    """Where the edges of a source lie. `Preserve` can't tell a move from a change of colour, and no check asks."""

    def __init__(self, source: Float[Tensor, "1 3 height width"]) -> None:
        ways, small = [(size, right, down) for size in SIZES for right in SHIFTS for down in SHIFTS], _small(source)
        affine = torch.tensor([[[1 / s, 0, 2 * x], [0, 1 / s, 2 * y]] for s, x, y in ways]).to(small)
        grid = F.affine_grid(affine, [len(ways), *small.shape[1:]], align_corners=False)
        many = small.expand(len(ways), -1, -1, -1)
        moved = F.grid_sample(many, grid, mode="bilinear", padding_mode="border", align_corners=False)
        self._edges = _standard(edges(torch.cat([small, moved]))).flatten(1)

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Kept:
        """Zeros for the source itself; images without edges lose -1 and no drift."""
        found = _standard(edges(images)).flatten(1)
        fits = found @ self._edges.to(found).T
        return Kept(fits[:, 0] - 1, fits[:, 0] - fits.amax(1))


def edges(images: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch 1 h w"]:
    """log(1 + step^2 / EDGE^2) of the step to the right and down over all channels, averaged around each pixel."""
    small = _small(images)
    right, down = F.pad(small.diff(dim=-1), (0, 1)), F.pad(small.diff(dim=-2), (0, 0, 0, 1))
    steps = (right.square() + down.square()).sum(1, keepdim=True)
    return F.avg_pool2d((steps / EDGE**2).log1p(), SOFT, stride=1, padding=SOFT // 2)


def _small(images: Float[Tensor, "batch c height width"]) -> Float[Tensor, "batch c h w"]:
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    size = tuple(min(GRID, side) for side in images.shape[-2:])
    return images if size == images.shape[-2:] else F.adaptive_avg_pool2d(images, size)


def _standard(value: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, "batch 1 h w"]:
    """Each map with a mean of 0 and a length of 1; one that is the same everywhere becomes 0."""
    apart = value - value.mean((1, 2, 3), keepdim=True)
    return apart / apart.square().sum((1, 2, 3), keepdim=True).clamp(min=1e-12).sqrt()
