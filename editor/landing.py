"""Where particles land, what that is worth, and in which direction it would be worth more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from editor.flowmap import look_ahead
from editor.particles import checked, joined, take, where
from editor.runtime import for_gradients
from editor.types import EditError, FlowMap, Latents, Score, Scored, SearchSettings


class Landing(NamedTuple):
    """Particles x at one time, where they land, the scores there, and the gradient of the reward in x; detached."""

    x: Latents
    y: Latents
    scored: Scored
    gradient: Latents | None = None

    @property
    def reward(self) -> Tensor:
        return self.scored.reward

    def clones(self, parents: Tensor) -> Landing:
        """The same for re-indexed particles."""
        p = parents.to(self.x.device)
        gradient = None if self.gradient is None else self.gradient[p]
        return Landing(self.x[p], self.y[p], take(self.scored, parents), gradient)

    def beside(self, other: Landing) -> Landing:
        """The particles of both, without gradients."""
        x, y = (torch.cat(parts) for parts in ((self.x, other.x), (self.y, other.y)))
        return Landing(x, y, joined([self.scored, other.scored]))

    def best(self, count: int) -> Landing:
        """So many of the particles, the best first; ties go to the lower index."""
        return self.clones(self.reward.double().argsort(descending=True, stable=True)[:count])

    def unless(self, chosen: Tensor, old: Landing) -> Landing:
        """This landing, with the particles where `chosen` (N,) is true put back to `old`."""
        gradient = None if self.gradient is None else where(chosen, old.gradient, self.gradient)
        parts = zip(old.scored, self.scored, strict=True)
        scored = Scored(*(None if a is None else where(chosen, a, b) for a, b in parts))
        return Landing(where(chosen, old.x, self.x), where(chosen, old.y, self.y), scored, gradient)


def land(flow: FlowMap, score: Score, x: Latents, t: float, settings: SearchSettings, gradient: bool) -> Landing:
    """Look ahead from x at time t and score the landings: one look-ahead and one score call for all particles.

    With `gradient`, also grad r(X_{t,1}(x)) of each particle, through the look-ahead's Jacobian or, without
    `settings.jacobian`, as if that were the identity. Raises EditError on rewards or gradients that are not finite.
    """
    through = gradient and settings.jacobian
    with differentiable(x) if through else torch.no_grad():
        leaf = x.detach().requires_grad_(through)
        y = look_ahead(flow, leaf, t, settings.lookahead, settings.lookahead_steps)
    if gradient and not through:
        leaf = y = y.detach().requires_grad_()
    with differentiable(x) if gradient else torch.no_grad():
        scored = checked(score(y), len(x))
        slope = slope_of(scored.reward, leaf) if gradient else None
    return Landing(x.detach(), y.detach(), detached(scored), slope)


def ascended(score: Score, clean: Latents, steps: int, size: float) -> Latents:
    """Clean latents after so many steps up the gradient of their reward, each `size` an element (root mean square).

    Nothing is foreseen, so that the gradient is that of the picture itself. Raises EditError on rewards or gradients
    that are not finite.
    """
    for _ in range(steps):
        leaf = clean.detach().requires_grad_()
        with differentiable(leaf):
            slope = slope_of(checked(score(leaf), len(leaf)).reward, leaf)
        clean = (leaf + size * unit(slope)).detach()
    return clean


@contextmanager
def differentiable(x: Latents) -> Iterator[None]:
    """Grad mode for what is computed from x, with the attention whose backward pass is quick where x lives."""
    with torch.enable_grad(), for_gradients(x.device):
        yield


def slope_of(reward: Tensor, x: Latents) -> Latents:
    """The gradient of each particle's reward in its own x. Raises EditError when there is none, or not a finite one."""
    if not reward.requires_grad:
        raise EditError("This reward has no gradient: set guidance to 0 to search by selection alone.")
    (slope,) = torch.autograd.grad(reward.sum(), x)
    if not torch.isfinite(slope).all():
        raise EditError("The gradient of the reward is not finite: set guidance to 0, or use more precision.")
    return slope


def detached(scored: Scored) -> Scored:
    return Scored(*(None if part is None else part.detach() for part in scored))


def unit(slope: Latents) -> Latents:
    """Each particle's gradient at a root mean square of 1 over its elements; a zero gradient stays zero."""
    size = slope.flatten(1).to(torch.promote_types(slope.dtype, torch.float32)).square().mean(1).sqrt()
    scale = torch.where(size > 0, 1 / size, torch.zeros_like(size)).to(slope.dtype)
    return slope * scale.reshape(-1, *[1] * (slope.ndim - 1))
