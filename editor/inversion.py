"""From a clean latent at t = 1 back to its noisy latent at t0 along the velocity, and there again.

Flow maps are trained towards the image, so the way back integrates b_t by the midpoint rule:
global error O(steps^-2), two network evaluations a step. Steps are even, or as the time shift m of the profile
places them (`editor.schedules.shifted`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch

from editor.flowmap import Counted
from editor.schedules import grid
from editor.types import FlowMap, Latents


class Inversion(NamedTuple):
    """Latents at t0 and the network evaluations they took."""

    x: Latents
    nfe: int


class RoundTrip(NamedTuple):
    """Latents carried back to t0 (`x`) and from there to t = 1 again (`back`)."""

    x: Latents
    back: Latents
    nfe: int


def integrate(flow: FlowMap, x: Latents, s: float, t: float, steps: int, shift: float = 1.0) -> Latents:
    """Carry x from time s to time t, either way, along the velocity in `steps` midpoint steps; 2 NFE each."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps!r}.")
    for u, v in pairwise(grid(s, t, steps, shift)):
        h = v - u
        x = x + h * flow.velocity(x + h / 2 * flow.velocity(x, u), u + h / 2)
    return x


@torch.no_grad()
def invert(flow: FlowMap, x1: Latents, t0: float, steps: int = 8, shift: float = 1.0) -> Inversion:
    """Carry clean latents x1 from t = 1 back to t0 in [0, 1)."""
    counted = Counted(flow)
    return Inversion(integrate(counted, x1, 1.0, t0, steps, shift), counted.nfe)


@torch.no_grad()
def roundtrip(flow: FlowMap, x1: Latents, t0: float, steps: int = 8, shift: float = 1.0) -> RoundTrip:
    """Invert to t0, then carry forward by the same rule: `back` - `x1` is what the edit cannot keep."""
    counted = Counted(flow)
    x = integrate(counted, x1, 1.0, t0, steps, shift)
    return RoundTrip(x, integrate(counted, x, t0, 1.0, steps, shift), counted.nfe)
