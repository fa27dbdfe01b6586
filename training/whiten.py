"""Give the directions of an autoencoder's latents equal spread, which a flow map over them needs.

Latents that nothing holds back vary thirteen times as much along some directions of their channels as along others:
the colours of large areas against the edges of hands. A flow from white noise drowns the small ones until its last
steps, and its squared error hardly sees them, so that it draws fine colours and crooked hands. The training of the
autoencoder therefore pulls their covariance towards that of white noise (`unevenness`), and at its end the last
convolution of the encoder is turned so that every direction has the same deviation, and the first one of the decoder
turned back (`whiten`). The decoder bends large latents (3 tanh(z / 3)), but hardly those of DEVIATION.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

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
        channels = in_channels(latents).double()
        values, vectors = torch.linalg.eigh(channels.cov())
        return cls((vectors * values.rsqrt() @ vectors.T * DEVIATION).float(), channels.mean(1).float())

    @property
    def spread(self) -> Tensor:
        """Deviations (C,) of the latents along the directions that are turned, smallest first."""
        return DEVIATION / torch.linalg.eigvalsh(self.matrix).flip(0)

    def __call__(self, latents: Tensor) -> Tensor:
        return torch.einsum("ij,njhw->nihw", self.matrix, latents - self.mean[:, None, None])


def in_channels(latents: Tensor) -> Tensor:
    """Latents (N, C, H, W) -> (C, N H W)."""
    return latents.movedim(1, 0).flatten(1)


def unevenness(latents: Tensor) -> Tensor:
    """How far the channels of latents are from mean 0 and covariance DEVIATION² I; 0 is there."""
    channels = in_channels(latents) / DEVIATION
    error = channels.cov() - torch.eye(len(channels), device=latents.device)
    return error.square().sum() / len(channels) + channels.mean(1).square().mean()


@torch.no_grad()
def whiten(vae: AutoencoderTiny, found: Whitening) -> None:
    """Make the encoder give whitened latents and the decoder take them."""
    last, first, back = vae.encoder.layers[-1], vae.decoder.layers[0], torch.linalg.inv(found.matrix)
    last.weight.copy_(torch.einsum("ij,jkhw->ikhw", found.matrix, last.weight))
    last.bias.copy_(found.matrix @ (last.bias - found.mean))
    first.bias.add_(torch.einsum("ijhw,j->i", first.weight, found.mean))
    first.weight.copy_(torch.einsum("ijhw,jk->ikhw", first.weight, back))
