"""How the autoencoder's weights lie in memory, and what that costs: `python -m benchmarks.memory_format --threads 1`.

Prints a row of Markdown for each: the least of some runs of the studio's autoencoder, in milliseconds, encoding a
batch of images, decoding it, and decoding it with a gradient.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from editor.adapters import LatentCodec
from editor.models import load_profile
from editor.runtime import prepare

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
RUNS = 10


def least(run: Callable[[], object]) -> float:
    """Milliseconds of the quickest of RUNS runs, after one that is not counted."""
    run()
    took = []
    for _ in range(RUNS):
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return 1000 * min(took)


def costs(codec: LatentCodec, batch: int, side: int) -> tuple[float, float, float]:
    """Milliseconds to encode, to decode, and to decode with a gradient a batch of square images."""
    pictures = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(codec.vae.device)
    with torch.no_grad():
        latents = codec.encode(pictures)
        there, back = least(lambda: codec.encode(pictures)), least(lambda: codec.decode(latents))
    latents.requires_grad_()
    return there, back, least(lambda: torch.autograd.grad(codec.decode(latents).sum(), latents))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    models = load_profile("studio")
    codec, side = models.codec, models.profile.size
    for batch in chosen.batches:
        for name, layout in FORMATS.items():
            codec.vae.to(memory_format=layout)
            figures = " | ".join(f"{cost:.0f}" for cost in costs(codec, batch, side))
            print(f"| {batch} | {codec.vae.dtype} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
