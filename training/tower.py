"""The vision tower for batches of pictures of one size, without a wait between its layers.

The stock forward pass works out of the images' sizes where their patches stand, one image after the other at every
call: for hundreds of pictures on a GPU that takes longer than to see them. Pictures of one size need it once.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from rewards.preprocess import cut_up
from rewards.vlm import Features


def look(visual: PreTrainedModel, processor: BaseImageProcessor, images: Tensor) -> tuple[Features, Tensor]:
    """What Qwen2.5-VL's text tower reads of images (B, 3, H, W) in [0, 1], and the patches' states (B, P, width)."""
    patches, grid = cut_up(processor, images)
    config = visual.config
    known = _places(grid, len(images), config.spatial_merge_size, config.window_size, config.patch_size, images.device)
    seen = visual(patches, **known)
    tokens, states = (part.unflatten(0, (len(images), -1)) for part in (seen.pooler_output, seen.last_hidden_state))
    return Features(tokens, (), grid), states


@lru_cache(maxsize=64)
def _places(
    grid: tuple[int, int, int], count: int, merge: int, window: int, patch: int, device: torch.device
) -> dict[str, Tensor]:
    """The tower's arguments for so many images of a size in patches; the lengths of windows stay on the CPU."""
    grids = torch.tensor([grid]).expand(count, 3)
    order, windows = get_vision_window_index(grids, merge, window, patch)
    return {
        "grid_thw": grids,
        "position_ids": get_vision_position_ids(grids, merge).to(device),
        "window_index": order.to(device),
        "cu_seqlens": get_vision_cu_seqlens(grids),
        "cu_window_seqlens": windows,
    }
