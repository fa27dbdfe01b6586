"""Problems with known answers for the samplers: exact flow maps, quadratic rewards, z-tests. Double precision."""

import math
from statistics import NormalDist

import torch

from benchmarks.problems import gaussian
from editor.oracles import Gaussian, Mixture, Quadratic
from editor.types import Scored, SearchSettings

F64 = torch.float64
FALSE_ALARM = 1e-3
"""Chance that a whole z-test, of all its numbers together, fails on a sampler that is right."""


class Straight:
    """A flow that leads from anywhere to one image y: X_{s,t}(x) = x + (t - s) (y - x) / (1 - s)."""

    two_time = True

    def __init__(self, image):
        self.image = image

    def __call__(self, x, s, t):
        s, t = (time.reshape(-1, 1, 1, 1) if isinstance(time, torch.Tensor) else time for time in (s, t))
        return x + (t - s) * self.velocity(x, s)

    def velocity(self, x, t):
        return (self.image.expand_as(x) - x) / (1 - t)


def world(d=2):
    """Data, score, the tilted law, and its log Z."""
    g = torch.Generator().manual_seed(d)
    root = torch.randn(d, d, generator=g, dtype=F64)
    flow = Gaussian(torch.randn(d, generator=g, dtype=F64), root @ root.T / d + 0.2 * torch.eye(d, dtype=F64))
    reward = Quadratic(torch.ones(d, dtype=F64), torch.eye(d, dtype=F64))
    return flow, (lambda y: Scored(reward(y))), *flow.tilted(reward)


def gaussian_world(d):
    """The benchmark's Gaussian of d dimensions, whose weights vary as little whatever d."""
    problem, law = gaussian(d)
    return problem.flow, problem.score, law, problem.log_z


def mixture_world():
    """Three components of full covariance in the plane, and a reward of full curvature: the same four.

    The map's own error, under 0.004, is far below what forty seeds can tell.
    """
    means = torch.tensor([[1.5, 0.0], [-1.5, 0.5], [0.0, -2.0]], dtype=F64)
    covs = torch.tensor([[[0.5, 0.2], [0.2, 0.3]], [[0.3, -0.1], [-0.1, 0.6]], [[0.4, 0.0], [0.0, 0.4]]], dtype=F64)
    flow = Mixture(torch.tensor([0.5, 0.3, 0.2], dtype=F64), means, covs, resolution=8)
    reward = Quadratic(torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([[0.6, 0.3], [0.3, 0.4]], dtype=F64))
    return flow, (lambda y: Scored(reward(y))), *flow.tilted(reward)


def sampling(**changes):
    defaults = dict(method="fmtt-sampling", strength=1.0, renoise=0.0, noise=1.0, particles=64, steps=4, corrections=1)
    return SearchSettings(**(defaults | changes))


def start(settings, d=2, seed=0):
    g = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(settings.particles, d, generator=g, dtype=F64)


def source(flow, settings, d=2):
    """Copies of one latent at t0."""
    x = flow.sample(1, settings.start, torch.Generator().manual_seed(3))
    return x.expand(settings.particles, d).clone()


def last(steps):
    *_, end = steps
    return end


def z_scores(values):
    """Of the mean of (seeds, numbers) against zero."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


def z_limit(draws, numbers):
    """What none of `numbers` z-scores of the mean of `draws` values passes, but for the chance of FALSE_ALARM.

    Bonferroni's share of it for each number, two-sided, by Student's t with draws - 1 degrees of freedom (Abramowitz
    and Stegun 26.7.5).
    """
    z, n = NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * numbers)), draws - 1
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
