"""Where an edit has to act, found out before the search: all else is then held to the source.

Two things tell. What the landings of a noised source change, and which of these changes their reward hangs on:
integrated gradients, as in `editor.undo`, of the best of a few. And where the same noised source lands elsewhere under
the caption of what is wanted than under that of what is there (DiffEdit, Couairon et al., arXiv 2210.11427).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from editor.flowmap import Counted
from editor.particles import checked
from editor.run import TOGETHER
from editor.types import FlowMap, Images, Latents, Score, Scored, SearchSettings
from editor.undo import GRID, worth

TIME, LOOKS, BEST = 0.25, 16, 3
"""When the source is noised, how often, and how many of the landings have their changes weighed."""
TIMES, COPIES = (0.2, 0.3, 0.4), 2
"""When the two captions are compared, early enough for them to have a say, and the noised sources of each time."""
LEAST_TOLD = 0.03
"""Deviation of pixels in [0, 1] between the captions' landings, under which they tell nothing."""
STRONGEST, THIN = 0.98, 0.995
"""Quantiles that count as the strongest, of places and of pixels: a few stand far above all others, and a hand of a
clock covers few pixels."""
EARNED, TOLD, FREE = 0.1, 0.25, 0.5
"""Shares of the strongest: of worth and of deviation from which on an edit acts at a place, and of the deviation from
which on a pixel is wholly let off closeness to the source."""

Decode = Callable[[Latents], Images]


class Focus(NamedTuple):
    """Where an edit acts."""

    mask: Float[Tensor, "1 1 h w"]
    """Over the latents: 1 where they may change at all, else 0."""
    free: Float[Tensor, "1 1 height width"]
    """Over the pixels, in [0, 1]: how much each is let off closeness to the source."""
    suffices: bool = False
    """Whether captions suffice: where not, the flow map by itself would draw what is there, or half of the wish."""
    heard: bool = False
    """Whether captions tell of any change at all."""


@torch.no_grad()
def locate(
    flow: FlowMap, source_flow: FlowMap | None, score: Score, decode: Decode, latents: Latents, size: tuple[int, int],
    settings: SearchSettings, masked: bool = False,
) -> tuple[Focus, int]:  # fmt: skip
    """Where an edit of a source with `latents` (1, C, h, w) and an image of this size acts, and the NFE that this took.

    `source_flow` is the flow map under the source's caption, None where both captions are one. Captions suffice where
    some landing meets all checks by what it changes in the places that they tell; if not, the changes' worth tells as
    well, but where the edit is `masked` by the user, who knows better. Takes LOOKS NFE, but for a mask of which no
    caption tells, and 2 COPIES len(TIMES) more for two captions. Raises EditError on rewards or gradients that are not
    finite.
    """
    flows = [Counted(f) for f in (flow, source_flow or flow)]
    generator = torch.Generator().manual_seed(settings.seed)

    def noised(count: int, t: float) -> Latents:
        noise = torch.randn(count, *latents.shape[1:], generator=generator).to(latents)
        return noise.lerp(latents.expand_as(noise), t)

    def scored(landed: Latents, together: int) -> Iterator[Scored]:
        return (checked(score(part), len(part)) for part in landed.split(together))

    x, nowhere = noised(LOOKS, TIME), torch.zeros_like(latents[:, :1])
    told = earned = Focus(nowhere, nowhere)
    if source_flow is not None:
        told = _told(flows, noised, decode, latents.shape[-2:])
    suffices, landed = False, flows[0](x, TIME, 1.0) if told.heard or not masked else None
    if told.heard:
        within = scored(torch.lerp(latents, landed, told.mask), settings.particles)
        suffices = any(part.met is not None and part.met.any() for part in within)
    if not (suffices or masked):
        rewards = torch.cat([part.reward for part in scored(landed, TOGETHER)])
        best = rewards.double().argsort(descending=True, stable=True)[:BEST]
        earned = _earned(score, landed[best.to(landed.device)], latents, settings.particles)
    free = (F.interpolate(focus.free, size=size, mode="bilinear") for focus in (told, earned))
    found = Focus(torch.maximum(told.mask, earned.mask), torch.maximum(*free), suffices, told.heard)
    return found, sum(f.nfe for f in flows)


def _earned(score: Score, landed: Latents, latents: Latents, batch: int) -> Focus:
    """Where the reward of landings hangs on what they change, and the next places around."""
    value = torch.stack([worth(score, one, latents, batch) for one in landed.split(1)]).abs().mean(0)[None, None]
    mask = widened((_relative(value) > EARNED).to(latents))
    return Focus(mask, mask)


def widened(mask: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """The mask with the next places around."""
    reach = max(1, mask.shape[-1] // GRID)
    return F.max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)


def _told(
    flows: list[Counted], noised: Callable[[int, float], Latents], decode: Decode, size: tuple[int, int]
) -> Focus:
    """Where noised sources land elsewhere under the one caption than under the other; nowhere below LEAST_TOLD."""
    change = 0.0
    for t in TIMES:
        x = noised(COPIES, t)
        one, other = (decode(flow(x, t, 1.0)) for flow in flows)
        change = change + (one - other).abs().mean((0, 1), keepdim=True) / len(TIMES)
    change = F.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
    relative = _relative(change, THIN)
    heard = float(change.flatten().quantile(THIN)) >= LEAST_TOLD
    if not heard:
        relative = torch.zeros_like(relative)
    mask = (F.adaptive_max_pool2d(relative, size) > TOLD).to(change)
    return Focus(mask, (relative / FREE).clamp(max=1.0), heard=heard)


def _relative(value: Tensor, strongest: float = STRONGEST) -> Tensor:
    """As shares of what counts as the strongest."""
    return value / value.flatten().quantile(strongest).clamp(min=1e-20)
