"""Low-rank changes of a model's matrices (LoRA), and an adapter for plans that keeps up with a judge that moves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import PreTrainedModel

from rewards.planner import FOLDER, twin
from rewards.vlm import VLM

MATRICES = r".*\.(attn|self_attn|mlp)\.(qkv|proj|[a-z]+_proj)|.*\.merger\.mlp\.[02]"
"""Those of attention and perceptrons in both towers, and what hands on what is seen."""


@torch.no_grad()
def changes(model: PreTrainedModel) -> dict[str, Tensor]:
    """What a model's only adapter adds to each matrix (out, in) that it changes, by the matrix's module's name."""
    found = {}
    for name, module in model.named_modules():
        for adapter in getattr(module, "lora_A", {}):
            down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
            found[name] = module.scaling[adapter] * up @ down
    return found


def adapter_rank(model: PreTrainedModel) -> int:
    """Of the changes by a model's only adapter; 0 without one."""
    ranks = {len(p) for name, p in model.named_parameters() if "lora_A" in name}
    return ranks.pop() if ranks else 0


@torch.no_grad()
def plan_as(vlm: VLM, wanted: Mapping[str, Tensor], rank: int) -> None:
    """Give a VLM an adapter for plans under which its matrices are the `wanted` ones (out, in), as near as a rank can.

    That is the truncated singular value decomposition of what they differ by (Eckart and Young).
    """
    fresh = twin(vlm.model)
    fresh.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=MATRICES), FOLDER)
    modules = dict(fresh.named_modules())
    for name, matrix in wanted.items():
        module = modules[name]
        u, s, v = torch.linalg.svd(matrix - module.base_layer.weight, full_matrices=False)
        down, up = module.lora_A[FOLDER].weight.zero_(), module.lora_B[FOLDER].weight.zero_()
        kept = min(rank, len(s))
        half = s[:kept].sqrt()
        down[:kept], up[:, :kept] = half[:, None] * v[:kept], u[:, :kept] * half
    vlm.plan_with(fresh.eval().requires_grad_(False))


@torch.no_grad()
def planning_weights(vlm: VLM) -> dict[str, Tensor]:
    """The matrices (out, in) with which a VLM plans, of those that its adapter changes; none without an adapter."""
    own = dict(vlm.model.named_modules())
    return {name: own[name].weight + change for name, change in changes(vlm.planner.model).items()}
