"""Changes of colours alone, put into the source's own pixels.

Where a wanted picture is a change of the source's colours, a map that is affine in every neighbourhood comes near to it
(the guided filter of He, Sun & Tang, 2010; photographs keep their looks under such maps, Luan et al., arXiv
1703.07511). That map, applied to the source's own pixels, has the new colours and every edge where it was, soft where
it was soft. Its coefficients are found at a small size and serve any (He & Sun, arXiv 1505.00996).
"""

from __future__ import annotations

from itertools import combinations_with_replacement

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from editor.types import Images

GRID = 128
"""Pixels a side at which maps are fitted at most."""
NEAR = 3
"""Pixels to each side that one map is fitted to."""
TOLERANCE = 0.1
"""Deviation in [0, 1] pixel units beyond which a pixel counts less, as one that belongs to the region beside."""
STIFF = 1e-3
"""Variance of colours, of [0, 1] pixel units, under which a neighbourhood is only shifted and not mapped."""
ROUNDS = 3
"""Of the robust fit: weighted least squares, each weighted by what the one before left."""
ACROSS = 2
"""Pixels from one side of an edge to the other."""
CLEAR = 0.15
"""Distance of two colours, in [0, 1] pixel units, that is a clear change."""
EDGE, GONE = 0.25, 0.4
"""Distance of the colours on both sides that makes an edge, and the share of it under which the edge is gone."""

Maps = Float[Tensor, "batch 12 h w"]
"""What is added to each place's colour: three shifts, then three for each unit of red, green and blue."""


class Fit:
    """Maps of one source (1, 3, H, W) towards many wanted pictures, from one factorisation; see `colour_maps`."""

    def __init__(self, source: Images) -> None:
        self.source = small(source)
        self._left = _normal(self.source, torch.ones_like(self.source[:, :1]))

    def __call__(self, wanted: Images) -> Maps:
        """Plain least squares: good enough to choose by."""
        right = _right(self.source, wanted, torch.ones_like(self.source[:, :1]))
        return _around(_solved(self._left, right))


def colour_maps(source: Images, wanted: Images) -> Maps:
    """The maps of colours (N, 12, h, w) of a source (1, 3, H, W) that come nearest to wanted pictures (N, 3, H, W).

    The fit is robust: at the rim of a region pixels are a mixture of two colours, which the map makes of the new ones.
    """
    source, wanted = small(source), small(wanted)
    weight = torch.ones_like(wanted[:, :1])
    for _ in range(ROUNDS):
        maps = _solved(_normal(source, weight), _right(source, wanted, weight))
        maps = _around(weight * maps) / _around(weight)
        weight = 1 / (1 + (_apart(recoloured(source, maps), wanted) / TOLERANCE).square())
    return maps


def faded(source: Images, maps: Maps) -> Float[Tensor, " batch"]:
    """The share of a source's edges (1, 3, H, W) that maps of colours blur away, of all where they change anything.

    Colours that become others keep their edges, but those of a hand that takes the colour of the face fade.
    """
    source = small(source)
    shown, before, lost = recoloured(source, maps), 0, 0
    changed = _apart(shown, source) > CLEAR
    for dim in (-1, -2):
        near, far = slice(None, -ACROSS), slice(ACROSS, None)
        sides = [(..., part) if dim == -1 else (..., part, slice(None)) for part in (near, far)]
        old, new = (_apart(*(images[side] for side in sides)) for images in (source, shown))
        edge = (old > EDGE) & (changed[sides[0]] | changed[sides[1]])
        before, lost = before + edge.sum((1, 2, 3)), lost + (edge & (new < GONE * old)).sum((1, 2, 3))
    return lost / before.clamp(min=1)


def recoloured(pixels: Float[Tensor, "#batch 3 height width"], maps: Maps) -> Images:
    """Pixels of any size with their colours mapped; not clamped. Larger maps are made for one picture at a time."""
    if maps.shape[-2:] == pixels.shape[-2:]:
        shift, *slopes = maps.to(pixels).split(3, dim=1)
        return pixels + shift + sum(slope * pixels[:, c : c + 1] for c, slope in enumerate(slopes))
    size, each = pixels.shape[-2:], zip(pixels.expand(len(maps), -1, -1, -1).split(1), maps.split(1), strict=True)
    return torch.cat([recoloured(own, F.interpolate(one, size=size, mode="bilinear")) for own, one in each])


def small(images: Images) -> Images:
    """In float32, at most GRID pixels a side."""
    size = tuple(min(GRID, side) for side in images.shape[-2:])
    images = images.float()
    return images if size == images.shape[-2:] else F.interpolate(images, size=size, mode="area")


def _terms(source: Images) -> Float[Tensor, "1 4 h w"]:
    return torch.cat([torch.ones_like(source[:, :1]), source], 1)


def _normal(source: Images, weight: Float[Tensor, "#batch 1 h w"]) -> Float[Tensor, "#batch h w 4 4"]:
    """The inverse of the normal equations' left side in each neighbourhood, for weights of its pixels."""
    terms, pairs = _terms(source), list(combinations_with_replacement(range(4), 2))
    squares = torch.cat([terms[:, a : a + 1] * terms[:, b : b + 1] for a, b in pairs], 1)
    sums = _around(weight * squares) / _around(weight)
    left = sums.new_zeros(len(weight), *source.shape[2:], 4, 4)
    for index, (a, b) in enumerate(pairs):
        left[..., a, b] = left[..., b, a] = sums[:, index]
    return torch.linalg.inv(left + STIFF * torch.diag(left.new_tensor([1e-3, 1, 1, 1])))


def _right(source: Images, wanted: Images, weight: Float[Tensor, "#batch 1 h w"]) -> Float[Tensor, "batch 4 3 h w"]:
    terms = _terms(source)
    products = torch.cat([terms[:, a : a + 1] * (wanted - source) for a in range(4)], 1)
    return (_around(weight * products) / _around(weight)).unflatten(1, (4, 3))


def _solved(left: Float[Tensor, "#batch h w 4 4"], right: Float[Tensor, "batch 4 3 h w"]) -> Maps:
    return torch.einsum("nhwab,nbchw->nachw", left.expand(len(right), -1, -1, -1, -1), right).flatten(1, 2)


def _around(values: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c h w"]:
    """Means over the square of NEAR pixels to each side, as far as it lies within; a share of the side when small."""
    for dim in (-1, -2):
        size = values.shape[dim]
        near, at = max(1, round(NEAR * size / GRID)), torch.arange(size, device=values.device)
        count = (at + near + 1).clamp(max=size) - (at - near).clamp(min=0)
        sums = values.movedim(dim, -1).cumsum(-1)
        last = sums[..., -1:].expand(*sums.shape[:-1], near)
        sums = F.pad(torch.cat([sums, last], -1), (near + 1, 0))
        values = ((sums[..., 2 * near + 1 :] - sums[..., :size]) / count).movedim(-1, dim)
    return values


def _apart(a: Images, b: Images) -> Float[Tensor, "batch 1 h w"]:
    """Euclidean distance of colours."""
    return (a - b).square().sum(1, keepdim=True).sqrt()
