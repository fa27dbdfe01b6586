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


class Gaussian:
    """The flow map of data N(mean, cov), mean (d,) and positive definite cov (d, d).

    With S_t = t^2 cov + (1 - t)^2 I the law at t is N(t mean, S_t), and
    X_{s,t}(x) = t mean + (S_t / S_s)^{1/2} (x - s mean).
    """

    two_time = True

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        variances, axes = torch.linalg.eigh(cov)
        if not variances.min() > 0:
            raise ValueError("The covariance of a Gaussian must be positive definite.")
        self.mean, self.cov, self.variances, self.axes = mean, cov, variances, axes

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        s, t = _column(s, x), _column(t, x)
        ratio = (self._variance(t) / self._variance(s)).sqrt()
        return (t * self.mean + self._along_axes(x.flatten(1) - s * self.mean, ratio)).reshape(x.shape)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t(x) = mean + S_t' S_t^{-1} (x - t mean) / 2."""
        t = _column(t, x)
        rate = (t * self.variances - (1 - t)) / self._variance(t)
        return (self.mean + self._along_axes(x.flatten(1) - t * self.mean, rate)).reshape(x.shape)

    def score(self, x: Latents, t: Times) -> Latents:
        """grad log rho_t(x) = -S_t^{-1} (x - t mean)."""
        t = _column(t, x)
        return -self._along_axes(x.flatten(1) - t * self.mean, 1 / self._variance(t)).reshape(x.shape)

    def log_density(self, x: Latents, t: Times) -> Tensor:
        """log rho_t(x), (batch,)."""
        t = _column(t, x)
        variance = self._variance(t)
        y = (x.flatten(1) - t * self.mean) @ self.axes
        return -0.5 * (y.square() / variance + (2 * math.pi * variance).log()).sum(-1)

    def sample(self, n: int, t: float, generator: torch.Generator) -> Tensor:
        """n draws of the law at t, (n, d)."""
        noise = torch.randn(n, len(self.mean), generator=generator, dtype=self.mean.dtype)
        return t * self.mean + self._along_axes(noise, self._variance(t).sqrt())

    def tilted(self, reward: Quadratic) -> tuple[Gaussian, float]:
        """The law proportional to rho_1 e^r, and log Z = log E[e^r]."""
        mean, target, precision = self.mean, reward.target, reward.precision
        cov = torch.linalg.inv(torch.linalg.inv(self.cov) + precision)
        cov = (cov + cov.T) / 2
        shifted = cov @ (torch.linalg.solve(self.cov, mean) + precision @ target)
        spread = torch.eye(len(mean), dtype=mean.dtype) + self.cov @ precision
        gap = mean - target
        log_z = -0.5 * torch.logdet(spread) - 0.5 * gap @ precision @ torch.linalg.solve(spread, gap)
        return Gaussian(shifted, cov), float(log_z)

    def _variance(self, t: Times) -> Tensor:
        return t**2 * self.variances + (1 - t) ** 2

    def _along_axes(self, y: Tensor, factor: Tensor) -> Tensor:
        return ((y @ self.axes) * factor) @ self.axes.T


class Mixture:
    """The flow map of a mixture of Gaussians N(means[k], sds[k]^2 I), weights (k,), means (k, d), sds (k,).

    Velocity and score are closed forms: those of the components, weighted by their posterior probabilities. The map
    integrates the velocity by the classical Runge-Kutta rule, `resolution` steps for the way from 0 to 1, at equal
    distances of the angle atan(t / (1 - t)), which spaces them finely where the flow bends; error O(resolution^-4).
    """

    two_time = True

    def __init__(self, weights: Tensor, means: Tensor, sds: Tensor, resolution: int = 128) -> None:
        if not (weights.min() > 0 and sds.min() > 0):
            raise ValueError("The weights and standard deviations of a mixture must be positive.")
        self.weights, self.means, self.sds, self.resolution = weights / weights.sum(), means, sds, resolution

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        start, end = (torch.atan2(_column(u, x), 1 - _column(u, x)) for u in (s, t))
        steps = max(1, math.ceil(self.resolution * float((end - start).detach().abs().max()) / (math.pi / 2) - 1e-9))
        h = (end - start) / steps
        y = x.flatten(1)
        for k in range(steps):
            y = self._runge_kutta(y, start + k * h, h)
        return y.reshape(x.shape)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t(x) = sum_k p_k(x) [m_k + (t sd_k^2 - (1 - t)) / S_k (x - t m_k)] with S_k = t^2 sd_k^2 + (1 - t)^2."""
        return self._velocity(x.flatten(1), _column(t, x)).reshape(x.shape)

    def score(self, x: Latents, t: Times) -> Latents:
        """grad log rho_t(x) = -sum_k p_k(x) (x - t m_k) / S_k."""
        t = _column(t, x)
        return self._blend(x.flatten(1), t, torch.zeros_like(self.means), -1 / self._variance(t)).reshape(x.shape)

    def log_density(self, x: Latents, t: Times) -> Tensor:
        """log rho_t(x), (batch,)."""
        return torch.logsumexp(self._log_joint(x.flatten(1), _column(t, x)), 1)

    def sample(self, n: int, t: float, generator: torch.Generator) -> Tensor:
        """n draws of the law at t, (n, d)."""
        picks = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return t * self.means[picks] + self._variance(t).sqrt()[picks, None] * noise

    def tilted(self, reward: Quadratic) -> tuple[Mixture, float]:
        """The law proportional to rho_1 e^r for a reward of precision c I, and log Z = log E[e^r]."""
        eye = torch.eye(self.means.shape[1], dtype=self.means.dtype)
        parts = [Gaussian(mean, sd**2 * eye).tilted(reward) for mean, sd in zip(self.means, self.sds, strict=True)]
        if any(not torch.allclose(law.cov, law.cov[0, 0] * eye) for law, _ in parts):
            raise ValueError("A mixture is tilted in closed form only by a reward whose precision is a multiple of I.")
        log_weights = self.weights.log() + torch.tensor([log_z for _, log_z in parts], dtype=self.means.dtype)
        means = torch.stack([law.mean for law, _ in parts])
        sds = torch.stack([law.cov[0, 0].sqrt() for law, _ in parts])
        tilted = Mixture(torch.softmax(log_weights, 0), means, sds, self.resolution)
        return tilted, float(torch.logsumexp(log_weights, 0))

    def _variance(self, t: Times) -> Tensor:
        return t**2 * self.sds**2 + (1 - t) ** 2

    def _log_joint(self, x: Tensor, t: Tensor) -> Tensor:
        """log of weight times density of each component, (batch, k); x is (batch, d), t a column."""
        variance, d = self._variance(t), x.shape[1]
        squares = x.square().sum(1, keepdim=True) - 2 * t * (x @ self.means.T) + t**2 * self.means.square().sum(1)
        return self.weights.log() - 0.5 * (squares / variance + d * (2 * math.pi * variance).log())

    def _blend(self, x: Tensor, t: Tensor, constants: Tensor, rates: Tensor) -> Tensor:
        """sum_k p_k(x) [constants_k + rates_k (x - t m_k)], (batch, d)."""
        share = torch.softmax(self._log_joint(x, t), 1)
        pull = share * rates
        return share @ constants + pull.sum(1, keepdim=True) * x - t * (pull @ self.means)

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

    def _velocity(self, x: Tensor, t: Tensor) -> Tensor:
        rates = (t * self.sds**2 - (1 - t)) / self._variance(t)
        return self._blend(x, t, self.means, rates)


def _column(t: Times, x: Latents) -> Tensor:
    """A time or one time per latent as a column (1 or batch, 1)."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, 1)
