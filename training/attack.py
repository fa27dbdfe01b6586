"""Pictures moved to where a model errs most, within a bound: what the VLM must read as if nothing had happened.

A tower trained on clear pictures has gradients that mean nothing to the eye, and a search that climbs them paints
blots which it believes. One that must withstand every small change has to judge by what cannot be changed by little:
then the way up its reward is to turn a hand (adversarial training, Madry et al., arXiv 1706.06083; Santurkar et al.,
arXiv 1906.09453, on synthesis with such models).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

REACH = 3.0
"""Largest change of a picture of 128 x 128, in L2 over values in [0, 1]; to move the hands by one minute takes more."""


def attacked(
    images: Tensor, loss: Callable[[Tensor], Tensor], generator: torch.Generator, reach: float = REACH, steps: int = 1
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1], each changed by up to a radius drawn from [0, reach] in L2, to raise `loss`.

    Projected gradient ascent from a random place half-way out; one backward pass for each step. `loss` of the batch
    must be a mean or sum over images. `generator` lives where the images do. Detached.
    """
    place = {"generator": generator, "device": images.device}
    radius = reach * torch.rand(len(images), 1, 1, 1, **place)
    change = 0.5 * radius * _unit(torch.randn(images.shape, **place))
    for _ in range(steps):
        moved = (images + change).clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(loss(moved), moved)
        change = change + 1.5 * radius / steps * _unit(slope.float())
        length = change.flatten(1).norm(dim=1)[:, None, None, None]
        change = change * (radius / length.clamp(min=1e-12)).clamp(max=1.0)
    return (images + change).clamp(0, 1).detach()


def _unit(x: Tensor) -> Tensor:
    return x / x.flatten(1).norm(dim=1)[:, None, None, None].clamp(min=1e-12)
