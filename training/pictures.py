"""The pictures that the studio's VLM learns from: clear, seen through the autoencoder, moved, softened and spoilt."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training import clocks, finds
from training.data import MIXED, RUNS, Pictures
from training.mixes import mixed
from training.world import TRAIN


class Shown(NamedTuple):
    """A batch of pictures with what they show."""

    scenes: list[clocks.Clock]
    images: Tensor
    """(B, 3, 128, 128) in [0, 1]."""
    theta: Tensor
    """(B, 2, 3): where each place of a picture was before it was moved; sides run from -1 to 1."""

    def only(self, rows: list[int]) -> Shown:
        """These pictures alone."""
        return Shown([self.scenes[i] for i in rows], self.images[rows], self.theta[rows])


def augment(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift, scale, blur, contrast and noise for images (B, 3, H, W) in [0, 1]; nothing that changes an answer.

    Returns the images and the affine maps (B, 2, 3) from places after to places before.
    """
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = uniform(0.92, 1.08)
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.08, 0.08), uniform(-0.08, 0.08)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear")
    share = (uniform(-1, 1).clamp(min=0) * 0.9)[:, None, None, None]
    moved = moved.lerp(soft, share)
    moved = moved * uniform(0.94, 1.06)[:, None, None, None] + uniform(-0.03, 0.03)[:, None, None, None]
    noise = (uniform(-0.04, 0.05).clamp(min=0))[:, None, None, None]
    return (moved + noise * torch.randn(moved.shape, generator=generator)).clamp(0, 1), theta


class Source:
    """Batches of pictures with their clocks.

    A third are seen through the autoencoder, a sixth have colours that no name fits, an eighth are what searches have
    shown, once those are on disk.
    """

    def __init__(self) -> None:
        self.clear = Pictures()
        decoded = RUNS / "decoded"
        self.decoded = Pictures(decoded) if decoded.exists() else None
        self.mixed = Pictures(MIXED) if MIXED.exists() else None
        self.clock = lru_cache(maxsize=200_000)(clocks.sample)
        self.mixed_clock = lru_cache(maxsize=50_000)(lambda seed: mixed(clocks.sample(seed)))
        found = finds.load()
        self.timed = [f for f in found if f.minutes != finds.TIMELESS]
        self.timeless = [f for f in found if f.minutes == finds.TIMELESS]

    def batch(self, size: int, generator: torch.Generator) -> Shown:
        """So many pictures, drawn and moved with `generator`."""
        some = size // 3 if self.decoded else 0
        between = size // 6 if self.mixed else 0
        few = size // 8 if self.timed else 0
        rows = torch.randint(len(self.clear), (size - some - between - few,), generator=generator).numpy()
        pixels, seeds = [self.clear[rows]], rows.tolist()
        if some:
            more = torch.randint(len(self.decoded), (some,), generator=generator).numpy()
            pixels.append(self.decoded[more])
            seeds += more.tolist()
        scenes = [self.clock(TRAIN + seed) for seed in seeds]
        if between:
            mixes = torch.randint(len(self.mixed), (between,), generator=generator).numpy()
            pixels.append(self.mixed[mixes])
            scenes += [self.mixed_clock(TRAIN + seed) for seed in mixes.tolist()]
        if few:
            drawn = [self.timed[i] for i in torch.randint(len(self.timed), (few,), generator=generator).tolist()]
            pixels.append(np.stack([f.pixels for f in drawn]))
            scenes += [finds.shown_clock(f) for f in drawn]
        clear = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2).float().div(255)
        return Shown(scenes, *augment(clear, generator))

    def without_time(
        self, scenes: list[clocks.Clock], generator: torch.Generator
    ) -> tuple[list[clocks.Clock], list[int | None], Tensor]:
        """As many clocks that show no time, the time each was to show if a search made it, and their images.

        Three quarters are what searches have shown, as far as there are such; the others are made from `scenes`.
        """
        rng = Random(int(torch.randint(2**31, (), generator=generator)))
        known = min(3 * len(scenes) // 4, len(self.timeless))
        drawn = rng.sample(self.timeless, known)
        made = timeless(scenes[known:], rng)
        if drawn:
            seen = torch.from_numpy(np.stack([f.pixels for f in drawn])).permute(0, 3, 1, 2).float().div(255)
            made = torch.cat([seen, made])
        shown = [finds.shown_clock(f) for f in drawn] + scenes[known:]
        asked = [None if f.asked == finds.TIMELESS else f.asked for f in drawn] + [None] * (len(scenes) - known)
        return shown, asked, augment(made, generator)[0]


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images of which nothing can be said any more: shuffled tiles, heavy blur or noise; (B, 3, H, W) in [0, 1]."""
    spoilt = []
    for image in images:
        kind = int(torch.randint(3, (), generator=generator))
        if kind == 0:
            tiles = image.unfold(1, 16, 16).unfold(2, 16, 16).reshape(3, 64, 16, 16)
            tiles = tiles[:, torch.randperm(64, generator=generator)].reshape(3, 8, 8, 16, 16)
            spoilt.append(tiles.permute(0, 1, 3, 2, 4).reshape(3, 128, 128))
        elif kind == 1:
            tiny = F.avg_pool2d(image[None], 32)
            spoilt.append(F.interpolate(tiny, size=128, mode="bilinear")[0])
        else:
            spoilt.append((0.3 * image + 0.35 + 0.3 * torch.randn(image.shape, generator=generator)).clamp(0, 1))
    return torch.stack(spoilt)


def timeless(scenes: list[clocks.Clock], rng: Random) -> Tensor:
    """Clocks like these that show no time: with two pairs of hands at half strength, or with one hand missing."""
    made = []
    for clock in scenes:
        kind = rng.randrange(4)
        if kind < 2:
            other = (clock.minutes + rng.randint(40, 680)) % 720
            pair = [clocks.render(c) for c in (clock, replace(clock, hour=other // 60, minute=other % 60))]
            share = rng.uniform(0.35, 0.65)
            pixels = share * np.asarray(pair[0], np.float32) + (1 - share) * np.asarray(pair[1], np.float32)
        else:
            gone = {("hour_hand", "minute_hand")[kind - 2]: (0.01, 0.01)}
            pixels = np.asarray(clocks.render(replace(clock, tail=0.0, **gone)), np.float32)
        made.append(torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255)
    return torch.stack(made)
