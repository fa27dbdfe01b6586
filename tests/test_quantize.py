"""NF4 against the dequantised reference: outputs and gradients with respect to the input, on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import nn

from editor.loaders import load_transformer
from editor.quantize import quantize_nf4
from editor.twotime import two_time
from tests.tiny_flow import TEXT_WIDTH
from training.flow_folder import new_transformer

CPU = torch.device("cpu")


def dequantized(module: nn.Module) -> nn.Module:
    """The same network with plain layers that hold what the NF4 weights stand for."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear4bit):
                plain = nn.Linear(child.in_features, child.out_features, child.bias is not None)
                plain.weight.data = dequantize_4bit(child.weight.data, child.weight.quant_state).float()
                if child.bias is not None:
                    plain.bias.data = child.bias.data.float()
                setattr(parent, name, plain)
    return module


def run(transformer, x, width=64):
    batch, tokens = x.shape[:2]
    generator = torch.Generator().manual_seed(1)
    return transformer(
        hidden_states=x,
        timestep=torch.tensor([[0.9, 0.2]]).expand(batch, 2),
        encoder_hidden_states=torch.randn(batch, 5, width, generator=generator),
        pooled_projections=torch.randn(batch, width, generator=generator),
        guidance=torch.full((batch,), 3.5) if transformer.config.guidance_embeds else None,
        img_ids=torch.zeros(tokens, 3),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


@pytest.fixture(scope="module")
def networks():
    """A small transformer with NF4 blocks, and its dequantised reference."""
    torch.manual_seed(0)
    transformer = two_time(new_transformer(128, 1, 1, 16, 64, 64, heads=2)).requires_grad_(False)
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks):
        quantize_nf4(blocks, CPU, torch.float32)
    return transformer, dequantized(transformer)


def test_only_the_blocks_are_quantised(networks):
    quantized = {name for name, layer in networks[0].named_modules() if isinstance(layer, Linear4bit)}
    assert quantized
    assert all(name.split(".")[0] in ("transformer_blocks", "single_transformer_blocks") for name in quantized)


def test_outputs_and_input_gradients_are_those_of_the_dequantised_network(networks):
    x = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(2))
    results = []
    for network in networks:
        leaf = x.clone().requires_grad_()
        out = run(network, leaf)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    for quantized, reference in zip(*results, strict=True):
        torch.testing.assert_close(quantized, reference, rtol=1e-3, atol=1e-4)


def test_under_the_flow_maps_lora_too(flux_place):
    """As `editor.loaders` holds it: the LoRA whole, over weights in 4 bits."""
    quantized = load_transformer(flux_place.flow / "transformer", CPU, torch.float32, flux_place.lora, nf4=True)
    bases = [name for name, layer in quantized.named_modules() if isinstance(layer, Linear4bit)]
    assert bases
    assert all(name.endswith("base_layer") for name in bases)
    reference, x = dequantized(quantized), torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(2))
    results = []
    for network in (quantized, reference):
        leaf = x.clone().requires_grad_()
        out = run(network, leaf, TEXT_WIDTH)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    bare = load_transformer(flux_place.flow / "transformer", CPU, torch.float32, nf4=True)
    with torch.no_grad():
        assert not torch.allclose(run(two_time(bare), x, TEXT_WIDTH), results[0][0], rtol=1e-2, atol=1e-2)


def test_a_pass_without_gradients_leaves_those_with_possible():
    layer = quantize_nf4(nn.Sequential(nn.Linear(64, 64)), CPU, torch.float32).eval()
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        before = layer(x)
    after = layer(x.requires_grad_())
    torch.testing.assert_close(after.detach(), before)
    after.sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_lora_on_a_quantised_layer_stays_whole():
    layer = nn.ModuleDict({"base_layer": nn.Linear(64, 64), "lora_A": nn.ModuleDict({"x": nn.Linear(64, 2)})})
    quantize_nf4(layer, CPU, torch.float32)
    assert isinstance(layer["base_layer"], Linear4bit)
    assert type(layer["lora_A"]["x"]) is nn.Linear
