"""The image tower's attention for many images at once: all windows of one length in one call, not one call each."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class WindowAttention(nn.Module):
    """Qwen-VL's vision attention with its own weights and rotary rule, batched over windows of equal length.

    The stock module calls its kernel once for each window of each image: for a batch of small images
    most of the time is spent between the calls. Parameters keep their names.
    """

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.qkv, self.proj = stock.qkv, stock.proj
        self.heads, self.scaling = stock.num_heads, stock.scaling

    def forward(
        self,
        hidden_states: Float[Tensor, "tokens width"],
        cu_seqlens: Int[Tensor, " windows+1"],
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> Float[Tensor, "tokens width"]:
        query, key, value = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1)).unbind(1)
        cos, sin = (part[:, None].float() for part in position_embeddings)
        query, key = (turned(part, cos, sin).to(value.dtype) for part in (query, key))
        lengths = cu_seqlens.diff()
        if bool((lengths == lengths[0]).all()):
            return self.proj(self._attend(query, key, value, int(lengths[0])))
        out = torch.empty_like(hidden_states, dtype=value.dtype)
        owner = lengths.repeat_interleave(lengths)
        for length in lengths.unique().tolist():
            rows = (owner == length).nonzero()[:, 0].to(hidden_states.device)
            out = out.index_copy(0, rows, self._attend(query[rows], key[rows], value[rows], length))
        return self.proj(out)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Float[Tensor, "tokens width"]:
        """Attention within windows of `length` tokens that follow one another."""
        q, k, v = (part.unflatten(0, (-1, length)).transpose(1, 2) for part in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, scale=self.scaling).transpose(1, 2).flatten(2).flatten(0, 1)


def turned(x: Float[Tensor, "tokens heads head"], cos: Tensor, sin: Tensor) -> Float[Tensor, "tokens heads head"]:
    """x under the rotary embedding: halves of a head are the two coordinates."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin
