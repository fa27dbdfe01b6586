"""4-bit weights (NF4, bitsandbytes) for networks that gradients only pass through.

The gradient with respect to the input uses the dequantised weights, so it is exact for the quantised network.
Never combine with offloading of the weights: their packed form is not among the tensors that autograd restores.
"""

from __future__ import annotations

import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

from rewards.fourbit import differentiable

LORA = ("lora_A", "lora_B")


def quantize_nf4(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Replace every Linear inside `module` by its NF4 form on `device`, one at a time; layers of a LoRA stay.

    `dtype` is what products are computed in. Statistics are quantised too, in blocks of 256.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, nf4_linear(child, device, dtype))
        elif name not in LORA:
            quantize_nf4(child, device, dtype)
    return module


def nf4_linear(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> Linear4bit:
    """The layer with its weight in NF4, frozen."""
    quantized = Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, dtype, quant_type="nf4", device="meta"
    )
    quantized.weight = Params4bit(layer.weight.data.to(dtype), requires_grad=False, quant_type="nf4")
    if layer.bias is not None:
        quantized.bias = nn.Parameter(layer.bias.data.to(device, dtype), requires_grad=False)
    quantized.weight = quantized.weight.to(device)
    return differentiable(quantized)
