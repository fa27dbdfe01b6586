"""What the flow network is taught beside its velocity: to tell from a noisy latent where the hands will be.

Hands are few pixels of a picture and the last thing that flow matching learns to draw. A head that is thrown away
afterwards tells in the middle of the network, for every token, which of its cells the hands will cover; the blocks
behind it then know what to draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from training.clocks import Clock
from training.see import CELLS, HANDS, PATCHES, covered

DIAL = 3.0
"""How much more than any other an error on the dial weighs."""


class Foresight(nn.Module):
    """A linear head on the image tokens that leave the middle one of a transformer's single blocks."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.where_embed = nn.Linear(transformer.inner_dim, HANDS * CELLS**2)
        self.middle: Tensor | None = None
        """What the last call of the transformer left there, (B, 64, width)."""
        blocks = transformer.single_transformer_blocks
        blocks[len(blocks) // 2].register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _given: object, left: tuple[Tensor, Tensor]) -> None:
        self.middle = left[1]

    def loss(self, truth: Float[Tensor, "batch tokens cells"]) -> Tensor:
        """Mean cross-entropy of the hands' places in the last call, against `where_hands_are`."""
        if self.middle is None:
            raise RuntimeError("The transformer was not called yet.")
        logits = self.where_embed(self.middle)
        self.middle = None
        return F.binary_cross_entropy_with_logits(logits.float(), truth)


def where_hands_are(hands: Float[Tensor, "batch hands 7"]) -> Float[Tensor, "batch tokens cells"]:
    """How much of each cell of each token each hand of a `hand_table` covers, in [0, 1]; row by row, as FLUX packs."""
    still = torch.eye(2, 3, device=hands.device).expand(len(hands), 2, 3)
    split = covered(hands, still).unflatten(3, (PATCHES, CELLS)).unflatten(2, (PATCHES, CELLS))
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def dials(scenes: Sequence[Clock]) -> Float[Tensor, "batch 3"]:
    """Centre x, y and radius inside the rim."""
    return torch.tensor([[c.x, c.y, c.dial] for c in scenes])


def weights(dials: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch tokens"]:
    """How much the error of each token counts: DIAL inside the rim, 1 outside, over the mean of all."""
    place = (torch.arange(PATCHES, device=dials.device) + 0.5) / PATCHES
    across, down = torch.meshgrid(place, place, indexing="xy")
    x, y, radius = dials.T[..., None, None]
    found = torch.where((across - x).square() + (down - y).square() < radius.square(), DIAL, 1.0)
    return (found / found.mean()).flatten(1)
