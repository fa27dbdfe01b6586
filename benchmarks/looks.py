"""Colours, shape and marks of a clock, from the pixels of its parts."""

from __future__ import annotations

import numpy as np

from benchmarks.dial import ANGLES, centre, grid, marks, outline
from training.clocks import COLOURS, SHAPES, Clock

PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
NAMES = tuple(COLOURS)
CONTRAST = 45.0
"""8-bit steps by which a thing must stand out from its ground to be seen."""
FARTHEST = 90.0
"""8-bit steps from the nearest named colour beyond which a colour has no name."""
LEAST_MARKS = 0.35
"""Correlation with the best kind of marks; under it there are none."""
SIZES = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12, 1.16)
"""Sizes that an outline is compared at, as shares of the layout's: an octagon that is made round may become the circle
around it as well as the one within."""


def middle(pixels: np.ndarray) -> np.ndarray:
    """The colour that most of the pixels have: their median, and again that of those near it."""
    pixels = pixels.reshape(-1, 3)
    first = np.median(pixels, axis=0)
    near = np.linalg.norm(pixels - first, axis=1) < CONTRAST
    return np.median(pixels[near], axis=0) if near.any() else first


def name_of(colour: np.ndarray) -> str | None:
    """The nearest named colour."""
    away = np.linalg.norm(PALETTE - colour, axis=1)
    return NAMES[int(away.argmin())] if away.min() <= FARTHEST else None


def coverage(seen: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """How much of each pixel shows `colour` over `ground`, in [0, 1]; little where it shows neither."""
    way = colour - ground
    length = np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1.0)
    way = way / length
    along = ((seen - ground) * way).sum(-1, keepdims=True)
    aside = np.linalg.norm(seen - ground - along * way, axis=-1)
    share = np.clip(along / length, 0, 1)[..., 0] * np.exp(-((aside / (0.4 * length[..., 0])) ** 2))
    return np.where(length[..., 0] < CONTRAST, 0, share)


def rim_colour(pixels: np.ndarray, layout: Clock) -> np.ndarray:
    """The colour of the rim where all outlines agree: within 12 degrees of twelve, three, six and nine."""
    thickness = layout.radius / layout.dial - 1
    ring = grid(layout, len(pixels), 1 + 0.35 * thickness, 1 + 0.75 * thickness)
    angle = np.arange(ANGLES) % (ANGLES // 4)
    near = np.minimum(angle, ANGLES // 4 - angle) <= ANGLES * 12 // 360
    return middle(ring.sample(pixels)[:, near])


def background_colour(pixels: np.ndarray, layout: Clock) -> np.ndarray:
    """The colour of the fifth of the background that is farthest from clock and shadow, were both square."""
    side = len(pixels)
    row, column = centre(layout, side)
    rows, columns = np.mgrid[:side, :side]
    beside = np.maximum(abs(rows - row), abs(columns - column)) > layout.radius * side + 1.5
    dx, dy, _ = layout.shadow
    apart = np.maximum(abs(rows - row - dy * side), abs(columns - column - dx * side))[beside]
    return middle(pixels[beside][apart >= np.quantile(apart, 0.8)])


def find_shape(pixels: np.ndarray, layout: Clock, colours: tuple[np.ndarray, np.ndarray, np.ndarray]) -> str:
    """The outline that explains best, at any of SIZES, which pixels show face, rim and background of these colours."""
    side, angles = len(pixels), ANGLES // 2
    dial, radius = layout.dial * side, layout.radius * side
    ring = grid(layout, side, 0.88, 1.6 * radius / dial, angles)
    seen = ring.sample(pixels)
    face, rim, background = colours
    shade = np.clip(seen @ background / max(float(background @ background), 1.0), 0.5, 1)[..., None]
    misfits = np.stack([np.linalg.norm(seen - colour, axis=-1) for colour in (face, rim, shade * background)])
    misfits = np.minimum(misfits, 150) * ring.inside * ring.radii[:, None]

    def misfit(shape: str) -> float:
        reach = ring.radii[:, None] / outline(shape, angles)
        parts = ((reach > size * dial).astype(int) + (reach > size * radius) for size in SIZES)
        return min(float(np.take_along_axis(misfits, part[None], axis=0).sum()) for part in parts)

    return min(SHAPES, key=misfit)


def find_marks(pixels: np.ndarray, layout: Clock, face: np.ndarray, hidden: np.ndarray) -> str | None:
    """The kind of marks whose drawing correlates best with what stands out near the edge of the dial.

    `hidden` (H, W) is True where hands lie.
    """
    side = len(pixels)
    row, column = centre(layout, side)
    rows, columns = np.mgrid[:side, :side]
    away = np.hypot(rows - row, columns - column) / (layout.dial * side)
    ring = (away > 0.62) & (away < 0.97) & ~hidden
    light = (pixels - face).mean(-1)[ring]
    light = np.clip(light, *np.quantile(light, (0.01, 0.99)))
    fits = {kind: abs(_correlation(light, drawn[ring])) for kind, drawn in marks(layout, side).items()}
    best = max(fits, key=fits.__getitem__)
    return best if fits[best] >= LEAST_MARKS else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-6))
