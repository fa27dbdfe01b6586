"""When and how strongly: the schedules a(t), eps_t, chi_t, the grid of times, and the itinerary of a search."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from editor.types import SearchSettings

Schedule = Callable[[float], float]
"""t in [0, 1] -> a coefficient."""

POSTERIOR_SD = 0.1
"""sd of s2_t in the damping of the guidance: the published default."""


@dataclass(frozen=True)
class Ramp:
    """a(t): 0 until `start`, 1 from `end` on, a straight line between them."""

    start: float = 0.0
    end: float = 1.0

    def __call__(self, t: float) -> float:
        return min(1.0, max(0.0, (t - self.start) / (self.end - self.start)))


@dataclass(frozen=True)
class Vanishing:
    """scale (1 - t): eps_t, which keeps eps_t s_t finite at t = 1, and chi_t."""

    scale: float

    def __call__(self, t: float) -> float:
        return self.scale * (1 - t)


@dataclass(frozen=True)
class Damped:
    """A schedule times 1 / (1 + 2 lambda s2_t), where s2_t = sd^2 (1-t)^2 / ((1-t)^2 + t^2 sd^2).

    s2_t is the variance of x_1 given x_t for data N(0, sd^2): guidance is weak while the image is undecided
    (Dandapanthula & Boffi, arXiv 2606.02884), against reward hacking.
    """

    inner: Schedule
    lam: float
    sd: float = POSTERIOR_SD

    def __call__(self, t: float) -> float:
        variance = self.sd**2 * (1 - t) ** 2 / ((1 - t) ** 2 + t**2 * self.sd**2)
        return self.inner(t) / (1 + 2 * self.lam * variance)


@dataclass(frozen=True, kw_only=True)
class Tilt:
    """The three schedules of the tilted process dx = [b + eps (s + grad r_t) + chi grad r_t] dt + sqrt(2 eps) dW."""

    a: Schedule
    """r_t(x) = a(t) r(X_{t,1}(x))."""
    eps: Schedule
    chi: Schedule | None = None
    """The extra drift: with it the weights are no longer those of the tilted law. None for a sampler."""

    @classmethod
    def of(cls, settings: SearchSettings) -> Tilt:
        """The schedules of a search; those of a sampler are `Tilt.of(settings).unbiased()`."""
        t0 = settings.start
        chi: Schedule = Vanishing(settings.guidance)
        if settings.damping:
            chi = Damped(chi, settings.damping)
        return cls(a=Ramp(t0, t0 + settings.ramp * (1 - t0)), eps=Vanishing(settings.noise), chi=chi)

    def unbiased(self) -> Tilt:
        """The same without the drift chi_t grad r_t."""
        return Tilt(a=self.a, eps=self.eps)


def shifted(u: float, shift: float) -> float:
    """t = u / (u + m (1 - u)), FLUX's time shift by m = e^mu: above 1 it draws even times u towards the noise.

    In FLUX's own terms, with sigma = 1 - t, it takes sigma to m sigma / (1 + (m - 1) sigma).
    """
    return u if shift == 1 else u / (u + shift * (1 - u))


def unshifted(t: float, shift: float) -> float:
    """The u that `shifted` takes to t."""
    return shifted(t, 1 / shift)


def grid(s: float, t: float, steps: int, shift: float = 1.0, spacing: float = 1.0) -> tuple[float, ...]:
    """`steps` + 1 times from s to t, either way: u(s) + (u(t) - u(s)) (k / steps)^spacing, under the time shift."""
    u, v = unshifted(s, shift), unshifted(t, shift)
    return (s, *(shifted(u + (v - u) * (k / steps) ** spacing, shift) for k in range(1, steps)), t)


def time_grid(settings: SearchSettings) -> tuple[float, ...]:
    """Times from t0 to 1, both included."""
    if settings.times is not None:
        return (settings.start, *settings.times, 1.0)
    return grid(settings.start, 1.0, settings.steps, settings.shift or 1.0, settings.spacing)


class Visit(NamedTuple):
    """One look-ahead of a search and what follows it."""

    t: float
    guided: bool
    """Move along the gradient and the noise afterwards."""
    select: bool
    """Clone the best before moving."""
    onward: tuple[float, ...]
    """Times to be carried to, one after the other, before the next visit; none before a correction at the same t."""


def itinerary(settings: SearchSettings) -> tuple[Visit, ...]:
    """The look-aheads of a search in their order; the last is at t = 1.

    The first `guided` share of the times gets `corrections` visits each, of which `selections` select, evenly and
    the very first among them; the other times are only passed through, or `last_jumps` of them.
    """
    times = time_grid(settings)
    levels = min(len(times) - 1, round(settings.guided * (len(times) - 1))) if settings.corrections else 0
    total = levels * settings.corrections
    wanted = min(settings.selections, total)
    chosen = {i * total // wanted for i in range(wanted)} if settings.keep < settings.particles else set()
    visits = []
    for level in range(levels):
        last = _thinned(times[level + 1 :], settings.last_jumps) if level == levels - 1 else (times[level + 1],)
        for c in range(settings.corrections):
            onward = tuple(last) if c == settings.corrections - 1 else ()
            visits.append(Visit(times[level], True, len(visits) in chosen, onward))
    if not visits:
        visits.append(Visit(times[0], False, False, _thinned(times[1:], settings.last_jumps)))
    return (*visits, Visit(1.0, False, False, ()))


def _thinned(times: Sequence[float], most: int | None) -> tuple[float, ...]:
    """At most so many of the times, evenly, the last among them."""
    if most is None or len(times) <= most:
        return tuple(times)
    return tuple(times[(k + 1) * len(times) // most - 1] for k in range(most))


def evaluations(settings: SearchSettings) -> int:
    """The most network evaluations of one search, from copies of one source or from an end, to t = 1."""
    each = {"map": settings.lookahead_steps, "denoiser": 1, "none": 0}[settings.lookahead]
    first, *others, _ = itinerary(settings)
    moves = (first.guided + sum(visit.guided for visit in others)) * (settings.lookahead == "none")
    carried = len(first.onward) + sum(len(visit.onward) for visit in others)
    again = first.guided * (settings.guidance > 0) * (settings.keep if first.select else settings.particles)
    drawn, scattered = (settings.particles * settings.draws + again) * each, 1 + settings.particles * each
    return max(drawn, scattered) + settings.particles * (len(others) * each + moves + carried)


def place_times(times: Sequence[float], lengths: Sequence[float], steps: int) -> tuple[float, ...]:
    """The `steps` - 1 inner times that cut a pilot run into pieces of equal thermodynamic length.

    `lengths[k]` is Lambda spent between times[k] and times[k + 1]; within such an interval it counts as evenly spent.
    Raises ValueError when the lengths are no lengths.
    """
    if len(times) != len(lengths) + 1 or any(not s < t for s, t in pairwise(times)):
        raise ValueError("A pilot run needs ascending times and one length for each interval between them.")
    if any(not length >= 0 for length in lengths) or not sum(lengths) > 0:
        raise ValueError("The lengths of a pilot run must be zero or more, and not all zero.")
    sums = (0.0, *accumulate(lengths))
    placed = []
    for k in range(1, steps):
        goal = sums[-1] * k / steps
        i = min(bisect.bisect_right(sums, goal) - 1, len(lengths) - 1)
        while lengths[i] == 0:
            i -= 1
        placed.append(times[i] + (times[i + 1] - times[i]) * (goal - sums[i]) / lengths[i])
    return tuple(placed)
