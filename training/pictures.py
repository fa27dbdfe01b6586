"""The pictures that the studio's VLM learns from: clear, seen through the autoencoder, moved, softened and spoilt."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training import clocks, finds
from training.clocks import Clock, legible
from training.data import DECODED, MIXED, Pictures
from training.mixes import mixed
from training.world import TRAIN


def to_images(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) of 8 bits to (B, 3, H, W) in [0, 1], on the same device."""
    return pixels.permute(0, 3, 1, 2).float().div(255)


def augment(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shift, scale, blur, contrast and noise for images (B, 3, H, W) in [0, 1]; nothing that changes an answer.

    Returns the images and the affine maps (B, 2, 3) from places after to places before; sides run from -1 to 1.
    `generator` lives where the images do.
    """
    batch, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator, device=device)

    theta = torch.zeros(batch, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = uniform(0.92, 1.08)
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.08, 0.08), uniform(-0.08, 0.08)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear")
    share = (uniform(-1, 1).clamp(min=0) * 0.9)[:, None, None, None]
    moved = moved.lerp(soft, share)
    moved = moved * uniform(0.94, 1.06)[:, None, None, None] + uniform(-0.03, 0.03)[:, None, None, None]
    noise = (uniform(-0.04, 0.05).clamp(min=0))[:, None, None, None]
    return (moved + noise * torch.randn(moved.shape, generator=generator, device=device)).clamp(0, 1), theta


class Source:
    """Batches of pictures with their clocks.

    A third are seen through the autoencoder, a sixth have colours that no name fits, an eighth are what searches have
    shown, once those are on disk. An eighth have a second hand that is hard to see, or none.
    """

    def __init__(self) -> None:
        self.clear = Pictures()
        self.decoded = Pictures(DECODED) if DECODED.exists() else None
        self.mixed = Pictures(MIXED) if MIXED.exists() else None
        self.clock = lru_cache(maxsize=200_000)(clocks.sample)
        self.mixed_clock = lru_cache(maxsize=50_000)(lambda seed: mixed(clocks.sample(seed)))
        found = finds.load()
        self.timed = [f for f in found if f.minutes != finds.TIMELESS]
        self.timeless = [f for f in found if f.minutes == finds.TIMELESS]
        self.looks = finds.load_looks()

    def batch(self, size: int, generator: torch.Generator) -> tuple[list[Clock], Tensor]:
        """So many clocks and their pictures, 8 bits (size, 128, 128, 3), drawn with `generator`."""
        some = size // 3 if self.decoded else 0
        between = size // 6 if self.mixed else 0
        few = size // 8 if self.timed else 0
        sweeps = size // 8
        rows = torch.randint(len(self.clear), (size - some - between - few - sweeps,), generator=generator).numpy()
        pixels, seeds = [self.clear[rows]], rows.tolist()
        if some:
            more = torch.randint(len(self.decoded), (some,), generator=generator).numpy()
            pixels.append(self.decoded[more])
            seeds += more.tolist()
        scenes = [self.clock(TRAIN + seed) for seed in seeds]
        if sweeps:
            rng = Random(int(torch.randint(2**31, (), generator=generator)))
            hard = [hard_to_see(clocks.sample(TRAIN + rng.randrange(10**8)), rng) for _ in range(sweeps)]
            pixels.insert(0, np.stack([np.asarray(clocks.render(scene)) for scene in hard]))
            scenes = hard + scenes
        if between:
            mixes = torch.randint(len(self.mixed), (between,), generator=generator).numpy()
            pixels.append(self.mixed[mixes])
            scenes += [self.mixed_clock(TRAIN + seed) for seed in mixes.tolist()]
        if few:
            drawn = [self.timed[i] for i in torch.randint(len(self.timed), (few,), generator=generator).tolist()]
            pixels.append(np.stack([f.pixels for f in drawn]))
            scenes += [finds.shown_clock(f) for f in drawn]
        return scenes, torch.from_numpy(np.concatenate(pixels))

    def without_time(
        self, scenes: list[Clock], generator: torch.Generator
    ) -> tuple[list[Clock], list[int | None], Tensor]:
        """As many clocks that show no time, the time each was to show if a search made it, and their pictures.

        Three quarters are what searches have shown, as far as there are such; the others are made from `scenes`.
        """
        rng = Random(int(torch.randint(2**31, (), generator=generator)))
        known = min(3 * len(scenes) // 4, len(self.timeless))
        drawn = rng.sample(self.timeless, known)
        made = timeless(scenes[known:], rng)
        pixels = torch.from_numpy(np.stack([*(f.pixels for f in drawn), *made]))
        shown = [finds.shown_clock(f) for f in drawn] + scenes[known:]
        asked = [None if f.asked == finds.TIMELESS else f.asked for f in drawn] + [None] * (len(scenes) - known)
        return shown, asked, pixels


def hard_to_see(clock: Clock, rng: Random) -> Clock:
    """The clock with its second hand along another hand or its tail, mostly in hands much like it; or without one.

    A second hand is red, or has the ink of the marks where red does not show: the other hands are near to either.
    """
    turn = rng.choice((clock.minutes / 12, clock.minute)) + rng.choice((0, 0, 30)) + rng.uniform(-3, 3)
    found = replace(clock, second=round(turn) % 60, second_hand=rng.random() < 0.6)
    like = replace(found, hands=rng.choice(("red", "orange", "brown", "pink", "black", "white")))
    return like if legible(like.rim, like.face, like.hands, like.background) and rng.random() < 0.7 else found


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images of which nothing can be said any more: shuffled tiles, heavy blur or noise; (B, 3, H, W) in [0, 1].

    `generator` lives where the images do.
    """
    batch, place = len(images), {"generator": generator, "device": images.device}
    kind = torch.randint(3, (batch, 1, 1, 1), **place)
    tiles = images.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3)
    order = torch.rand(batch, tiles.shape[2], **place).argsort(1)
    tiles = tiles.gather(2, order[:, None, :, None, None].expand_as(tiles))
    shuffled = tiles.unflatten(2, (images.shape[2] // 16, -1)).transpose(3, 4).reshape(images.shape)
    blurred = F.interpolate(F.avg_pool2d(images, 32), size=images.shape[2:], mode="bilinear")
    noisy = (0.3 * images + 0.35 + 0.3 * torch.randn(images.shape, **place)).clamp(0, 1)
    return torch.where(kind == 0, shuffled, torch.where(kind == 1, blurred, noisy))


def timeless(scenes: list[Clock], rng: Random) -> list[np.ndarray]:
    """Clocks like these that show no time: with two pairs of hands at half strength, or with one hand missing.

    Pictures (128, 128, 3) of 8 bits.
    """
    made = []
    for clock in scenes:
        kind = rng.randrange(4)
        if kind < 2:
            other = (clock.minutes + rng.randint(40, 680)) % 720
            pair = [clocks.render(c) for c in (clock, replace(clock, hour=other // 60, minute=other % 60))]
            share = rng.uniform(0.35, 0.65)
            pixels = share * np.asarray(pair[0], np.float32) + (1 - share) * np.asarray(pair[1], np.float32)
        else:
            gone = {("hour_hand", "minute_hand")[kind - 2]: clocks.GONE}
            pixels = np.asarray(clocks.render(replace(clock, tail=0.0, **gone)), np.float32)
        made.append(pixels.round().astype(np.uint8))
    return made
