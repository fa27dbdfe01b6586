"""How often the judge misreads: clean pictures, blurred ones, and as the studio's autoencoder shows them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.judge import LOOKS, minutes_off, read
from benchmarks.sheets import sheet
from editor import images
from editor.models import load_profile
from training import clocks
from training.world import TEST

FIRST = TEST + 900_000
"""Seed of the first clock that the judge is measured on, away from the benchmark's cases and the page's examples."""
Degrade = Callable[[Image.Image], Image.Image]



def measure(degrade: Degrade, count: int) -> tuple[dict[str, Any], list[tuple[Image.Image, str]]]:
    """Shares of `count` clocks that are read right, and the pictures misread with what was wrong."""
    right: dict[str, list[bool]] = {name: [] for name in ("1.5 minutes", "10 minutes", "readable", *LOOKS)}
    misread = []
    for seed in range(FIRST, FIRST + count):
        clock = clocks.sample(seed)
        image = degrade(clocks.render(clock))
        found = read(image, clock)
        off = minutes_off(found.time, clock.minutes)
        now = {"1.5 minutes": off <= 1.5, "10 minutes": off <= 10, "readable": found.time is not None}
        now |= {name: getattr(found, name) == getattr(clock, name) for name in LOOKS}
        for name, hit in now.items():
            right[name].append(hit)
        if not all(now.values()):
            misread.append((image, f"{seed - FIRST}: " + ", ".join(name for name, hit in now.items() if not hit)))
    return {"count": count} | {name: float(np.mean(hits)) for name, hits in right.items()}, misread


def blurred(pixels: float) -> Degrade:
    """A blur of so many pixels, as a standard deviation."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(pixels))


def reconstructed() -> Degrade:
    """Through the studio's autoencoder and back. Raises EditError where there are no studio models."""
    codec = load_profile("studio").codec
    return lambda image: images.to_pil(codec.render(codec.encode(images.to_unit(image))))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description="The judge's own error.")
    parser.add_argument("--count", type=int, default=300, help="clocks to read")
    parser.add_argument("--reconstructions", action="store_true", help="also through the studio's autoencoder")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--sheet", type=Path, help="draw the misread pictures here")
    asked = parser.parse_args()
    degraded: dict[str, Degrade] = {"clean": lambda image: image, "blur 0.8": blurred(0.8), "blur 1.2": blurred(1.2)}
    if asked.reconstructions:
        degraded["reconstructed"] = reconstructed()
    rows, misread = {}, []
    for name, degrade in degraded.items():
        rows[name], missed = measure(degrade, asked.count)
        misread += [(image, f"{name} {caption}") for image, caption in missed]
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in rows[name].items()), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")
    if asked.sheet:
        sheet([[pair] for pair in misread[:40]]).save(asked.sheet)
