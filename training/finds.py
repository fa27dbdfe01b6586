"""Labelled pictures that models made, kept on disk between a search for them (`training.found`) and a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.data import RUNS

FOLDER = RUNS / "found"
LOOKS = FOLDER / "looks"
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


@dataclass(frozen=True)
class FoundLook:
    """A picture of an edit of one look, with what it shows of it; of all else nothing is known."""

    pixels: np.ndarray
    """uint8 (128, 128, 3)."""
    seed: int
    attribute: str
    asked: str
    """The value that was asked for, as `training.clock_looks.value` has it."""
    shown: str
    """The value that it has; nothing where no value fits."""


def save(found: Sequence[Found] | Sequence[FoundLook], path: Path) -> None:
    """Write pictures and labels of one kind; the folder holds one file for each call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{f.name: np.array([getattr(one, f.name) for one in found]) for f in fields(found[0])})


def load(folder: Path = FOLDER) -> list[Found]:
    """All pictures that were found so far for their times."""
    return [Found(*row) for row in _rows(Found, folder)]


def load_looks(folder: Path = LOOKS) -> list[FoundLook]:
    """All pictures that were found so far for their looks."""
    return [FoundLook(*row) for row in _rows(FoundLook, folder)]


def _rows(kind: type, folder: Path) -> list[tuple]:
    found: list[tuple] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            columns = [data[f.name] if f.name == "pixels" else data[f.name].tolist() for f in fields(kind)]
            found += zip(*columns, strict=True)
    return found


def shown_clock(found: Found) -> Clock:
    """The clock that a picture shows; its own time where it shows none."""
    clock = clocks.sample(found.seed)
    return clock if found.minutes == TIMELESS else language.with_time(clock, found.minutes)


def with_look(clock: Clock, attribute: str, value: str) -> Clock:
    """The clock with another value of a look, in words."""
    if attribute == "second hand":
        return replace(clock, second_hand=value == "yes")
    return replace(clock, **{attribute: value})
