"""What every search shares: counting, noise, look-aheads with scores, and the start from copies of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from types import MappingProxyType

import torch
from torch import Tensor

from editor.flowmap import Counted, transport
from editor.landing import Landing, ascended, land
from editor.particles import ParticleNoise, batched, renoise
from editor.schedules import Tilt
from editor.thermo import Thermometer
from editor.types import FlowMap, Latents, Score, SearchSettings, Step

TOGETHER = 24
"""Latents that are looked at in one batch: without gradients a larger one than the particles is quicker."""

ASCENT = 0.1
"""How far an end goes in one of its steps up the reward, an element, in deviations of the latents."""


@dataclass
class Run:
    """What stays the same from the first step of a run to the last, and what adds up on the way."""

    flow: Counted
    score: Score
    settings: SearchSettings
    tilt: Tilt
    noise: ParticleNoise
    gradients: int = 0
    """Backward passes so far, one per latent."""
    resamplings: int = 0
    """How many times so far particles gave way to clones of others."""
    meter: Thermometer = field(default_factory=Thermometer)

    @classmethod
    def of(cls, flow: FlowMap, score: Score, x: Latents, settings: SearchSettings) -> Run:
        if len(x) != settings.particles:
            raise ValueError(f"The settings ask for {settings.particles} particles, but {len(x)} latents came.")
        return cls(Counted(flow), score, settings, Tilt.of(settings), ParticleNoise(settings.seed, len(x)))

    def land(self, x: Latents, t: float, gradient: bool) -> Landing:
        """See `editor.landing.land`."""
        self.gradients += len(x) * gradient
        return land(self.flow, self.score, x, t, self.settings, gradient)

    def carry(self, x: Latents, times: Sequence[float]) -> Latents:
        """x from the first of the times to the last along the flow, a jump for each interval: 1 NFE per latent."""
        for s, t in pairwise(times):
            x = transport(self.flow, x, s, t)
        return x

    def spend(self, reward: Tensor, times: Sequence[float]) -> None:
        """Count dA = a'(t) r(X_{t,1}(x)) dt over particles that the flow carries through these times, unweighted.

        By the semigroup law their landings, and the rewards (N,) of these, are the same all the way.
        """
        for s, t in pairwise(times):
            self.meter.spend((self.tilt.a(t) - self.tilt.a(s)) * reward, torch.zeros(len(reward)), t - s)

    def clean(self, x: Latents) -> Latents:
        """Where the flow map lands from latents at t0; identical ones are looked at once (1 NFE), none at t0 = 0."""
        if self.settings.start == 0:
            return torch.zeros_like(x)
        alike = bool((x == x[:1]).all())
        return self.flow(x[:1] if alike else x, self.settings.start, 1.0).expand_as(x)

    def scatter(self, x: Latents) -> Latents:
        """Make copies of an inverted source differ: every particle but the first renews a share of its noise."""
        if self.settings.renoise == 0 or len(x) == 1:
            return x
        return self.spread(x, self.clean(x))

    def draw(self, x: Latents) -> Landing | None:
        """Of nearly `settings.draws` times N starts, scattered around the source, those N whose look-aheads score best.

        A look-ahead without a gradient costs a fraction of a guided step, and a start near what is asked for spares
        the search a long way. The first is left out, since where t0 > 0 the source as it is was looked at to scatter
        them. None where the settings have nothing drawn.
        """
        if self.settings.draws == 1 or self.settings.renoise == 0:
            return None
        clean = self.clean(x)
        drawn = (self._renoised(x, clean) for _ in range(self.settings.draws))
        return self._best(chain([next(drawn)[1:]], drawn))

    def draw_from(self, clean: Latents) -> Landing:
        """N starts at t0 around one clean latent (1, ...), which ascends first, each with noise of its own.

        The best, as in `draw`.
        """
        if self.settings.guidance > 0:
            clean = ascended(self.score, clean, self.settings.ascents, ASCENT)
            self.gradients += self.settings.ascents
        alike = clean.expand(self.settings.particles, *[-1] * (clean.ndim - 1))
        fresh = (self.noise.normal(alike) for _ in range(self.settings.draws))
        return self._best(torch.lerp(noise, alike, self.settings.start) for noise in fresh)

    def _best(self, drawn: Iterable[Latents]) -> Landing:
        """N of all starts: those whose look-aheads, without gradients, score best. They come as they are looked at."""
        best, most = None, self.settings.particles
        for part in batched(drawn, TOGETHER):
            now = self.land(part, self.settings.start, False)
            best = (now if best is None else best.beside(now)).best(most)
        return best

    def spread(self, x: Latents, clean: Latents) -> Latents:
        """`scatter` around a clean part that is known."""
        return torch.cat([x[:1], self._renoised(x, clean)[1:]])

    def _renoised(self, x: Latents, clean: Latents) -> Latents:
        return renoise(x, clean, self.settings.start, self.settings.renoise, self.noise.normal(x))

    def step(
        self, index: int, total: int, t: float, now: Landing, ancestry: Tensor, parents: Tensor,
        report: Mapping[str, float] = MappingProxyType({}),
    ) -> Step:  # fmt: skip
        """The Step of a landing, with no weights; what every run reports, and what is in `report`."""
        weights = torch.zeros(len(now.x), dtype=torch.float64)
        counts = {"gradients": float(self.gradients), "resamplings": float(self.resamplings)} | self.meter.report()
        return Step(index, total, t, now.x, now.y, now.scored, weights, tuple(ancestry.tolist()),
                    tuple(parents.tolist()), self.flow.nfe, counts | dict(report))  # fmt: skip
