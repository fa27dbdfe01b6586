"""Changes of colours that drafts tell of: regions of the source that have one colour, and what drafts give them.

A draft draws what gets another colour anew, aside or in part. But it tells which colour that becomes, and the source
tells where: in a region of its own that has one colour. Each region with each colour is one proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional as F

from editor.recolour import Fit, recoloured, small
from editor.types import Images, Scored

Pixels = Float[np.ndarray, "h w 3"]
Region = Bool[np.ndarray, "h w"]

ALIKE = 0.16
"""Distance of colours, in [0, 1] pixel units, under which two segments have the same."""
OTHER = 0.25
"""The same beyond which a pixel has changed its colour."""
LEAST = 12
"""Pixels of the smallest region."""
SHARE = 0.03
"""Of a region's pixels, over all drafts, that a colour has at least."""
OWN, NEW = 2, 3
"""Colours that drafts show within a region, and of all that they changed, to try at most."""
MOST = 60
"""Proposals at once, the largest segments' first: clocks have 12 to 45, photographs would have hundreds."""
PIECES, WHOLE = 4, 0.9
"""Of one region the largest that hang together, at most so many, and of at most this share of it."""
APART = 40
"""Pixels of a piece that a region may change without: no hole within a numeral."""
CHANGES, GAIN = 3, 0.3
"""Regions that take another colour, one after another, at most; and the score that each has to gain."""
AT_ONCE = 8
"""Proposals that are judged together, for their memory."""
HOLDS = 0.5
"""Probability beyond which a check holds."""
DIMMED, LIT = 0.2, 1.5
"""Bounds of how much stronger light and grain become with a region's brightness."""


class Change(NamedTuple):
    """A region that takes another colour."""

    region: Region
    colour: Float[np.ndarray, " 3"]

    def of(self, pixels: Pixels) -> Pixels:
        """Pixels with it; light and grain around the region's median stay, in proportion to its brightness."""
        own = np.median(pixels[self.region], axis=0)
        strength = np.clip(self.colour.mean() / max(own.mean(), 1e-3), DIMMED, LIT)
        changed = pixels.copy()
        changed[self.region] = self.colour + strength * (pixels[self.region] - own)
        return changed


def repainted(
    source: Images, drafts: Images, score: Callable[[Images], Scored], wanted: int, least: float,
    mask: Images | None = None,
) -> Images | None:  # fmt: skip
    """A source (1, 3, H, W), at a small size, with those changes of colours that score best; None where none does.

    Regions take the colours that drafts (N, 3, H, W) tell of one after another, until all checks hold or the score, of
    pictures (M, 3, H, W), rises no more; `least` is the source's own. From the second on each has to make more checks
    hold, of those that are `wanted`, the first, or else of all: no hand changes for marks that are seen better then.
    The best region is tried by its pieces as well, since hands may share their colour with marks, and without one of
    them where more checks hold then: they may share it with the rim. Only regions that a mask (1, 1, H, W) reaches
    change, as far as it does.
    """
    fit = Fit(source)
    begun, shown = _pixels(source)[0], _pixels(drafts[drafts.isfinite().flatten(1).all(1)])
    left = regions(begun)
    if mask is not None:
        inside = F.interpolate(mask, size=begun.shape[:2])[0, 0].cpu().numpy() > 0
        left = [region & inside for region in left if (region & inside).sum() >= LEAST]
    pixels, reached, held = begun, least, (-1, -1)
    for _ in range(CHANGES):
        best = _best(source, fit, pixels, proposals(begun, left, shown), score, wanted)
        if best is None:
            break
        whole = best.change.region
        parts = [best.change._replace(region=piece) for piece in pieces(whole)]
        best = max(filter(None, (best, _best(source, fit, pixels, parts, score, wanted))), key=lambda one: one.reward)
        if best.change.region is whole:
            rests = [best.change._replace(region=rest) for rest in without(whole)]
            best = max(filter(None, (best, _best(source, fit, pixels, rests, score, wanted))), key=lambda one: one.held)
        if best.reward <= reached + GAIN or best.held <= held:
            break
        pixels, reached, held = best.change.of(pixels), best.reward, best.held
        left = [region for region in left if region is not whole]
        if best.done:
            break
    return None if pixels is begun else torch.from_numpy(pixels).permute(2, 0, 1)[None].to(source)


class _Look(NamedTuple):
    change: Change
    reward: float
    held: tuple[int, int]
    """How many checks hold, of what is wanted and of all."""
    done: bool
    """Whether all do."""


