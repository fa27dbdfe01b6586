"""Rendered pictures on disk, once for all trainings: `python -m training.data --count 60000 --decoded 3000`.

A plain array of 8-bit pixels beside the seeds it stands for (row i is seed TRAIN + i); rendering goes on where it
stopped. 60,000 pictures take 2.9 GB under `runs/`. Those with mixed colours (`training.mixes`), and the first ones once
more as the autoencoder shows them (of both kinds), stand in folders of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from editor.adapters import LatentCodec
from editor.models import load_profile
from editor.runtime import prepare
from training import clocks
from training.clock_world import CLOCKS
from training.mixes import mixed
from training.world import TRAIN

RUNS = Path("runs")
RENDERED, MIXED = RUNS / "clocks", RUNS / "mixed"
DECODED, MIXED_DECODED = RUNS / "decoded", RUNS / "mixed-decoded"
CHUNK, BATCH = 1000, 50


def render_chunk(first: int) -> np.ndarray:
    """Pictures of CHUNK seeds, uint8 (CHUNK, 128, 128, 3)."""
    return np.stack([np.asarray(CLOCKS.render(CLOCKS.sample(TRAIN + first + i))) for i in range(CHUNK)])


def render_mixed(first: int) -> np.ndarray:
    """The same clocks with parts that no colour's name fits."""
    return np.stack([np.asarray(mixed(clocks.sample(TRAIN + first + i)).picture()) for i in range(CHUNK)])


def save(path: Path, array: np.ndarray) -> None:
    """Write an array; who reads the file of that name meanwhile reads a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.rename(path)


def render_all(
    count: int, workers: int, folder: Path = RENDERED, chunk: Callable[[int], np.ndarray] = render_chunk
) -> None:
    """Write chunks until `count` pictures exist; finished chunks are kept."""
    missing = [first for first in range(0, count, CHUNK) if not (folder / f"{first:08d}.npy").exists()]
    with ProcessPoolExecutor(workers) as pool:
        for first, pixels in zip(missing, pool.map(chunk, missing), strict=True):
            save(folder / f"{first:08d}.npy", pixels)
            print(f"{first + CHUNK} of {count} pictures", flush=True)


@torch.no_grad()
def decode_all(count: int, codec: LatentCodec, rendered: Path = RENDERED, folder: Path = DECODED) -> None:
    """Write chunks of what is rendered as the autoencoder shows it, until `count` pictures exist or all are done."""
    for path in sorted(rendered.glob("*.npy"))[: -(-count // CHUNK)]:
        if not (folder / path.name).exists():
            parts = torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).split(BATCH)
            shown = torch.cat([codec.render(codec.encode(part.to(codec.vae.device) / 255)).cpu() for part in parts])
            save(folder / path.name, (255 * shown).round().byte().permute(0, 2, 3, 1).numpy())
            print(f"{folder / path.name}", flush=True)


class Pictures:
    """The rendered pictures as one array: memory-mapped chunks, indexed by rows."""

    def __init__(self, folder: Path = RENDERED) -> None:
        self.chunks = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
        if not self.chunks:
            raise FileNotFoundError(f"No pictures in {folder}: run python -m training.data first.")

    def __len__(self) -> int:
        return CHUNK * len(self.chunks)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (len(rows), 128, 128, 3)."""
        return np.stack([self.chunks[row // CHUNK][row % CHUNK] for row in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--mixed", type=int, default=0, help="pictures with colours that no name fits")
    parser.add_argument("--decoded", type=int, default=0, help="of each kind as the studio's autoencoder shows them")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    render_all(arguments.count, arguments.workers)
    render_all(arguments.mixed, arguments.workers, MIXED, render_mixed)
    if arguments.decoded:
        prepare(arguments.workers)
        codec = load_profile("studio").codec
        decode_all(arguments.decoded, codec)
        decode_all(arguments.decoded, codec, MIXED, MIXED_DECODED)
