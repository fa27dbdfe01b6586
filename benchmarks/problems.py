"""Problems with known answers, on exact flow maps: data, reward, tilted law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editor.oracles import Gaussian, Mixture, Quadratic
from editor.types import FlowMap, Scored

F64 = torch.float64


@dataclass(frozen=True)
class Problem:
    """Data of d dimensions by its exact flow map, a reward, and what is known of the law rho_1 e^r / Z."""

    flow: FlowMap
    d: int
    reward: Callable[[Tensor], Tensor]
    log_z: float
    draw: Callable[[int, torch.Generator], Tensor] | None = None
    """n exact samples (n, d) of the tilted law; None where only its numbers are known."""

    def score(self, y: Tensor) -> Scored:
        return Scored(self.reward(y))


def gaussian(d: int) -> tuple[Problem, Gaussian]:
    """Correlated data with variances from 0.2 to 2, and a quadratic reward one unit away; also the tilted law.

    The reward's curvature falls as d^{-1/2}, so that it varies by a few units whatever d.
    """
    g = torch.Generator().manual_seed(d)
    axes = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=F64))[0]
    cov = (axes * torch.logspace(math.log10(0.2), math.log10(2), d, dtype=F64)) @ axes.T
    flow = Gaussian(torch.randn(d, generator=g, dtype=F64) / 2, (cov + cov.T) / 2)
    gap = torch.randn(d, generator=g, dtype=F64)
    reward = Quadratic(flow.mean + gap, torch.eye(d, dtype=F64) / math.sqrt(d))
    law, log_z = flow.tilted(reward)
    return Problem(flow, d, reward, log_z, lambda n, generator: law.sample(n, 1.0, generator)), law


@dataclass(frozen=True)
class HalfPlane:
    """The mixture problem's exact answers."""

    share: float
    """Of x_0 > 0 in the tilted law."""
    reward: float
    """Its mean."""
    data_share: float
    data_reward: float


def eight_modes(resolution: int) -> tuple[Problem, HalfPlane]:
    """Eight Gaussians of sd 0.5 on a circle of radius 4, and r(x) = -x_0^2 where x_0 < 0: stay on the right."""
    angles = torch.arange(8, dtype=F64) * math.pi / 4
    means, sd = 4 * torch.stack([angles.cos(), angles.sin()], 1), 0.5
    flow = Mixture(torch.ones(8, dtype=F64), means, sd**2 * torch.eye(2, dtype=F64).expand(8, 2, 2), resolution)
    grid = torch.linspace(-8, 8, 16001, dtype=F64)
    data = torch.exp(-0.5 * ((grid[:, None] - means[:, 0]) / sd) ** 2).mean(1) / (sd * math.sqrt(2 * math.pi))
    worth = -grid.clamp(max=0).square()
    tilted, width = data * worth.exp(), float(grid[1] - grid[0])
    right = grid > 0
    exact = HalfPlane(
        share=float(tilted[right].sum() / tilted.sum()),
        reward=float((tilted * worth).sum() / tilted.sum()),
        data_share=float(data[right].sum() / data.sum()),
        data_reward=float((data * worth).sum() / data.sum()),
    )
    log_z = math.log(float(tilted.sum()) * width)
    return Problem(flow, 2, lambda y: -y[:, 0].clamp(max=0).square(), log_z), exact


RING_RADIUS, RING_WIDTH = 2.0, 0.1


def ring() -> Problem:
    """Standard normal data in the plane, tilted to a ring: rho_1 e^r ~ exp(-(|x| - 2)^2 / (2 0.1^2))."""
    flow = Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    radii = torch.linspace(RING_RADIUS - 8 * RING_WIDTH, RING_RADIUS + 8 * RING_WIDTH, 20001, dtype=F64)
    density = radii * torch.exp(-((radii - RING_RADIUS) ** 2) / (2 * RING_WIDTH**2))
    log_z = math.log(float(density.sum()) * float(radii[1] - radii[0]))

    def reward(y: Tensor) -> Tensor:
        squares = y.square().sum(1)
        radius = (squares + 1e-12).sqrt()  # the root has no slope at the centre
        return squares / 2 - (radius - RING_RADIUS) ** 2 / (2 * RING_WIDTH**2)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        radius = radii[torch.multinomial(density, n, replacement=True, generator=generator)]
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=F64)
        return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)

    return Problem(flow, 2, reward, log_z, draw)


def noise(n: int, d: int, seed: int) -> Tensor:
    """n latents of rho_0 (n, d)."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(10**6 + seed), dtype=F64)
