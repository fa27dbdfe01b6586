"""Clocks as a search spoils them, beside what they should be: `python -m training.spoilt --count 30000`.

A search that pushes latents along a reward's gradient bends hands, leaves remains of what was there, forgets patches of
an old colour, melts outlines. Here a renderer does all that to pictures whose right form is known: no network, no judge
and no search takes part. `training.mend` teaches the flow map to put it right.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor
from torch.nn import functional as F

from editor.adapters import LatentCodec
from editor.loaders import load_autoencoder
from editor.runtime import half_or_single, prepare
from training import clock_language as language
from training import clocks
from training.clocks import COLOURS, Clock
from training.data import RUNS, save
from training.mixes import patches
from training.world import TRAIN

FOLDER = RUNS / "spoilt"
CHUNK = 500
REMAINS = 0.4
"""Share of the picture, or of the light, that another clock may take: what is more would be that clock."""
WARPED = 4.0
"""Pixels of a 128 px picture that a place is moved by, at most, as a deviation of the moves."""
OTHERS = ("hands", "hands", "hands", "shape", "shape", "marks", "marks", "rim", "face", "background")
"""Looks of which an edit may leave remains; hands and outlines are what searches spoil most."""


class Spoilt(NamedTuple):
    """Pictures of one clock, float (128, 128, 3) of 0 to 255."""

    right: np.ndarray
    spoilt: np.ndarray


def spoil(clock: Clock, rng: Random) -> Spoilt:
    """A clock as it should be, and as a search might leave it: one to four things are wrong."""
    right = spoilt = _pixels(clock)
    for way in rng.sample(WAYS, rng.choice((1, 1, 2, 2, 3, 4))):
        spoilt = way(clock, spoilt, rng)
    return Spoilt(right, spoilt)


def bend(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Every place moved a little, neighbours together: bent hands, wavy outlines, melted numerals."""
    cells, reach = rng.randint(5, 14), rng.uniform(0.5, WARPED)
    moves = torch.from_numpy(np.random.default_rng(rng.getrandbits(32)).standard_normal((1, 2, cells, cells))).float()
    moves = F.interpolate(moves, size=picture.shape[:2], mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    side = len(picture)
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1) + reach * min(1.0, 6 / cells) * moves * 2 / side
    image = torch.from_numpy(picture).permute(2, 0, 1)[None]
    warped = F.grid_sample(image, grid[None], mode="bilinear", padding_mode="border", align_corners=False)
    return warped[0].permute(1, 2, 0).numpy()


