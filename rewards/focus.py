"""Where in a picture a reward looks: what an edit needs to change, and by exclusion what it can leave alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rewards.base import Reward

COPIES, NOISE = 4, 0.05
"""Noised copies of the picture, and the standard deviation of their noise."""
REACH = 3
"""Pixels, for each 64 of the side, over which a slope counts for its neighbours."""
FREE, TOUCHED = 0.25, 0.05
"""Shares of the strongest slope from which on a place counts as wholly in focus, and as one to be changed at all."""
STRONGEST = 0.98
"""Quantile of the slopes that counts as the strongest: a few pixels stand far above all others."""


class Focus(NamedTuple):
    """Maps (1, 1, height, width) in [0, 1]."""

    free: Tensor
    """1 where the reward hangs on the picture, falling to 0 where it does not."""
    touched: Tensor
    """The same, more generous: 1 also where the reward hangs on the picture a little."""


def focus(reward: Reward, image: Float[Tensor, "1 3 height width"], generator: torch.Generator) -> Focus:
    """Where the reward of `image` (in [0, 1]) hangs on it; detached.

    The root mean square of its gradient over noised copies (SmoothGrad, Smilkov et al., arXiv 1706.03825), smoothed
    over neighbours. Zero everywhere where the reward does not hang on the picture.
    """
    noise = torch.randn(COPIES, *image.shape[1:], generator=generator).to(image)
    with torch.enable_grad():
        copies = (image + NOISE * noise).requires_grad_()
        (slope,) = torch.autograd.grad(reward(copies).sum(), copies)
    size = slope.square().sum(1, keepdim=True).mean(0, keepdim=True).sqrt()
    reach = max(1, REACH * image.shape[-1] // 64)
    for _ in range(2):
        size = F.avg_pool2d(size, 2 * reach + 1, stride=1, padding=reach)
    relative = size / size.flatten().quantile(STRONGEST).clamp(min=1e-20)
    return Focus((relative / FREE).clamp(max=1.0), (relative / TOUCHED).clamp(max=1.0))
