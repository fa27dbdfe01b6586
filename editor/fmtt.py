"""Flow Map Trajectory Tilting (Sabour et al., arXiv 2511.22688): a search and a sampler as generators of steps.

The reward at time t is r_t(x) = a(t) r(X_{t,1}(x)). It tilts the flow into
dx = [b_t + eps_t (s_t + grad r_t)] dt + sqrt(2 eps_t) dW, and with dA = a'(t) r(X_{t,1}(x)) dt the weighted particles
(x_1, e^A) sample exactly from rho_1 e^r (Proposition 2.2). `sample` keeps to that. `search` may push harder, by
chi_t grad r_t, and keeps the best instead of the weighted: it finds, and claims no law.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from editor.flowmap import denoise, score_from_velocity, transport
from editor.landing import Landing, unit
from editor.particles import (
    best_cloned,
    effective_size,
    langevin_share,
    log_mean_exp,
    renoise,
    systematic,
    where,
)
from editor.run import Run
from editor.schedules import Tilt, evaluations, itinerary, time_grid
from editor.types import EditError, FlowMap, Latents, Score, SearchSettings, Step

GOLDEN = 0.6180339887498949
"""Its multiples modulo 1 fill [0, 1) evenly, however many are taken."""


# Search


@torch.no_grad()
def search(flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Iterator[Step]:
    """Search for clean latents of high reward, from particles x (N, ...) at t0 = settings.start.

    At each visit: look ahead, score, yield a Step; clone the best; move at fixed t; go on along the flow. The last
    Step is at t = 1, where the look-ahead is x itself. As long as no particle meets there what was asked for, and
    after fewer than settings.least searches on one way, another begins, settings.searches in all and within
    settings.budget: from the best end, noised to settings.restart; or anew, where settings.least searches, or two, are
    on that way or its first end is lost, if there is room for that. A search that begins anew ends before it is carried
    to t = 1 where all its landings are lost and another can begin. Raises EditError on rewards that are not finite.
    """
    run, nearer = Run.of(flow, score, x, settings), _from_an_end(settings)
    begun, way, again, best = 0, 0, False, None

    def room(after: int, kind: SearchSettings) -> bool:
        """Whether a search of this kind may begin after so many."""
        left = settings.budget is None or run.flow.nfe + evaluations(kind) <= settings.budget
        return after < settings.searches and left

    for count in range(1, settings.searches + 1):
        run, way = replace(run, settings=nearer if again else settings), way + 1 if again or not settings.restart else 1
        drawn = run.draw_from(best.latents) if again else run.draw(x)
        for step in _climb(run, x, drawn, begun, {"searches": float(count), "restarted": float(again)}):
            yield step
            lost = step.scored.all_lost() and not again
            if lost and step.index == step.total - 1 and room(count, settings):
                break
        begun = step.index + 1
        if step.t < 1:
            continue
        if way >= settings.least and (step.scored.met is None or step.scored.met.any()):
            return
        end = _End.of(step)
        if best is None or not (again or lost) or end.order > best.order:
            best = end
        again = settings.restart > 0 and not lost and way < max(2, settings.least)
        if not again and not room(count, settings):
            again = settings.restart > 0
        if not room(count, nearer if again else settings):
            return


def _from_an_end(settings: SearchSettings) -> SearchSettings:
    """Those of a search that begins at another's end: its draws differ less, so that a quarter as many will do."""
    return settings.but(strength=1 - max(settings.restart, settings.start), draws=max(1, settings.draws // 4))


class _End(NamedTuple):
    """The best that a search ended with: what orders it, and its clean latents (1, ...)."""

    order: tuple[bool, float, float]
    latents: Latents

    @classmethod
    def of(cls, step: Step) -> _End:
        best = step.scored.best()
        return cls(step.scored.order()[best], step.lookahead[best : best + 1])


def _climb(run: Run, x: Latents, drawn: Landing | None, first: int, report: Mapping[str, float]) -> Iterator[Step]:
    """One search from t0 to t = 1, from starts that were drawn, or from particles x scattered where none were.

    It comes after so many steps of others; each step tells of `report` too.
    """
    settings, visits = run.settings, itinerary(run.settings)
    ancestry = parents = identity = torch.arange(len(x))
    pace, before = torch.ones(len(x)), None
    x = run.scatter(x) if drawn is None else drawn.x
    for index, visit in enumerate(visits):
        guided = visit.guided and settings.guidance > 0
        now = run.land(x, visit.t, guided) if index or drawn is None else drawn
        if before is not None:
            now, pace = _reconsider(run, now, before, pace)
        yield run.step(first + index, first + len(visits) - 1, visit.t, now, ancestry, parents, report)
        parents = best_cloned(now.reward, settings.keep) if visit.select else identity
        run.resamplings += visit.select
        now, ancestry, pace = _clones(run, now, parents, visit.t, guided), ancestry[parents], pace[parents]
        x = _move(run, now, visit.t, pace, parents != identity) if visit.guided else now.x
        before = None if visit.onward else now
        way = (visit.t, *visit.onward)
        run.spend(now.reward, way)
        x = run.carry(x, way)


def _clones(run: Run, now: Landing, parents: Tensor, t: float, guided: bool) -> Landing:
    """The landings that go on; where none has its gradient yet, that of each which does, looked at once more."""
    if not guided or now.gradient is not None:
        return now.clones(parents)
    chosen, places = parents.unique(return_inverse=True)
    return run.land(now.x[chosen.to(now.x.device)], t, True).clones(places)


def _reconsider(run: Run, now: Landing, before: Landing, pace: Tensor) -> tuple[Landing, Tensor]:
    """Take back the moves that cost reward, with probability 1 - e^(-loss / temperature), and halve their pace."""
    temperature = run.settings.temperature
    if temperature is None:
        return now, pace
    loss = (before.reward - now.reward).double().cpu()
    chance = torch.exp(-loss.clamp(min=0) / temperature) if temperature > 0 else torch.zeros_like(loss)
    worse = (loss > 0) & (run.noise.uniform(loss) >= chance)
    return now.unless(worse, before), torch.where(worse, pace / 2, (1.5 * pace).clamp(max=1))


def _move(run: Run, now: Landing, t: float, pace: Tensor, cloned: Tensor) -> Latents:
    """x + chi_t h grad r_t and a Langevin move of variance 2 eps_t h, at fixed t.

    The Langevin move renews a share of the noise in x, which keeps x among the latents that the map knows, however
    large the share. With `normalise`, grad r_t is scaled to a root mean square of 1, so that chi_t h is the distance
    gone, per element, and (1 - t) the natural unit of it; otherwise it is a(t) grad r, with eps_t + chi_t before it.
    """
    settings, tilt, x = run.settings, run.tilt, now.x
    share = langevin_share(tilt.eps(t), settings.move, t) * pace
    share = torch.where(cloned, share.clamp(min=settings.clone_noise), share)
    if share.max() > 0:
        clean = denoise(run.flow, x, t) if settings.lookahead == "none" else now.y
        x = renoise(x, clean, t, share, run.noise.normal(x))
    if now.gradient is None:
        return x
    if settings.normalise:
        slope, chi = unit(now.gradient), tilt.chi(t)
    else:
        slope, chi = tilt.a(t) * now.gradient, tilt.eps(t) + tilt.chi(t)
    strength = chi * settings.move * pace * _ladder(len(x), settings.spread)
    return x + strength.reshape(-1, *[1] * (x.ndim - 1)).to(x) * slope


def _ladder(particles: int, spread: float) -> Tensor:
    """Factors of the particles' guidance from 1 / spread to spread; particle i's does not depend on their number."""
    even = (0.5 + GOLDEN * torch.arange(particles)) % 1
    return spread ** (2 * even - 1)


# Sampling


@torch.no_grad()
def sample(
    flow: FlowMap, score: Score, x: Latents, settings: SearchSettings, tilt: Tilt | None = None
) -> Iterator[Step]:
    """Sample the law rho_1 e^r by weighted particles, from particles x (N, ...) of rho_t0.

    The weights are e^A, A = Step.log_weights, and 'log_z' in its diagnostics estimates log E_{rho_1}[e^r]. Of the
    settings it heeds those of sampling; guidance and selection belong to the search. `tilt` replaces the schedules
    that the settings give. With settings.renoise = 1 the particles but the first become t0 X_{t0,1}(x) + (1 - t0) e,
    fresh e ~ N(0, I), which are of rho_t0 again. Raises EditError where exactness is out of reach, or on rewards that
    are not finite.
    """
    tilt = tilt or Tilt.of(settings).unbiased()
    _refuse(flow, settings, tilt)
    run, times = replace(Run.of(flow, score, x, settings), tilt=tilt), time_grid(settings)
    advance = _DISCRETISATIONS[settings.discretisation]
    parents = identity = torch.arange(len(x))
    ancestry, log_z, accepted = parents, 0.0, []
    now = run.land(run.scatter(x), times[0], _steers(run, times[0]))
    log_weights = tilt.a(times[0]) * _double(now.reward)
    for index, t in enumerate(times):
        if index:
            now, increment = advance(run, now, times[index - 1], t)
            run.meter.spend(increment, log_weights, t - times[index - 1])
            log_weights = log_weights + increment
        ess, parents = effective_size(log_weights), identity
        if t < 1 and _due(settings, index, len(times) - 1, ess):
            parents, log_z = systematic(log_weights, run.noise.run), log_z + log_mean_exp(log_weights)
            now, ancestry, log_weights = now.clones(parents), ancestry[parents], torch.zeros_like(log_weights)
            run.resamplings += 1
        if settings.discretisation == "transport" and now.gradient is not None:
            now = _langevin(run, now, t, accepted)
        report = {"ess": ess, "log_z": log_z + log_mean_exp(log_weights)}
        report["accepted"] = fmean(accepted) if accepted else 1.0
        yield run.step(index, len(times) - 1, t, now, ancestry, parents, report)._replace(log_weights=log_weights)


def _refuse(flow: FlowMap, settings: SearchSettings, tilt: Tilt) -> None:
    if tilt.chi is not None:
        raise EditError("A drift chi_t biases the weights, so this is no sampler: leave chi out, or use method fmtt.")
    if not flow.two_time:
        raise EditError(
            "This profile's map knows only the way to the image, not between any two times, so it can't sample "
            "exactly: use method fmtt or best-of-n."
        )
    if settings.start > 0 and 0 < settings.renoise < 1:
        raise EditError(
            "Renewing only a share of the noise leaves the law of the data: set renoise to 1, or to 0 for starts that "
            "differ already."
        )
    if settings.discretisation == "euler-maruyama" and not settings.jacobian:
        raise EditError("Euler-Maruyama samples exactly only by the gradient through the map: set jacobian to true.")


def _due(settings: SearchSettings, index: int, steps: int, ess: float) -> bool:
    """Whether to resample after step `index`: by the effective size, or the i-th of R times at i steps / (R + 1)."""
    if settings.resamplings is None:
        return ess < settings.ess * settings.particles
    times = settings.resamplings + 1
    return index in {round(i * steps / times) for i in range(1, times)}


def _steers(run: Run, t: float) -> bool:
    """Whether anything at time t follows the gradient."""
    moves = run.settings.discretisation == "euler-maruyama" or run.settings.corrections > 0
    return moves and t < 1 and run.tilt.eps(t) > 0


def _transport(run: Run, now: Landing, s: float, t: float) -> tuple[Landing, Tensor]:
    """x' = X_{s,t}(x), with the exact weight of the finite step: A += r_t(x') - r_s(x).

    For, X_{s,t} carries rho_s to rho_t, hence rho_s e^{r_s} with these weights to rho_t e^{r_t}, for any r_t. With the
    map as the look-ahead it is (a(t) - a(s)) r(X_{s,1}(x)) by the semigroup law.
    """
    new = run.land(transport(run.flow, now.x, s, t), t, _steers(run, t))
    return new, run.tilt.a(t) * _double(new.reward) - run.tilt.a(s) * _double(now.reward)


def _euler_maruyama(run: Run, now: Landing, s: float, t: float) -> tuple[Landing, Tensor]:
    """x' = x + [b + eps (score + grad r_s)] h + sqrt(2 eps h) noise, and A += (a(t) - a(s)) r(X_{s,1}(x)).

    With another look-ahead D, which flows change along their way, A += r_t(x + h b) - r_s(x), one more look-ahead.
    """
    x, h, eps = now.x, t - s, run.tilt.eps(s)
    b = run.flow.velocity(x, s)
    increment = (run.tilt.a(t) - run.tilt.a(s)) * _double(now.reward)
    if run.settings.lookahead != "map":
        ahead = run.land(x + h * b, t, False)
        increment = run.tilt.a(t) * _double(ahead.reward) - run.tilt.a(s) * _double(now.reward)
    drift = b
    if now.gradient is not None:
        drift = b + eps * (score_from_velocity(b, x, s) + run.tilt.a(s) * now.gradient)
    x = x + h * drift + math.sqrt(2 * eps * h) * run.noise.normal(x)
    return run.land(x, t, _steers(run, t)), increment


_DISCRETISATIONS = {"transport": _transport, "euler-maruyama": _euler_maruyama}


def _langevin(run: Run, now: Landing, t: float, accepted: list[float]) -> Landing:
    """Langevin moves of duration h that leave rho_t e^{r_t} invariant; notes the share of them that was accepted.

    Metropolis' rule takes log rho_t(x') - log rho_t(x) from the scores by the trapezium rule,
    (s_t(x) + s_t(x')) . (x' - x) / 2: exact for Gaussian rho_t, else off by the third power of the move. So the step
    size leaves no bias of its own, as it would without the rule. 2 NFE a move and particle.
    """
    h, a, x = run.tilt.eps(t) * run.settings.move, run.tilt.a(t), now.x
    slope = score_from_velocity(run.flow.velocity(x, t), x, t)
    for _ in range(run.settings.corrections):
        fresh = run.noise.normal(x)
        new_x = x + h * (slope + a * now.gradient) + math.sqrt(2 * h) * fresh
        new = run.land(new_x, t, True)
        new_slope = score_from_velocity(run.flow.velocity(new_x, t), new_x, t)
        back = (x - new_x - h * (new_slope + a * new.gradient)) / math.sqrt(2 * h)
        ratio = _dot(slope + new_slope, new_x - x) / 2 + a * _double(new.reward - now.reward)
        ratio += (_dot(fresh, fresh) - _dot(back, back)) / 2
        refused = run.noise.uniform(ratio).log() >= ratio
        now, slope = new.unless(refused, now), where(refused, slope, new_slope)
        x = now.x
        accepted.append(float((~refused).double().mean()))
    return now


def _double(values: Tensor) -> Tensor:
    return values.double().cpu()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each particle's vectors, (N,)."""
    return (a.flatten(1).double() * b.flatten(1).double()).sum(1).cpu()
