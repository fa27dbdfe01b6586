"""The autoencoder's weights in memory: another order, the same pictures."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks import memory_format
from editor.adapters import LatentCodec
from editor.loaders import load_autoencoder


def test_float32_on_a_cpu_has_its_channels_last_and_shows_the_same(studio):
    folder, cpu = studio.models.place.flow / "vae", torch.device("cpu")
    last = LatentCodec(load_autoencoder(folder, cpu, torch.float32))
    weights = [p for p in last.vae.parameters() if p.dim() == 4 and p.shape[-1] > 1 and p.shape[1] > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    first = LatentCodec(copy.deepcopy(last.vae).to(memory_format=torch.contiguous_format))
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = first.encode(pictures)
        assert torch.allclose(last.encode(pictures), latents, atol=1e-4)
        assert torch.allclose(last.decode(latents), first.decode(latents), atol=1e-4)
    half = load_autoencoder(folder, cpu, torch.bfloat16)
    assert all(p.is_contiguous() for p in half.parameters())


def test_each_cost_is_measured(tiny_editor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_format, "RUNS", 2)
    assert all(cost > 0 for cost in memory_format.costs(tiny_editor.models.codec, 1, 32))