def _best(
    source: Images, fit: Fit, pixels: Pixels, changes: Sequence[Change], score: Callable[[Images], Scored], wanted: int
) -> _Look | None:
    """Of changes of a source's pixels, some of which may have changed already, the one whose picture scores best."""
    looks = []
    for begin in range(0, len(changes), AT_ONCE):
        some = changes[begin : begin + AT_ONCE]
        target = torch.from_numpy(np.stack([change.of(pixels) for change in some])).permute(0, 3, 1, 2).to(source)
        scored = score(recoloured(source, fit(target)).clamp(0, 1))
        hold = scored.checks > HOLDS
        held = zip(hold[:, :wanted].sum(1).tolist(), hold.sum(1).tolist(), strict=True)
        told = scored.reward.tolist(), held, hold.all(1).tolist()
        looks += [_Look(*look) for look in zip(some, *told, strict=True)]
    return max(looks, key=lambda look: look.reward, default=None)


def _pixels(images: Images) -> Float[np.ndarray, "n h w 3"]:
    return small(images).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def regions(pixels: Pixels) -> list[Region]:
    """Parts of a picture that have one colour each, wherever they lie; together all of it, but for the smallest.

    In the order of the largest segment of each.
    """
    from skimage.segmentation import felzenszwalb  # brings scipy, without which a page starts sooner

    segments = felzenszwalb(pixels, scale=60, sigma=0.4, min_size=8, channel_axis=-1)
    area = np.bincount(segments.ravel())
    means = np.stack([np.bincount(segments.ravel(), weights=c.ravel()) for c in np.moveaxis(pixels, -1, 0)], -1)
    colours: list[np.ndarray] = []
    for mean in (means / area[:, None])[np.argsort(-area, kind="stable")]:
        if all(np.linalg.norm(mean - colour) >= ALIKE for colour in colours):
            colours.append(mean)
    nearest = np.linalg.norm(pixels[:, :, None] - np.array(colours), axis=-1).argmin(-1)
    return [region for region in (nearest == i for i in range(len(colours))) if region.sum() >= LEAST]


def pieces(region: Region) -> list[Region]:
    """What of a region hangs together, the largest first, without what is nearly all of it."""
    parts, area = _parts(region)
    largest = np.argsort(-area, kind="stable")[:PIECES]
    return [parts == 1 + i for i in largest if LEAST <= area[i] < WHOLE * region.sum()]


def without(region: Region) -> list[Region]:
    """A region without one of its larger pieces, but for the largest."""
    parts, area = _parts(region)
    largest = np.argsort(-area, kind="stable")[1:PIECES]
    return [region & (parts != 1 + i) for i in largest if area[i] >= APART]


def _parts(region: Region) -> tuple[np.ndarray, np.ndarray]:
    """The numbers from 1 on of what hangs together, 0 elsewhere, and their pixels."""
    from skimage.measure import label  # likewise

    parts = label(region, connectivity=2)
    return parts, np.bincount(parts.ravel())[1:]


def proposals(pixels: Pixels, among: Sequence[Region], drafts: Float[np.ndarray, "n h w 3"]) -> list[Change]:
    """Changes of these regions to the colours that drafts have there most, and to those that they bring in anywhere.

    Of the first regions, as far as MOST goes.
    """
    changed = np.linalg.norm(drafts - pixels, axis=-1) > OTHER
    new = [*_colours(drafts[changed], changed.sum(), NEW)]
    made = []
    for region in among:
        own, shown = np.median(pixels[region], axis=0), drafts[:, region].reshape(-1, 3)
        others = shown[np.linalg.norm(shown - own, axis=-1) > OTHER]
        tried: list[np.ndarray] = []
        for colour in (*_colours(others, len(shown), OWN), *new):
            if np.linalg.norm(colour - own) > OTHER and all(np.linalg.norm(colour - one) >= ALIKE for one in tried):
                tried.append(colour)
        made += [Change(region, colour) for colour in tried]
    return made[:MOST]


def _colours(pixels: Float[np.ndarray, "n 3"], of: int, most: int) -> Iterator[Float[np.ndarray, " 3"]]:
    """The colours that more than SHARE of so many pixels have, the commonest first, at most so many."""
    for _ in range(most):
        if len(pixels) <= SHARE * of:
            return
        coarse = (6 * pixels).astype(int) @ np.array([49, 7, 1])
        colour = np.median(pixels[coarse == np.bincount(coarse).argmax()], axis=0)
        for _ in range(3):
            near = np.linalg.norm(pixels - colour, axis=-1) < OTHER
            colour = np.median(pixels[near], axis=0) if near.any() else colour
        near = np.linalg.norm(pixels - colour, axis=-1) < OTHER
        if near.sum() <= SHARE * of:
            return
        yield colour
        pixels = pixels[~near]
