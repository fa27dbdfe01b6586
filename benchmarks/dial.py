"""Where the parts of a clock lie in its picture, from the known layout alone, whatever they look like.

Pixels are float arrays (H, W, 3) in 8-bit steps; angles are in steps of half a degree clockwise from twelve, so that
angle k is where the hour hand stands k minutes after twelve; radii are in pixels, or in dials where a name says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.special import erf

from training import clocks
from training.clocks import MARKS, SUPERSAMPLING, Clock

ANGLES = 720
STEP = 1.0
"""Pixels between two circles of a grid, on a picture of 128."""
BLURS = (0.5, 1.0, 1.5, 2.0)
"""Standard deviations of the blur in pixels of a picture of 128 that hands are compared with; a clean one has 0.5."""
STENCIL = {"rim": "white", "face": "white", "hands": "white", "background": "white", "second_hand": False,
           "light": (0.0, 0.0), "shadow": (0.0, 0.0, 0.0), "blur": 0.0, "grain": 0.0, "tint": ((0, 0, 0),) * 4}
"""What makes everything but the marks of a clock white."""


class Grid(NamedTuple):
    """Circles around the centre of a clock: radii[i] and angle j stand for the place (rows[i, j], columns[i, j])."""

    radii: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray
    """True where the place lies in the picture."""

    def sample(self, pixels: np.ndarray) -> np.ndarray:
        """The pixels on the circles, (radii, angles, 3), by bilinear interpolation."""
        at = (self.rows, self.columns)
        return np.stack([map_coordinates(pixels[..., c], at, order=1, mode="nearest") for c in range(3)], axis=-1)


def centre(layout: Clock, side: int) -> tuple[float, float]:
    """Row and column of the centre; reducing a larger drawing moves the middle of its pixels."""
    shift = (SUPERSAMPLING - 1) / 2 / SUPERSAMPLING
    return layout.y * side - shift, layout.x * side - shift


@lru_cache(maxsize=96)
def grid(layout: Clock, side: int, inner: float, outer: float, angles: int = ANGLES) -> Grid:
    """Circles from `inner` to `outer` dials around the clock of a picture of side x side pixels."""
    dial, (row, column) = layout.dial * side, centre(layout, side)
    radii = np.arange(inner * dial, outer * dial, STEP * side / 128, dtype=np.float32)
    around = 2 * np.pi * np.arange(angles, dtype=np.float32) / angles
    rows = row - radii[:, None] * np.cos(around)
    columns = column + radii[:, None] * np.sin(around)
    inside = (np.minimum(rows, columns) >= 0) & (np.maximum(rows, columns) <= side - 1)
    return Grid(radii, rows, columns, inside)


def unlit(image: Image.Image, layout: Clock) -> np.ndarray:
    """The picture without the gradient of its light, which no edit changes."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    direction, depth = layout.light
    ramp = np.linspace(-0.5, 0.5, len(pixels), dtype=np.float32)
    light = 1 - depth / 2 + depth * (math.cos(direction) * ramp[None, :] + math.sin(direction) * ramp[:, None])
    return pixels / light[:, :, None]


def hand(along: np.ndarray, across: np.ndarray, size: tuple[float, float], tail: float, dial: float,
         blur: float) -> np.ndarray:  # fmt: skip
    """Coverage in [0, 1] of a blurred hand at places `along` and `across` its direction, in pixels; its size in dials.

    `blur` is a standard deviation in pixels; along the hand the width counts as constant, being so nearly.
    """
    length, width = size
    share = np.clip((along / dial + tail) / (length + tail), 0, 1)
    half = width * dial * (0.5 - 0.2 * share) + 1 / (2 * SUPERSAMPLING)

    def between(place: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return 0.5 * (erf((high - place) / (blur * 2**0.5)) - erf((low - place) / (blur * 2**0.5)))

    return between(across, -half, half) * between(along, -tail * dial, length * dial)


class Templates(NamedTuple):
    """Both hands pointing to twelve on the circles of `grid`, and how much each place of the grid tells of hands."""

    grid: Grid
    dial: float
    """Radius inside the rim in pixels."""
    hands: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Hour hand and minute hand for every one of BLURS."""
    weight: np.ndarray
    """The area a place stands for; zero where marks of any kind may lie."""

    def at(self, minutes: int, sharpness: int = 0) -> np.ndarray:
        """Coverage of both hands at so many minutes since twelve, for a blur by its index: (radii, ANGLES)."""
        hour, minute = self.hands[sharpness]
        return np.maximum(np.roll(hour, minutes, axis=1), np.roll(minute, minutes % 60 * 12, axis=1))


@lru_cache(maxsize=32)
def templates(layout: Clock, side: int) -> Templates:
    """The hands of a layout, from outside the boss to where even a minute hand is short of the marks' outer end."""
    circles = grid(layout, side, 0.12, 0.80)
    around = 2 * np.pi * np.arange(ANGLES, dtype=np.float32) / ANGLES
    along, across = circles.radii[:, None] * np.cos(around), circles.radii[:, None] * np.sin(around)
    sizes, dial = (layout.hour_hand, layout.minute_hand), layout.dial * side
    hands = tuple(tuple(hand(along, across, size, layout.tail, dial, blur * side / 128).astype(np.float32)
                        for size in sizes) for blur in BLURS)  # fmt: skip
    marked = sum(marks(layout, side).values())
    near = map_coordinates(marked, (circles.rows, circles.columns), order=1, mode="nearest") > 0.02
    weight = np.where(near, 0, circles.radii[:, None]).astype(np.float32)
    return Templates(circles, dial, hands, weight)


@lru_cache(maxsize=32)
def marks(layout: Clock, side: int) -> dict[str, np.ndarray]:
    """Coverage in [0, 1] of the marks of every kind, (side, side) each, as this layout places them."""
    blank = replace(layout, shape="round", **STENCIL)
    found = {}
    for kind in MARKS:
        grey = np.asarray(clocks.render(replace(blank, marks=kind), side).convert("L"), dtype=np.float32)
        found[kind] = (grey.max() - grey) / (grey.max() - grey.min())
    return found


def outline(shape: str, angles: int) -> np.ndarray:
    """Distance of the outline from the centre at each angle, in units of the circle inside it."""
    around = 2 * np.pi * np.arange(angles, dtype=np.float32) / angles
    if shape == "round":
        return np.ones_like(around)
    wedge = {"square": np.pi / 2, "octagonal": np.pi / 4}[shape]
    return 1 / np.cos((around + wedge / 2) % wedge - wedge / 2)
