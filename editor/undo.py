"""Leave what was changed for nothing: the least part of an edit that keeps what it gained.

A search moves all latents at once, and where the reward does not look they drift. Attribution by integrated gradients
(Sundararajan et al., arXiv 1703.01365) along the line from the edit back to the source tells what each place's change
is worth; the edit is then kept in as few places as its reward allows.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from editor.landing import differentiable, slope_of
from editor.particles import checked, joined
from editor.types import Latents, Score, Scored

POINTS = 4
"""At which the line is looked at: the middles of its equal parts."""
SHARES = (0, 1 / 64, 1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Of the changed places, in the order of what they are worth: those that are tried to keep, before their neighbours."""
GRID = 16
"""Places a side over which worth is smoothed, for latents of any size."""
ALIKE = 0.35
"""Changes this near to one another, as a share of their root mean square, are worth about the same."""
COMPARED = 1024
"""Places that are compared with all others at once."""
STRONG = 0.3
"""A place changed strongly where its squared change is this share of the mean of what is kept, or more."""


@torch.no_grad()
def least_change(score: Score, edit: Latents, source: Latents, give_up: float, batch: int = POINTS) -> Latents:
    """The edit (1, C, h, w) in as few places as keep all but a share `give_up` in [0, 1] of its gain in reward.

    Everywhere else it has the source's latents (1, C, h, w). Places go with those that change alike, since a face that
    is blue but for one corner is spoilt, and with their neighbours, since an edge that is changed on one side alone is
    no edge. What changed strongly beside them stays changed too, and what did beside that: a hand that comes back in
    part is a smudge, whatever the reward thinks of it. Of an edit that meets what was asked for enough is kept to meet
    it, where the score tells. Looks at POINTS images with gradients and up to len(SHARES) more, at most `batch` at
    once. Raises EditError on rewards or gradients that are not finite.
    """
    value = alike(worth(score, edit, source, batch), (edit - source)[0])
    order = value.flatten().argsort(descending=True, stable=True)
    changed = int((edit != source).any(1).sum())
    kept = torch.zeros(len(SHARES), 1, *edit.shape[2:], device=edit.device)
    for row, share in zip(kept.flatten(1), SHARES, strict=True):
        row[order[: round(share * changed)]] = 1
    reach = max(1, edit.shape[-1] // GRID)
    wide = F.max_pool2d(kept, 2 * reach + 1, stride=1, padding=reach)
    tried = torch.where(wide > 0, edit, source)
    least = _least_that_keeps(score, tried, give_up, batch)
    return torch.where(unbroken(wide[least : least + 1] > 0, edit - source), edit, source)


def _least_that_keeps(score: Score, tried: Latents, give_up: float, batch: int) -> int:
    """The first of edits that keep more and more, from nothing to all, which keeps enough of what all of it gained.

    Looks at nothing and all first, and then no further than has to be.
    """
    order = torch.tensor([0, len(tried) - 1, *range(1, len(tried) - 1)])
    looks: list[Scored] = []
    for part in order.split(batch):
        looks.append(checked(score(tried[part.to(tried.device)]), len(part))._replace(images=None))
        seen = joined(looks)
        if len(seen.reward) == 1:
            continue
        none, whole = seen.reward[:2]
        enough = seen.reward >= whole - give_up * (whole - none).clamp(min=0)
        if seen.met is not None and seen.met[1]:
            enough &= seen.met.to(enough.device)
        least = int(order[: len(enough)][enough.cpu()].min())
        if least < len(tried) - 1:
            break
    return least


def unbroken(kept: Bool[Tensor, "1 1 h w"], change: Latents) -> Bool[Tensor, "1 1 h w"]:
    """The kept places with all that changed strongly (see STRONG) and hangs together with them."""
    size = change.square().sum(1, keepdim=True)
    strong = size >= STRONG * size[kept].mean() if kept.any() else kept
    while True:
        beside = F.max_pool2d(kept.float(), 3, stride=1, padding=1) > 0
        grown = kept | (beside & strong)
        if torch.equal(grown, kept):
            return kept
        kept = grown


def worth(score: Score, edit: Latents, source: Latents, batch: int = POINTS) -> Float[Tensor, "h w"]:
    """What each place's change adds to the reward: the gradient along the line times the change, smoothed; detached.

    Before smoothing its sum is reward(edit) - reward(source), as far as POINTS tell. Places that did not change have
    the least worth of all.
    """
    change = edit - source
    slopes = []
    for share in ((torch.arange(POINTS) + 0.5) / POINTS).to(edit).split(batch):
        line = (source + share[:, None, None, None] * change).requires_grad_()
        with differentiable(line):
            slopes.append(slope_of(checked(score(line), len(line)).reward, line))
    value = (torch.cat(slopes).mean(0) * change[0]).sum(0)
    reach = max(1, value.shape[-1] // GRID)
    smooth = F.avg_pool2d(value[None, None], 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)[0, 0]
    return torch.where((change[0] != 0).any(0), smooth, -torch.inf)


def alike(value: Float[Tensor, "h w"], change: Float[Tensor, "C h w"]) -> Float[Tensor, "h w"]:
    """What places are worth, shared among those that change alike: a mean weighed by a Gaussian of their difference.

    Places that did not change, of worth -inf, stay what they are.
    """
    moved = value > -torch.inf
    if not moved.any():
        return value
    changes, worths = change[:, moved].T, value[moved]
    nearness = -1 / (2 * ALIKE**2 * changes.square().sum(1).mean())
    shared = value.clone()
    shared[moved] = torch.cat(
        [(torch.cdist(part, changes).square() * nearness).softmax(1) @ worths for part in changes.split(COMPARED)]
    )
    return shared
