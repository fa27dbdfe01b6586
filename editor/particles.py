"""Randomness of particles, their weights, and which of them go on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from editor.types import EditError, Latents, Scored

_WORD = 2**32


class ParticleNoise:
    """Standard normal numbers for N particles, particle i from its own CPU generator made from the seed and i.

    So particle 3 meets the same noise whatever the number of particles or the device. One more generator, of the run
    as a whole, serves resampling.
    """

    def __init__(self, seed: int, particles: int) -> None:
        first = mixed(seed)
        # A generator on the CPU takes 32 bits of its seed: an odd stride keeps the particles of a run apart.
        self.generators = [
            torch.Generator().manual_seed((first + (i + 1) * 0x9E3779B9) % _WORD) for i in range(particles)
        ]
        self.run = torch.Generator().manual_seed(first)

    def normal(self, like: Latents) -> Latents:
        """Noise in the shape, dtype and device of `like` (N, ...)."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        draws = [torch.randn(like.shape[1:], generator=g, dtype=dtype) for g in self.generators[: len(like)]]
        return torch.stack(draws).to(like)

    def uniform(self, like: Tensor) -> Tensor:
        """One number in [0, 1) for each particle, (N,), in the dtype and device of `like`."""
        draws = [torch.rand((), generator=g, dtype=torch.float64) for g in self.generators[: len(like)]]
        return torch.stack(draws).to(like)


def mixed(seed: int, *parts: int) -> int:
    """32 well-mixed bits of a seed (the finaliser of MurmurHash3), other ones for each part of a run that is named."""
    h = (seed + 0x9E3779B9) % _WORD
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> shift)) * factor % _WORD
    h ^= h >> 16
    return mixed(h + parts[0], *parts[1:]) if parts else h


def noise_in(x: Latents, clean: Latents, t: float) -> Latents:
    """The noise e of x = t clean + (1 - t) e, t < 1."""
    return (x - t * clean) / (1 - t)


def renoise(x: Latents, clean: Latents, t: float, share: Tensor | float, fresh: Latents) -> Latents:
    """Renew a share rho of the noise that remains in x once its clean estimate is taken out.

    x = t clean + (1 - t) e becomes t clean + (1 - t) (sqrt(1 - rho^2) e + rho fresh). With the denoiser as the
    estimate this is a Langevin move in exponential form, which leaves rho_t invariant as rho -> 0; with the flow map's
    landing it does so exactly at rho = 1.
    """
    rho = share.reshape(-1, *[1] * (x.ndim - 1)).to(x) if isinstance(share, Tensor) else torch.as_tensor(share).to(x)
    return t * clean + (1 - t) * ((1 - rho**2).sqrt() * noise_in(x, clean, t) + rho * fresh)


def langevin_share(eps: float, h: float, t: float) -> float:
    """The share of noise renewed by a Langevin move of noise eps and duration h at time t < 1.

    1 - rho^2 = exp(-2 eps h / (1 - t)^2): to first order the move of x by eps h s_t + sqrt(2 eps h) noise.
    """
    return math.sqrt(-math.expm1(-2 * eps * h / (1 - t) ** 2))


def batched(rounds: Iterable[Latents], size: int) -> Iterator[Latents]:
    """The same latents in batches of `size`, the last of what is left; no more rounds are made than a batch needs."""
    held = None
    for part in rounds:
        held = part if held is None else torch.cat([held, part])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if held is not None and len(held):
        yield held


def effective_size(log_weights: Tensor) -> float:
    """ESS = (sum w)^2 / sum w^2, from 1 to N."""
    w = torch.softmax(log_weights.double(), 0)
    return float(1 / w.square().sum())


def log_mean_exp(log_weights: Tensor) -> float:
    """log of the mean of e^A over the particles."""
    return float(torch.logsumexp(log_weights.double(), 0)) - math.log(len(log_weights))


def weighted_variance(values: Tensor, log_weights: Tensor) -> float:
    """Variance of values (N,) under weights e^A, biased as all self-normalised estimates are by O(1/N)."""
    w, values = torch.softmax(log_weights.double().cpu(), 0), values.double().cpu()
    return float(w @ (values - w @ values).square())


def systematic(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: N indices on the CPU; particle i comes N w_i times, rounded up or down, unbiasedly."""
    n = len(log_weights)
    sums = torch.softmax(log_weights.double().cpu(), 0).cumsum(0)
    points = (torch.arange(n, dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)) / n
    return torch.searchsorted(sums / sums[-1], points, right=True).clamp(max=n - 1)


def best_cloned(rewards: Tensor, keep: int) -> Tensor:
    """Top-n selection: N indices on the CPU. The best `keep` stay in their places, clones take those of the others.

    Of the clones the best particles get the more. Ties go to the lower index.
    """
    n = len(rewards)
    order = torch.argsort(rewards.double().cpu(), descending=True, stable=True)[:keep].tolist()
    kept = set(order)
    others = [i for i in range(n) if i not in kept]
    parents = list(range(n))
    for k, i in enumerate(others):
        parents[i] = order[k % len(order)]
    return torch.tensor(parents)


def joined(batches: Sequence[Scored]) -> Scored:
    """Batches as one; what one of them does not tell is not told."""
    parts = zip(*batches, strict=True)
    return Scored(*(None if any(part is None for part in one) else torch.cat(one) for one in parts))


def take(scored: Scored, parents: Tensor) -> Scored:
    """The same scores for re-indexed particles."""
    return Scored(*(None if part is None else part[parents.to(part.device)] for part in scored))


def where(chosen: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` for the particles where `chosen` (N,) is true, `old` for the others."""
    return torch.where(chosen.to(new.device).reshape(-1, *[1] * (new.ndim - 1)), new, old)


def checked(scored: Scored, particles: int) -> Scored:
    """The scores themselves, or EditError when there is not one finite reward for each particle."""
    if scored.reward.shape != (particles,):
        raise EditError(f"The score must give one reward to each of the {particles} candidates: mend the reward.")
    wrong = int((~torch.isfinite(scored.reward.detach())).sum())
    if wrong:
        raise EditError(
            f"The reward of {wrong} of {particles} candidates is not a finite number: mend the reward, or use less "
            "guidance or more precision."
        )
    return scored
