"""A flow map that acts inside a mask alone, so that what is drawn there fits what stays around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from editor.particles import noise_in
from editor.types import FlowMap, Latents, Times


@dataclass(frozen=True)
class Held:
    """The flow map `flow` with all latents outside a mask on their source's own way from noise to image.

    There x_t = t x_1 + (1 - t) e, x_1 the source and e the noise that its inversion to t0 found: a straight way, on
    which the map knows the source again at every time. Inputs and results are put there; inside it is the map itself.
    """

    flow: FlowMap
    mask: Float[Tensor, "1 1 h w"]
    """In [0, 1], 1 where the flow acts."""
    source: Latents
    """x_1 (1, C, h, w)."""
    noise: Latents
    """e (1, C, h, w)."""

    @classmethod
    def of(cls, flow: FlowMap, mask: Tensor, source: Latents, x: Latents, start: float) -> Held:
        """`flow` around a source that was carried back to x at time `start` < 1."""
        return cls(flow, mask.to(source), source, noise_in(x, source, start))

    @property
    def two_time(self) -> bool:
        return self.flow.two_time

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        return self._held(self.flow(self._held(x, s), s, t), t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t inside, the source's own constant velocity outside."""
        return torch.lerp((self.source - self.noise).expand_as(x), self.flow.velocity(self._held(x, t), t), self.mask)

    def _held(self, x: Latents, t: Times) -> Latents:
        share = t.reshape(-1, 1, 1, 1).to(x) if isinstance(t, Tensor) else t
        return torch.lerp((share * self.source + (1 - share) * self.noise).expand_as(x), x, self.mask)
