"""Give the directions of an autoencoder's latents equal spread: `python -m training.whiten`, before the flow map.

Latents as trained vary thirteen times as much along some directions of their channels as along others: the colours of
large areas against the edges of hands. A flow from white noise drowns the small ones until its last steps, and its
squared error hardly sees them, so that it draws fine colours and crooked hands. Here the last convolution of the
encoder is turned so that every direction has the same deviation, and the first one of the decoder is turned back.
The decoder bends large latents (3 tanh(z / 3)), so it must learn on: `python -m training.train_autoencoder --decoder`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from editor.runtime import prepare
from training.data import RUNS, Pictures
from training.train_autoencoder import to_signed

WHITENED = RUNS / "whitened" / "vae"
"""The autoencoder that the flow map is trained over."""
DEVIATION = 0.25
"""Of whitened latents: small, where the decoder's bend hardly is one."""


class Whitening(NamedTuple):
    """z -> matrix @ (z - mean) for every place of latents."""

    matrix: Tensor
    """(C, C), symmetric."""
    mean: Tensor
    """(C,)."""

    @classmethod
    def of(cls, latents: Tensor) -> Whitening:
        """That of latents (N, C, H, W), by the root of their covariance (ZCA)."""
        places = latents.movedim(1, -1).flatten(0, -2).double()
        values, vectors = torch.linalg.eigh(places.T.cov())
        return cls((vectors * values.rsqrt() @ vectors.T * DEVIATION).float(), places.mean(0).float())

    def __call__(self, latents: Tensor) -> Tensor:
        return torch.einsum("ij,njhw->nihw", self.matrix, latents - self.mean[:, None, None])


@torch.no_grad()
def whiten(vae: AutoencoderTiny, found: Whitening) -> None:
    """Make the encoder give whitened latents and the decoder take them."""
    last, first, back = vae.encoder.layers[-1], vae.decoder.layers[0], torch.linalg.inv(found.matrix)
    last.weight.copy_(torch.einsum("ij,jkhw->ikhw", found.matrix, last.weight))
    last.bias.copy_(found.matrix @ (last.bias - found.mean))
    first.bias.add_(torch.einsum("ijhw,j->i", first.weight, found.mean))
    first.weight.copy_(torch.einsum("ijhw,jk->ikhw", first.weight, back))


@torch.no_grad()
def some_latents(vae: AutoencoderTiny, count: int = 4000) -> Tensor:
    """Latents of the first pictures of the training, (count, C, 16, 16)."""
    pictures, parts = Pictures(), range(0, count, 50)
    return torch.cat([vae.encoder(to_signed(pictures[np.arange(first, first + 50)])) for first in parts])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, default=RUNS / "autoencoder" / "vae")
    parser.add_argument("--out", type=Path, default=WHITENED)
    arguments = parser.parse_args()
    prepare()
    trained = AutoencoderTiny.from_pretrained(arguments.vae)
    found = Whitening.of(some_latents(trained))
    whiten(trained, found)
    spread = DEVIATION / torch.linalg.eigvalsh(found.matrix)
    print(f"Deviations along the directions of the channels: {spread.min():.2f} to {spread.max():.2f}")
    trained.save_pretrained(arguments.out)
