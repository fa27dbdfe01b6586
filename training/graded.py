"""Pictures of hands with how far they are from what was asked: `python -m training.graded --searches 80 --bent 8000`.

Those that searches for a time show on their way and in the end, and clocks with hands that a renderer spoilt
(`training.bent`). How far is measured by comparing with renders of the same clock (`training.found.Dial`): no network
and nothing of the benchmarks' judge takes part.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from editor import images
from editor.adapters import LatentCodec
from editor.engine import EFFORTS, Editor
from editor.runtime import prepare
from editor.types import EditRequest
from rewards.plan import parse, worked_out
from training import clock_language as language
from training import clocks
from training.bent import bent
from training.data import RUNS
from training.found import Dial
from training.world import TRAIN

FOLDER = RUNS / "graded"
KINDS = ("searched", "bent")
"""Folders of the pictures of searches, and of the renderer's."""
SEARCH = EFFORTS["balanced"].but(particles=4, draws=12, searches=3, undo=0.0)
BEGUN = 3
"""Step from which on a search's landings are looked at: before, they hardly show hands."""
CLEAR = 0.25
"""Share of the renderer's pictures that are not seen through the autoencoder."""
SLACK = 2
"""Minutes that a search's hands may be off without being farther from what was asked."""


class Graded(NamedTuple):
    """Pictures with the times that they were to show."""

    pixels: np.ndarray
    """uint8 (N, 128, 128, 3)."""
    seeds: np.ndarray
    """Of their clocks."""
    asked: np.ndarray
    """Minutes since twelve."""
    errors: np.ndarray
    """How far the hands are from those of that time: 0 is equal, 1 as far as no hands at all."""

    def save(self, path: Path) -> None:
        """Write all of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **self._asdict())

    @classmethod
    def load(cls, folder: Path) -> Graded:
        """All that a folder holds. Raises FileNotFoundError for none."""
        parts = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        if not parts:
            raise FileNotFoundError(f"No pictures in {folder}: run python -m training.graded first.")
        return cls(*(np.concatenate([part[name] for part in parts]) for name in cls._fields))


Row = tuple[np.ndarray, int, int, float]


def searched(editor: Editor, seed: int) -> Iterator[Row]:
    """What one search for a time shows from BEGUN on, and its candidates at the end."""
    clock, rng = clocks.sample(seed), Random(seed)
    wanted = language.request(clock, rng, rng.choice(("time", "time", "relative")))
    asked, dial = language.apply(clock, wanted).minutes, Dial(clock, editor.models.codec)
    request = EditRequest(
        image=clocks.render(clock), instruction=wanted.instruction, plan=parse(worked_out(wanted.reply)),
        settings=SEARCH.but(seed=seed),
    )  # fmt: skip
    for update in editor.edit(request):
        shown = [candidate.image for candidate in update.candidates] if update.done else update.previews
        if update.done or (update.stage == "search" and update.step >= BEGUN):
            for picture in shown:
                error = dial.error(images.to_unit(picture)[0], asked, slack=SLACK)
                yield np.asarray(picture), seed, asked, error


def spoilt(codec: LatentCodec, seed: int) -> Row:
    """A clock whose hands a renderer spoilt."""
    clock, rng = clocks.sample(seed), Random(f"bent {seed}")
    decoded, picture = rng.random() >= CLEAR, images.to_unit(bent(clock, rng))
    if decoded:
        picture = _through(codec, picture)
    error = Dial(clock, codec).error(picture[0], clock.minutes, decoded)
    return np.asarray(images.to_pil(picture)), seed, clock.minutes, error


@torch.no_grad()
def _through(codec: LatentCodec, picture: Tensor) -> Tensor:
    return codec.render(codec.encode(picture.to(codec.vae.device))).float().cpu()


def _collected(rows: list[Row]) -> Graded:
    pixels, *numbers = zip(*rows, strict=True)
    return Graded(np.stack(pixels), *map(np.array, numbers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=80)
    parser.add_argument("--bent", type=int, default=8000)
    parser.add_argument("--first", type=int, default=0, help="first seed of the training's: one round, one number")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    studio = Editor.load("studio")
    first, rows = TRAIN + arguments.first, []
    for one in range(first, first + arguments.searches):
        rows += searched(studio, one)
        print(f"{one + 1 - first} of {arguments.searches} searches, {len(rows)} pictures", flush=True)
    if rows:
        _collected(rows).save(FOLDER / KINDS[0] / f"{arguments.first:08d}.npz")
    if arguments.bent:
        bents = [spoilt(studio.models.codec, one) for one in range(first, first + arguments.bent)]
        _collected(bents).save(FOLDER / KINDS[1] / f"{arguments.first:08d}.npz")
