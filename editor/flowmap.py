"""Time t = 0 is noise and t = 1 is the image, here and everywhere in the core; only adapters know another clock.

The interpolant is x_t = (1 - t) x_0 + t x_1 with x_0 ~ N(0, I). A flow map obeys X_{t,t}(x) = x,
X_{u,t}(X_{s,u}(x)) = X_{s,t}(x) and d/ds X_{s,t} + (grad X_{s,t}) b_s = 0, with b_t its velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from editor.types import FlowMap, Latents, Times


def wide(t: Times, x: Tensor) -> Times:
    """A time, or one time per latent, shaped so that it multiplies latents."""
    return t.reshape(-1, *[1] * (x.ndim - 1)).to(x) if isinstance(t, Tensor) else t


@dataclass(frozen=True)
class AverageVelocity:
    """FlowMap from a two-time network v: X(x, s, t) = x + (t - s) v(x, s, t); its velocity is v(x, t, t)."""

    v: Callable[[Latents, Times, Times], Latents]
    two_time: bool = True

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        return x + (wide(t, x) - wide(s, x)) * self.v(x, s, t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        return self.v(x, t, t)


@dataclass
class Counted:
    """A flow map that counts its network evaluations: `nfe` grows by one per latent per call."""

    flow: FlowMap
    nfe: int = field(default=0, init=False)

    @property
    def two_time(self) -> bool:
        return self.flow.two_time

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        self.nfe += len(x)
        return self.flow(x, s, t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        self.nfe += len(x)
        return self.flow.velocity(x, t)


@dataclass(frozen=True)
class Watched:
    """A flow map that calls `look` before each of its evaluations: what that raises leaves the computation at hand."""

    flow: FlowMap
    look: Callable[[], None]

    @property
    def two_time(self) -> bool:
        return self.flow.two_time

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        self.look()
        return self.flow(x, s, t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        self.look()
        return self.flow.velocity(x, t)


def score_from_velocity(b: Latents, x: Latents, t: float) -> Latents:
    """s_t(x) = grad log rho_t(x) = (t b_t(x) - x) / (1 - t), for t < 1."""
    return (t * b - x) / (1 - t)


def denoise(flow: FlowMap, x: Latents, t: float) -> Latents:
    """D_t(x) = E[x_1 | x_t = x] = x + (1 - t) b_t(x); 1 NFE per latent."""
    return x + (1 - t) * flow.velocity(x, t)


def map_in_steps(flow: FlowMap, x: Latents, s: float, t: float, steps: int) -> Latents:
    """X_{s,t}(x) composed of `steps` jumps of equal length; `steps` NFE per latent."""
    times = torch.linspace(s, t, steps + 1, dtype=torch.float64).tolist()
    for a, b in pairwise(times):
        x = flow(x, a, b)
    return x


def _look_by_map(flow: FlowMap, x: Latents, t: float, steps: int) -> Latents:
    return map_in_steps(flow, x, t, 1.0, steps)


def _look_by_denoiser(flow: FlowMap, x: Latents, t: float, steps: int) -> Latents:
    return denoise(flow, x, t)


def _look_nowhere(flow: FlowMap, x: Latents, t: float, steps: int) -> Latents:
    return x


LOOKAHEADS: dict[str, Callable[[FlowMap, Latents, float, int], Latents]] = {
    "map": _look_by_map,
    "denoiser": _look_by_denoiser,
    "none": _look_nowhere,
}
"""(flow, x, t, steps) -> an estimate of the clean latents; `steps` matters to the map alone."""


def look_ahead(flow: FlowMap, x: Latents, t: float, kind: str, steps: int) -> Latents:
    """Where x_t will land, by a key of LOOKAHEADS; x itself, at no NFE, when t = 1."""
    return x if t == 1 else LOOKAHEADS[kind](flow, x, t, steps)


def transport(flow: FlowMap, x: Latents, s: float, t: float) -> Latents:
    """X_{s,t}(x), 1 NFE per latent.

    A map that knows only the end time t = 1 goes the same share of the straight way to its landing instead.
    """
    if flow.two_time or t == 1:
        return flow(x, s, t)
    return x + (t - s) / (1 - s) * (flow(x, s, 1.0) - x)
