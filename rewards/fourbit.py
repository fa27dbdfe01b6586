"""Layers with 4-bit weights (NF4, bitsandbytes) as this program needs them: gradients always pass. Slow to import."""

from __future__ import annotations

from bitsandbytes.nn import Linear4bit
from torch import nn


def differentiable(module: nn.Module) -> nn.Module:
    """Keep every NF4 layer of `module`, itself included, from repacking its weights for CPUs.

    On some CPUs a pass without gradients would repack them for good, and break the passes with gradients after it.
    """
    for layer in module.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return module
