"""What of an edit is a change of colours alone, put into the source's own shapes.

A flow map draws what gets another colour anew, and so a little aside: rims wave, numerals smear. Where the edit is
fitted by a map of the source's colours that is affine in every neighbourhood (the guided filter of He, Sun & Tang,
2010; photographs keep their looks under such maps, Luan et al., arXiv 1703.07511), that map itself, applied to the
source's own pixels, has the new colours and every edge where it was. The fit is robust: it follows what most of a
neighbourhood's pixels of a colour have become. Its coefficients are smooth, so that they are found at a small size and
serve any (He & Sun, arXiv 1505.00996).
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from editor.types import Images

GRID = 128
"""Pixels a side at which maps are fitted at most."""
NEAR = 9
"""Pixels to each side that one map is fitted to."""
TOLERANCE = 0.1
"""Deviation in [0, 1] pixel units beyond which a pixel is taken for one that was drawn elsewhere."""
STIFF = 1e-3
"""Variance of colours, of [0, 1] pixel units, under which a neighbourhood is only shifted and not mapped."""
ROUNDS = 3
"""Of the robust fit: weighted least squares, each weighted by what the one before left."""
ASIDE = 2
"""Pixels by which what is there may have been drawn aside."""
CLEAR = 0.15
"""Distance of two colours, in [0, 1] pixel units, that is a clear change."""
EDGE, GONE = 0.25, 0.4
"""Distance of the colours on both sides that makes an edge, and the share of it under which the edge is gone."""
MISFIT = 1e-3
"""Squared deviation by which one way fits so much worse than another that it counts a third of it."""

Maps = Float[Tensor, "batch 12 h w"]
"""What is added to each place's colour: three shifts, then three for each unit of red, green and blue."""


def colour_maps(source: Images, edits: Images) -> tuple[Maps, Maps]:
    """Maps of colours (N, 12, h, w) that come near to edits (N, 3, H, W) of a source (1, 3, H, W), in two ways.

    The first follows the edits. The second takes at each place what fits best around it, where a pixel may lie one
    aside: that, or no change, or maps that hold to the source. To these the pixel nearest in colour to the source's
    within ASIDE stands for each pixel of the edits: what was drawn a little aside keeps its colour. So numerals stay
    white beside a white rim that turns green. An edit that is not finite has none: its maps are not either.
    """
    source, edits = _small(source), _small(edits)
    followed, held = _robust(source, edits), _robust(source, _nearest(source, edits, ASIDE))
    ways = torch.stack([followed, held, torch.zeros_like(held)])
    misfits = []
    for maps in ways:
        shown = recoloured(source, maps)
        apart = _apart(shown, _nearest(shown, edits, 1)).square()
        misfits.append(F.avg_pool2d(apart, 5, stride=1, padding=2, count_include_pad=False))
    return followed, ((torch.stack(misfits) / -MISFIT).softmax(0) * ways).sum(0)


def _robust(source: Images, wanted: Images) -> Maps:
    """The maps of a source that come nearest to what is wanted."""
    weight = torch.ones_like(wanted[:, :1])
    for _ in range(ROUNDS):
        maps = _fitted(source, wanted, weight)
        weight = 1 / (1 + (_apart(recoloured(source, maps), wanted) / TOLERANCE).square())
    return maps


def left_out(source: Images, edits: Images, maps: Maps) -> Float[Tensor, " batch"]:
    """How much of edits (N, 3, H, W) of a source (1, 3, H, W) maps of colours leave out, as a share of what changed.

    Places count where either has a colour that the other has nowhere within ASIDE, so that what is drawn a little aside
    does not: the ghost of a hand that was taken away does, and so does a hand that was added.
    """
    source, edits = _small(source), _small(edits)
    shown = recoloured(source, maps)
    apart = torch.maximum(_apart(shown, _nearest(shown, edits, ASIDE)), _apart(edits, _nearest(edits, shown, ASIDE)))
    changed = (_apart(edits, source) > CLEAR).sum((1, 2, 3)).clamp(min=1)
    return (apart.nan_to_num(torch.inf) > CLEAR).sum((1, 2, 3)) / changed


def faded(source: Images, maps: Maps) -> Float[Tensor, " batch"]:
    """The share of a source's edges (1, 3, H, W) that maps of colours blur away, of all where they change anything.

    Colours that become others keep their edges, but those of a hand that is taken away fade, or leave a ghost of it.
    """
    source = _small(source)
    shown, before, lost = recoloured(source, maps), 0, 0
    changed = _apart(shown, source) > CLEAR
    for dim in (-1, -2):
        near, far = slice(None, -ASIDE), slice(ASIDE, None)
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


def _fitted(source: Images, wanted: Images, weight: Float[Tensor, "batch 1 h w"]) -> Maps:
    """Weighted least squares in each neighbourhood, averaged over those that a place belongs to."""
    terms = torch.cat([torch.ones_like(source[:, :1]), source], 1)
    pairs = list(combinations_with_replacement(range(4), 2))
    squares = torch.cat([terms[:, a : a + 1] * terms[:, b : b + 1] for a, b in pairs], 1)
    products = torch.cat([terms[:, a : a + 1] * (wanted - source) for a in range(4)], 1)
    sums = _around(torch.cat([weight * squares, weight * products], 1)) / _around(weight)
    left = sums.new_zeros(len(wanted), *source.shape[2:], 4, 4)
    for index, (a, b) in enumerate(pairs):
        left[..., a, b] = left[..., b, a] = sums[:, index]
    left += STIFF * torch.diag(left.new_tensor([1e-3, 1, 1, 1]))
    right = sums[:, len(pairs) :].unflatten(1, (4, 3)).permute(0, 3, 4, 1, 2)
    maps = torch.cholesky_solve(right, torch.linalg.cholesky_ex(left).L).flatten(3).permute(0, 3, 1, 2)
    return _around(weight * maps) / _around(weight)


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


def _nearest(shown: Images, edits: Images, aside: int) -> Images:
    """The pixels of edits within so many of each place that are nearest in colour to those shown there."""
    height, width = edits.shape[-2:]
    padded = F.pad(edits, [aside] * 4, mode="replicate")
    found, least = edits, _apart(edits, shown)
    for down, right in product(range(2 * aside + 1), repeat=2):
        moved = padded[..., down : down + height, right : right + width]
        apart = _apart(moved, shown)
        found, least = torch.where(apart < least, moved, found), torch.minimum(apart, least)
    return found


def _apart(a: Images, b: Images) -> Float[Tensor, "batch 1 h w"]:
    """Euclidean distance of colours."""
    return (a - b).square().sum(1, keepdim=True).sqrt()


def _small(images: Images) -> Images:
    """In float32, at most GRID pixels a side."""
    size = tuple(min(GRID, side) for side in images.shape[-2:])
    images = images.float()
    return images if size == images.shape[-2:] else F.interpolate(images, size=size, mode="area")