def remains_of_hands(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Hands that stood elsewhere shine through, or stand there in part; near ones make hands thick."""
    away = rng.choice((rng.randint(2, 12), rng.randint(10, 60), rng.randint(60, 360))) * rng.choice((-1, 1))
    return _laid(picture, _pixels(language.with_time(clock, clock.minutes + away)), rng)


def gaps(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Hands that are missing in part, or pale."""
    bare = replace(clock, hour_hand=(0.01, 0.01), minute_hand=(0.01, 0.01), tail=0.0)
    return _laid(picture, _pixels(bare), rng)


def swollen(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Hands of another length or width, in part."""
    (hour, broad), (minute, narrow) = clock.hour_hand, clock.minute_hand
    other = replace(
        clock, hour_hand=(hour * rng.uniform(0.7, 1.4), broad * rng.uniform(0.5, 2.2)),
        minute_hand=(min(1.0, minute * rng.uniform(0.6, 1.2)), narrow * rng.uniform(0.5, 2.5)),
        tail=rng.choice((clock.tail, rng.uniform(0, 0.4))),
    )  # fmt: skip
    return _laid(picture, _pixels(other), rng, most=0.8)


def remains_of_looks(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Patches of a look that was there before."""
    return _laid(picture, _pixels(language.another(clock, rng.choice(OTHERS), rng)), rng)


def blurred(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Patches out of focus."""
    image = torch.from_numpy(picture).permute(2, 0, 1)[None]
    size = rng.choice((3, 5, 7))
    for _ in range(2):
        image = F.avg_pool2d(image, size, stride=1, padding=size // 2, count_include_pad=False)
    return _laid(picture, image[0].permute(1, 2, 0).numpy(), rng, most=1.0)


def splashed(clock: Clock, picture: np.ndarray, rng: Random) -> np.ndarray:
    """Crooked strokes on the dial, most of them as the hands are coloured, others in no colour of the clock."""
    canvas = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw, side, reach = ImageDraw.Draw(canvas), len(picture), clock.dial * len(picture)
    for _ in range(rng.randint(1, 8)):
        colour = COLOURS[clock.hands if rng.random() < 0.6 else rng.choice(list(COLOURS))]
        points, way = [(clock.x * side, clock.y * side)], rng.uniform(0, 2 * math.pi)
        if rng.random() < 0.5:
            far, around = reach * rng.random(), rng.uniform(0, 2 * math.pi)
            points = [(points[0][0] + far * math.sin(around), points[0][1] - far * math.cos(around))]
        for _ in range(rng.randint(2, 6)):
            way += rng.uniform(-0.6, 0.6)
            x, y = points[-1]
            points.append((x + 5 * math.sin(way), y - 5 * math.cos(way)))
        draw.line(points, fill=colour, width=rng.randint(1, 4), joint="curve")
    soft = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return picture + rng.uniform(0.3, 1.0) * (np.asarray(soft, np.float32) - np.clip(picture, 0, 255))


WAYS: tuple[Callable[[Clock, np.ndarray, Random], np.ndarray], ...] = (
    bend, bend, bend, remains_of_hands, remains_of_hands, gaps, swollen, splashed, splashed, remains_of_looks, blurred,
)  # fmt: skip
"""What may be wrong; those that stand here more than once are likelier."""


def _pixels(clock: Clock) -> np.ndarray:
    return np.asarray(clocks.render(clock), np.float32)


def _laid(picture: np.ndarray, other: np.ndarray, rng: Random, most: float = REMAINS) -> np.ndarray:
    """The picture with another shining through: in patches, or all over and faintly, by a share up to `most`."""
    if rng.random() < 0.3:
        return picture + most * rng.random() * (other - picture)
    strength = rng.choice((1.0, rng.uniform(0.4, 1.0)))
    here = strength * patches(rng.uniform(0.1, most), rng)[..., None]
    return picture + here * (other - picture)


class Scene(NamedTuple):
    """What training needs to know of a clock beside its latents."""

    caption: str
    dial: tuple[float, float, float]
    """Centre x, y and radius inside the rim."""


def scene(row: int) -> tuple[Clock, Scene]:
    """The clock of a row and what it says."""
    clock = clocks.sample(TRAIN + row)
    return clock, Scene(language.caption(clock, Random(f"said {row}")), (clock.x, clock.y, clock.dial))


@torch.no_grad()
def encoded(first: int, flow: Path) -> np.ndarray:
    """Latents of CHUNK clocks as they should be and spoilt: half precision (CHUNK, 2, C, 16, 16)."""
    prepare(1)
    codec = LatentCodec(load_autoencoder(flow / "vae", torch.device("cpu"), half_or_single()))
    pairs = [spoil(scene(first + i)[0], Random(f"spoilt {first + i}")) for i in range(CHUNK)]
    pixels = torch.from_numpy(np.stack([np.stack(pair) for pair in pairs])).div(255).clamp(0, 1)
    parts: list[Tensor] = [codec.encode(part) for part in pixels.flatten(0, 1).permute(0, 3, 1, 2).split(50)]
    return torch.cat(parts).unflatten(0, (CHUNK, 2)).half().numpy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--flow", type=Path, default=Path("assets/models/studio/flow"), help="a FluxPipeline folder")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    missing = [f for f in range(0, arguments.count, CHUNK) if not (FOLDER / f"{f:08d}.npy").exists()]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for begun, latents in zip(missing, pool.map(partial(encoded, flow=arguments.flow), missing), strict=True):
            save(FOLDER / f"{begun:08d}.npy", latents)
            print(f"{begun + CHUNK} of {arguments.count} clocks", flush=True)
