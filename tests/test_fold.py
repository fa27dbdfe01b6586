"""The folded end of a small decoder: the same pictures and the same slopes."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderTiny

from editor.fold import FoldedEnd, fold
from training.flow_folder import new_vae


@pytest.fixture
def small() -> AutoencoderTiny:
    torch.manual_seed(0)
    return new_vae(channels=4, width=8).double().requires_grad_(False)


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (5, 4)])
def test_a_folded_decoder_draws_the_same_to_the_edges(small: AutoencoderTiny, sides: tuple[int, int]):
    stock = copy.deepcopy(small)
    folded = fold(small)
    assert isinstance(folded.decoder.layers[-1], FoldedEnd)
    x = torch.randn(2, 4, *sides, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    drawn, wanted = folded.decoder(x), stock.decoder(x)
    assert torch.allclose(drawn, wanted, atol=1e-12)
    weight = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slopes = [torch.autograd.grad((image * weight).sum(), x)[0] for image in (drawn, wanted)]
    assert torch.allclose(*slopes, atol=1e-12)


def test_a_decoder_that_ends_otherwise_stays_as_it_is(small: AutoencoderTiny):
    other = new_vae(channels=4, width=8, decoder_blocks=(1, 1, 1, 1))
    layers = list(other.decoder.layers)
    assert list(fold(other).decoder.layers) == layers
    assert fold(small.encoder) is small.encoder
