"""The controls: best of N, FMRG and ReNO behind the same signature as the search, and METHODS with all by name.

Anything that does not beat best of N at the same NFE is not worth its complexity.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from editor.fmtt import sample, search
from editor.landing import Landing, slope_of
from editor.particles import checked, noise_in
from editor.run import Run
from editor.schedules import time_grid
from editor.types import FlowMap, Latents, Score, Scored, Search, SearchSettings, Step


def _to_the_end(run: Run, x: Latents) -> Landing:
    """Along the flow from t0 to 1 in settings.steps jumps, and the score there; settings.steps NFE per latent."""
    times = time_grid(run.settings)
    now = run.land(run.carry(x, times), 1.0, False)
    run.spend(now.reward, times)
    return now


@torch.no_grad()
def best_of_n(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """Renew a share of each particle's noise, follow the flow to t = 1, score. One Step, at the end."""
    run, everyone = Run.of(flow, score, x, settings), torch.arange(len(x))
    yield run.step(0, 0, 1.0, _to_the_end(run, run.scatter(x)), everyone, everyone)


@torch.no_grad()
def multi_best_of_n(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """settings.selections rounds of best of N (one at least), each around the best latent of the one before.

    The best goes on as the first particle of the next round, so the best reward never falls. Thermodynamic length
    adds up over the rounds, as NFE do.
    """
    run, ancestry = Run.of(flow, score, x, settings), torch.arange(len(x))
    rounds, parents = max(1, settings.selections), torch.arange(len(x))
    clean = run.clean(x)
    for index in range(rounds):
        x = run.spread(x, clean)
        now = _to_the_end(run, x)
        yield run.step(index, rounds - 1, 1.0, now, ancestry, parents)
        run.resamplings += 1
        parents = now.reward.argmax().cpu().expand(len(x))
        x, clean, ancestry = x[parents], now.y[parents], ancestry[parents]


def sdedit(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """SDEdit + best of N: all the noise of every particle but the first is fresh."""
    return best_of_n(flow, score, x, settings.but(renoise=1.0))


def sample_edit(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """FMTT sampling from copies of a source: any renoise is taken as 1, since a share of the noise is no exact start.

    Exact over draws of the source: each particle starts by the law of x_t0 given a source of rho_1.
    """
    return sample(flow, score, x, settings.but(renoise=1.0 if settings.renoise else 0.0))


def prompt_only(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """No reward: the first particle follows the flow to t = 1 under its prompt."""
    return best_of_n(flow, score, x[:1], settings.but(particles=1))


@dataclass(frozen=True, kw_only=True)
class Fmrg:
    """FMRG (arXiv 2604.27147): one trajectory, steered greedily by the gradient of the reward where it lands.

    Warm-up: all particles take the first guided steps and the best goes on alone, so later Steps hold one particle,
    and the thermodynamic length, that of the spread of rewards between particles, grows during the warm-up alone.
    Each guided step uses its look-ahead as its velocity u = (X_{t,1}(x) - x) / (1 - t): 1 NFE for each of the
    look-ahead's jumps. Defaults as published.
    """

    jacobian: bool
    """J takes the gradient in x through the map; E takes it at the landing, which it improves by Adam."""
    rate: float
    """Step size; falls linearly over the grid."""
    inner: int = 1
    """Adam steps of E on each landing."""
    guided: float = 0.25
    """Share of the steps that are guided."""
    warmup: int = 3
    """Guided steps before the best particle is chosen."""
    unguided: int = 2
    """Jumps of equal length from the last guided time to t = 1."""

    @torch.no_grad()
    def __call__(self, flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
        run = Run.of(flow, score, x, settings.but(jacobian=self.jacobian, lookahead="map"))
        times = time_grid(settings)
        guided = max(1, round(self.guided * (len(times) - 1)))
        x, ancestry = run.scatter(x), torch.arange(len(x))
        parents = ancestry
        for index in range(guided):
            now = run.land(x, times[index], True)
            yield run.step(index, guided, times[index], now, ancestry, parents)
            parents = torch.arange(len(x))
            if index == min(self.warmup, guided - 1):
                parents = now.reward.argmax().cpu().reshape(1)
                now, ancestry = now.clones(parents), ancestry[parents]
                run.resamplings += 1
            run.spend(now.reward, times[index : index + 2])
            rate = self.rate * (1 - index / (len(times) - 1))
            steer = self._by_jacobian if self.jacobian else self._by_landing
            x = steer(run, now, times[index], times[index + 1], rate)
        rest = torch.linspace(times[guided], 1, self.unguided + 1, dtype=torch.float64).tolist()
        rest = rest if rest[0] < 1 else rest[:1]
        now = run.land(run.carry(x, rest), 1.0, False)
        run.spend(now.reward, rest)
        yield run.step(guided, guided, 1.0, now, ancestry, parents)

    def _by_jacobian(self, run: Run, now: Landing, s: float, t: float, rate: float) -> Latents:
        """x + (t - s) (u + rate sign(grad r)): the first step of a new Adam has the size of its rate."""
        return now.x + (t - s) * ((now.y - now.x) / (1 - s) + rate * now.gradient.sign())

    def _by_landing(self, run: Run, now: Landing, s: float, t: float, rate: float) -> Latents:
        """x + (t - s) u + (1 - s) t (y* - y), where y* is the landing y after `inner` steps of Adam."""
        y = torch.nn.Parameter(now.y.clone())
        adam = torch.optim.Adam([y], lr=rate, maximize=True)
        y.grad = now.gradient.clone()
        adam.step()
        for _ in range(self.inner - 1):
            with torch.enable_grad():
                y.grad = slope_of(checked(run.score(y), len(y)).reward, y)
            run.gradients += len(y)
            adam.step()
        return now.x + (t - s) * (now.y - now.x) / (1 - s) + (1 - s) * t * (y.detach() - now.y)


@dataclass(frozen=True, kw_only=True)
class Reno:
    """ReNO (arXiv 2406.04312): gradient ascent on the noise e of a generator, here of x_t0 = t0 x_1 + (1 - t0) e.

    settings.steps iterations of Nesterov's SGD on r(X_{t0,1}(x)) - weight (|e|^2 / 2 - (d - 1) log |e|), whose second
    term keeps |e| where a Gaussian has it. Each iteration is a Step at t0, where the law is not bent yet; the last
    Step, at t = 1, holds the best landing of each particle. Defaults as published (there with 50 iterations).
    """

    rate: float = 5.0
    momentum: float = 0.9
    clip: float = 0.1
    """Largest norm of a particle's gradient."""
    weight: float = 0.01

    @torch.no_grad()
    def __call__(self, flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
        run, t0, total = Run.of(flow, score, x, settings), settings.start, settings.steps
        everyone, clean = torch.arange(len(x)), run.clean(x)
        if settings.renoise:
            x = run.spread(x, clean)
        e = noise_in(x, clean, t0)
        speed, best = torch.zeros_like(e), None
        for index in range(total):
            now = run.land(t0 * clean + (1 - t0) * e, t0, True)
            best = now if best is None else now.unless(now.reward < best.reward, best)
            yield run.step(index, total, t0, now, everyone, everyone)
            slope = self._clipped((1 - t0) * now.gradient - self.weight * _norm_slope(e))
            speed = self.momentum * speed + slope
            e = e + self.rate * (slope + self.momentum * speed)
        run.spend(best.reward, (t0, 1.0))
        yield run.step(total, total, 1.0, Landing(best.y, best.y, best.scored), everyone, everyone)

    def _clipped(self, slope: Latents) -> Latents:
        size = slope.flatten(1).norm(dim=1).clamp(min=self.clip).reshape(-1, *[1] * (slope.ndim - 1))
        return slope * (self.clip / size)


def _norm_slope(e: Latents) -> Latents:
    """The gradient of |e|^2 / 2 - (d - 1) log |e| for e != 0 of d elements."""
    squares = e.flatten(1).square().sum(1).reshape(-1, *[1] * (e.ndim - 1))
    return e - (e[0].numel() - 1) * e / squares


METHODS: dict[str, Search] = {
    "fmtt": search,
    "fmtt-sampling": sample_edit,
    "best-of-n": best_of_n,
    "multi-best-of-n": multi_best_of_n,
    "sdedit": sdedit,
    "prompt-only": prompt_only,
    "fmrg-j": Fmrg(jacobian=True, rate=3.0),
    "fmrg-e": Fmrg(jacobian=False, rate=0.5, inner=3),
    "reno": Reno(),
}
"""Every search by the name that settings, command line and page give it."""


class _Still:
    """A flow that stays where it is, to count calls by."""

    two_time = True

    def __call__(self, x: Latents, s: float, t: float) -> Latents:
        return x.clone()

    def velocity(self, x: Latents, t: float) -> Latents:
        return torch.zeros_like(x)


def planned_nfe(settings: SearchSettings) -> int:
    """Network evaluations of a run from copies of one source, found by a dry run; no data changes it.

    No end of its searches meets there what was asked for, and none is left as lost: those that are begin anew, with all
    draws, and take more, though never more than a `budget` that allows for one search.
    """
    x = torch.ones(settings.particles, 1, 1, 1)

    def unmet(y: Latents) -> Scored:
        return Scored(y.flatten(1).sum(1), met=torch.zeros(len(y), dtype=torch.bool))

    *_, last = METHODS[settings.method](_Still(), unmet, x, settings)
    return last.nfe
