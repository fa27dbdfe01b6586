"""The folded end of a small decoder: the same pictures and the same slopes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from editor.fold import FoldedEnd, folded
from training.flow_folder import new_vae


@pytest.mark.parametrize("sides", [(1, 1), (2, 3), (5, 4)])
def test_a_folded_decoder_draws_the_same_to_the_edges(sides: tuple[int, int]):
    torch.manual_seed(0)
    stock = new_vae(channels=4, width=8).double().requires_grad_(False).decoder
    decoder = copy.deepcopy(stock)
    decoder.layers = folded(decoder.layers)
    assert isinstance(decoder.layers[-1], FoldedEnd)
    x = torch.randn(2, 4, *sides, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    drawn, wanted = decoder(x), stock(x)
    assert torch.allclose(drawn, wanted, atol=1e-12)
    weight = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slopes = [torch.autograd.grad((image * weight).sum(), x)[0] for image in (drawn, wanted)]
    assert torch.allclose(*slopes, atol=1e-12)


def end(scale: int = 2, **otherwise: object) -> nn.Sequential:
    first = nn.Conv2d(4, 4, **{"kernel_size": 3, "padding": 1, "bias": False} | otherwise)
    return nn.Sequential(nn.Upsample(scale_factor=scale), first, nn.Conv2d(4, 3, 3, padding=1))


def test_layers_that_end_otherwise_stay_as_they_are():
    assert isinstance(folded(end())[-1], FoldedEnd)
    others = [new_vae(channels=4, width=8, decoder_blocks=(1, 1, 1, 1)).decoder.layers, end(scale=3)]
    ways = ({"stride": 2}, {"padding": 0}, {"dilation": 2}, {"groups": 2}, {"bias": True}, {"padding_mode": "reflect"})
    others += [end(**otherwise) for otherwise in (*ways, {"kernel_size": 5})]
    assert all(folded(layers) is layers for layers in others)
