"""Whether a result lies where its source lies: the offset between them, to a small part of a pixel.

Normalised gradient correlation (Tzimiropoulos et al., Robust FFT-Based Scale-Invariant Image Registration with Image
Gradients, PAMI 2010), taken over overlapping tiles that vote. Tile k gives the surface

    c_k(d) = Re sum_x conj(g(x)) h(x + d) / (|g| |h|),        g = ds/dx + i ds/dy of the source, h of the result,

and votes for the lags d at which that is near its highest. The offset is the lag with most votes: what an edit
repainted votes at random or for itself, what it left alone votes for no offset, a flat tile has no vote, a straight
edge votes for every lag along it. Fractions of a pixel are reached by the inverse transform at those lags
(Guizar-Sicairos et al., Efficient Subpixel Image Registration Algorithms, Optics Letters 2008).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor

TILE = 64
"""Side of a tile in pixels; half of it for pictures that are smaller. Offsets up to a quarter of it are found."""
TEXTURE = 0.004
"""Change from pixel to pixel (root mean square, of the full range) under which a tile has no vote."""
SHARPNESS = 40.0
"""A tile's vote falls by the factor e for every 1 / SHARPNESS that its correlation at a lag is under its highest."""
AGREEMENT = 0.4
"""The least share of the votes, in [0, 1], that says anything."""
LAGS_PER_PIXEL = 20
PASSES = 4
"""Tiles fade towards their edges, which pulls offsets towards none: a large one is looked at again, moved back."""
NOTICEABLE = 0.5
"""Pixels over which an offset is warned about."""

Images = Float[Tensor, "1 3 height width"]
Surfaces = Float[Tensor, "tiles rows columns"]
Spectra = Complex[Tensor, "tiles side side"]


class Offset(NamedTuple):
    """How far the content of a picture moved, in pixels: to the right and down."""

    x: float
    y: float

    @property
    def length(self) -> float:
        return math.hypot(self.x, self.y)


def offset(source: Images, result: Images, counted: Bool[Tensor, "1 1 height width"] | None = None) -> Offset | None:
    """How far a result lies from its source, of the same size, in [0, 1]; None where the pictures can't tell.

    `counted` says which pixels do; a tile votes if all of its pixels do.
    """
    x = y = 0.0
    for _ in range(PASSES):
        back = result.roll((-round(y), -round(x)), (-2, -1))
        spectra = _cross_spectra(source, back, counted)
        found = None if spectra is None else _agreed(spectra)
        if found is None:
            return None
        x, y = round(x) + found.x, round(y) + found.y
        if max(map(abs, found)) <= 0.5:
            break
    return Offset(round(x, 2), round(y, 2))


def warning(found: Offset | None) -> str:
    """A sentence about an offset that shows; empty for none."""
    if found is None or found.length <= NOTICEABLE:
        return ""
    return (
        f"The result lies {found.length:.1f} pixels off your picture ({found.x:+.1f} across, {found.y:+.1f} down): "
        "lower the strength, or mask what should change."
    )


def _cross_spectra(source: Images, result: Images, counted: Tensor | None) -> Spectra | None:
    """Of the tiles that have a vote, each with a highest possible correlation of 1; None if there is no such tile."""
    side = TILE if min(source.shape[-2:]) >= TILE else TILE // 2
    g, h = _gradients(source, side), _gradients(result, side)
    lengths = [tiles.abs().square().sum((-2, -1)).sqrt() for tiles in (g, h)]
    votes = torch.minimum(*lengths) > TEXTURE * side
    if counted is not None:
        votes &= _tiles(counted, side).flatten(1).all(1)
    if not votes.any():
        return None
    g, h = (tiles[votes] / length[votes, None, None] for tiles, length in zip((g, h), lengths, strict=True))
    return torch.fft.fft2(g).conj() * torch.fft.fft2(h) / side**2


def _tiles(maps: Tensor, side: int) -> Tensor:
    """(1, 1, H, W) -> overlapping squares (tiles, side, side); each begins half a side after the last."""
    return maps[0, 0].unfold(0, side, side // 2).unfold(1, side, side // 2).reshape(-1, side, side)


def _gradients(image: Images, side: int) -> Spectra:
    """The gradient of the grey picture, across + i down, in tiles that fade towards their edges."""
    grey = F.pad(image.float().mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
    down = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
    fade = torch.hann_window(side)
    return torch.complex(_tiles(across, side), _tiles(down, side)) * fade[:, None] * fade


def _agreed(spectra: Spectra) -> Offset | None:
    """The lag that most tiles vote for, of their cross spectra; None if too few agree on any."""
    reach = spectra.shape[-1] // 4
    whole, near = torch.arange(-reach, reach + 1), torch.arange(-LAGS_PER_PIXEL, LAGS_PER_PIXEL + 1) / LAGS_PER_PIXEL
    surfaces = _at_lags(spectra, whole, whole)
    highest = surfaces.amax((-2, -1))
    _, row, column = _most_votes(surfaces, highest)
    rows, columns = whole[row] + near, whole[column] + near
    surfaces = _at_lags(spectra, rows, columns)
    share, row, column = _most_votes(surfaces, torch.maximum(highest, surfaces.amax((-2, -1))))
    return Offset(float(columns[column]), float(rows[row])) if share >= AGREEMENT else None


def _most_votes(surfaces: Surfaces, highest: Float[Tensor, " tiles"]) -> tuple[float, int, int]:
    """The share of the votes that the lag with most of them has, its row and its column."""
    votes = highest.clamp(min=0)[:, None, None] * torch.exp(SHARPNESS * (surfaces - highest[:, None, None]))
    shares = votes.mean(0)
    best = int(shares.argmax())
    return float(shares.flatten()[best]), best // shares.shape[1], best % shares.shape[1]


def _at_lags(spectra: Spectra, rows: Tensor, columns: Tensor) -> Surfaces:
    """The real part of the inverse transforms at any lags, in pixels."""
    frequency = 2 * math.pi * torch.fft.fftfreq(spectra.shape[-1])
    down, across = (torch.exp(1j * lags[:, None] * frequency) for lags in (rows, columns))
    return (down @ spectra @ across.T).real
