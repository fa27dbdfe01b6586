"""What the autoencoder costs as it was trained, with its end folded, and as its weights lie in memory.

    python -m benchmarks.memory_format --threads 1

Prints a row of Markdown for each: the least of some runs of the studio's autoencoder, in milliseconds, encoding a
batch of images, decoding it, and decoding it with a gradient.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderTiny

from editor.adapters import LatentCodec
from editor.models import load_profile
from editor.runtime import prepare

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
    folded = models.codec.vae
    trained = AutoencoderTiny.from_pretrained(models.place.flow / "vae", dtype=folded.dtype).requires_grad_(False)
    ways = {
        "as trained, channels first": (trained, torch.contiguous_format),
        "as trained, channels last": (trained, torch.channels_last),
        "folded, channels first": (folded, torch.contiguous_format),
        "folded, channels last": (folded, torch.channels_last),
    }
    for batch in chosen.batches:
        for name, (vae, layout) in ways.items():
            codec = LatentCodec(vae.to(memory_format=layout))
            figures = " | ".join(f"{cost:.0f}" for cost in costs(codec, batch, models.profile.size))
            print(f"| {batch} | {vae.dtype} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
