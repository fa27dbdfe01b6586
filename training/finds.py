"""Labelled pictures that models made, kept on disk between a search for them (`training.found`) and a training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.data import RUNS

FOLDER = RUNS / "found"
TIMELESS = -1


@dataclass(frozen=True)
class Found:
    """A picture with what it shows; `minutes` is TIMELESS where it shows no time."""

    pixels: np.ndarray
    """uint8 (128, 128, 3)."""
    seed: int
    minutes: int
    asked: int = TIMELESS
    """The time that an edit was asked for, in minutes since twelve; TIMELESS where none was."""


def save(found: list[Found], path: Path) -> None:
    """Write pictures and labels; the folder holds one file for each call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        pixels=np.stack([f.pixels for f in found]),
        seeds=np.array([f.seed for f in found]),
        minutes=np.array([f.minutes for f in found]),
        asked=np.array([f.asked for f in found]),
    )


def load(folder: Path = FOLDER) -> list[Found]:
    """All pictures that were found so far."""
    found: list[Found] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            numbers = (data[name].tolist() for name in ("seeds", "minutes", "asked"))
            found += [Found(*row) for row in zip(data["pixels"], *numbers, strict=True)]
    return found


def shown_clock(found: Found) -> Clock:
    """The clock that a picture shows; its own time where it shows none."""
    clock = clocks.sample(found.seed)
    return clock if found.minutes == TIMELESS else language.with_time(clock, found.minutes)
