"""Flow maps that are exactly known: Gaussian data in closed form, Gaussian mixtures by accurate integration.

They accept latents of any shape (batch, ...), whose elements are taken as one vector of d numbers, and compute in
the dtype of their parameters' latents. They are the oracles of every test of the samplers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from editor.types import Latents, Times


@dataclass(frozen=True)
class Quadratic:
    """The reward r(x) = -(x - a)' L (x - a) / 2 with target a (d,) and symmetric, positive L (d, d)."""

    target: Tensor
    precision: Tensor

    def __call__(self, x: Latents) -> Tensor:
        y = x.flatten(1) - self.target
        return -0.5 * ((y @ self.precision) * y).sum(1)


class Mixture:
    """The flow map of a mixture of Gaussians N(means[k], covs[k]), weights (k,), means (k, d), covs (k, d, d).

    At time t component k is N(t m_k, S_k) with S_k = t^2 C_k + (1 - t)^2 I, which has the axes of C_k at all times.
    Velocity and score are closed forms: those of the components, weighted by their posterior probabilities p_k. The
    map integrates the velocity by the classical Runge-Kutta rule, `resolution` steps for the way from 0 to 1, at equal
    distances of the angle atan(t / (1 - t)), which spaces them finely where the flow bends; error O(resolution^-4).
    Raises ValueError unless weights are positive and covariances positive definite.
    """

    two_time = True

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, resolution: int = 128) -> None:
        variances, axes = torch.linalg.eigh(covs)
        if not (weights.min() > 0 and variances.min() > 0):
            raise ValueError("Weights of Gaussians must be positive, and their covariances positive definite.")
        self.weights, self.means, self.covs, self.resolution = weights / weights.sum(), means, covs, resolution
        self._variances = variances.T.contiguous()
        """(d, k) of each component along its axes."""
        self._axes = axes.permute(1, 2, 0).flatten(1)
        """(d, d k): the axes of all components, so that one product takes latents to all their coordinates."""
        self._centres = torch.einsum("ki,kij->jk", means, axes).flatten()
        """(d k): the means in these coordinates."""

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        start, end = (torch.atan2(_column(u, x), 1 - _column(u, x)) for u in (s, t))
        steps = max(1, math.ceil(self.resolution * float((end - start).detach().abs().max()) / (math.pi / 2) - 1e-9))
        h = (end - start) / steps
        y = x.flatten(1)
        for k in range(steps):
            y = self._runge_kutta(y, start + k * h, h)
        return y.reshape(x.shape)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t(x) = sum_k p_k(x) [m_k + S_k' S_k^{-1} (x - t m_k) / 2], where S_k' = dS_k / dt."""
        return self._velocity(x.flatten(1), _column(t, x)).reshape(x.shape)

    def score(self, x: Latents, t: Times) -> Latents:
        """grad log rho_t(x) = -sum_k p_k(x) S_k^{-1} (x - t m_k)."""
        p, pull = self._posterior(x.flatten(1), _column(t, x))
        return -self._back(p[:, None] * pull).reshape(x.shape)

    def log_density(self, x: Latents, t: Times) -> Tensor:
        """log rho_t(x), (batch,)."""
        return torch.logsumexp(self._log_joint(*self._components(x.flatten(1), _column(t, x))), 1)

    def sample(self, n: int, t: float, generator: torch.Generator) -> Tensor:
        """n draws of the law at t, (n, d)."""
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        picks = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        one = torch.nn.functional.one_hot(picks, len(self.weights)).to(noise)
        y, _ = self._components(noise, _column(0.0, noise))
        return t * self.means[picks] + self._back(one[:, None] * self._spread(_column(t, noise)).sqrt() * y)

    def tilted(self, reward: Quadratic) -> tuple[Mixture, float]:
        """The law proportional to rho_1 e^r, and log Z = log E[e^r].

        Component k becomes N(C (C_k^{-1} m_k + L a), C) with C = (C_k^{-1} + L)^{-1}, its weight w_k Z_k / Z, where
        log Z_k = -log det(I + C_k L) / 2 - (m_k - a)' L (I + C_k L)^{-1} (m_k - a) / 2.
        """
        target, precision, inverses = reward.target, reward.precision, torch.linalg.inv(self.covs)
        covs = torch.linalg.inv(inverses + precision)
        covs = (covs + covs.mT) / 2
        pulls = (inverses @ self.means[..., None])[..., 0] + precision @ target
        means = (covs @ pulls[..., None])[..., 0]
        spread = torch.eye(len(target), dtype=target.dtype) + self.covs @ precision
        gaps = self.means - target
        costs = ((gaps @ precision) * torch.linalg.solve(spread, gaps)).sum(1)
        log_weights = self.weights.log() - (torch.logdet(spread) + costs) / 2
        tilted = Mixture(torch.softmax(log_weights, 0), means, covs, self.resolution)
        return tilted, float(torch.logsumexp(log_weights, 0))

    def _spread(self, t: Tensor) -> Tensor:
        """The variances of S_k along its axes, (1 or batch, d, k), for a column of times."""
        t = t[..., None]
        return t**2 * self._variances + (1 - t) ** 2

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x - t m_k along the axes of each component, (batch, d, k), and the variances there."""
        y = torch.addmm(-t * self._centres, x, self._axes).unflatten(1, self._variances.shape)
        return y, self._spread(t)

    def _back(self, y: Tensor) -> Tensor:
        """The sum over components of y (batch, d, k), which is along their axes: (batch, d)."""
        return y.flatten(1) @ self._axes.T

    def _log_joint(self, y: Tensor, spread: Tensor) -> Tensor:
        """log of weight times density of each component, (batch, k)."""
        return self.weights.log() - 0.5 * ((y.square() / spread).sum(1) + (2 * math.pi * spread).log().sum(1))

    def _posterior(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """p_k(x), (batch, k), and S_k^{-1} (x - t m_k) along the axes of each component, (batch, d, k)."""
        y, spread = self._components(x, t)
        return torch.softmax(self._log_joint(y, spread), 1), y / spread

    def _velocity(self, x: Tensor, t: Tensor) -> Tensor:
        p, pull = self._posterior(x, t)
        u = t[..., None]
        return p @ self.means + self._back(p[:, None] * (u * self._variances - (1 - u)) * pull)

    def _runge_kutta(self, x: Tensor, angle: Tensor, h: Tensor) -> Tensor:
        a = self._slope(x, angle)
        b = self._slope(x + h / 2 * a, angle + h / 2)
        c = self._slope(x + h / 2 * b, angle + h / 2)
        d = self._slope(x + h * c, angle + h)
        return x + h / 6 * (a + 2 * b + 2 * c + d)

    def _slope(self, x: Tensor, angle: Tensor) -> Tensor:
        """dx / d angle, where t = sin / (sin + cos)."""
        total = angle.sin() + angle.cos()
        return self._velocity(x, angle.sin() / total) / total**2


class Gaussian(Mixture):
    """The flow map of data N(mean, cov), mean (d,) and positive definite cov (d, d): a mixture of one component.

    Its map is a closed form too: X_{s,t}(x) = t mean + (S_t / S_s)^{1/2} (x - s mean) with S_t = t^2 cov + (1 - t)^2 I.
    """

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        super().__init__(mean.new_ones(1), mean[None], cov[None])
        self.mean, self.cov = mean, cov

    @property
    def variances(self) -> Tensor:
        """Of the data along their axes, (d,)."""
        return self._variances[:, 0]

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        s, t = _column(s, x), _column(t, x)
        y, spread = self._components(x.flatten(1), s)
        return (t * self.mean + self._back((self._spread(t) / spread).sqrt() * y)).reshape(x.shape)

    def tilted(self, reward: Quadratic) -> tuple[Gaussian, float]:
        """See `Mixture.tilted`."""
        law, log_z = super().tilted(reward)
        return Gaussian(law.means[0], law.covs[0]), log_z


def _column(t: Times, x: Latents) -> Tensor:
    """A time or one time per latent as a column (1 or batch, 1)."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, 1)
