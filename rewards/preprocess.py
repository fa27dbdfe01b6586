"""Images to a Qwen-VL's patches as tensors, so that gradients reach the pixels.

Every size comes from the model's own image processor; a test holds equality with its stock path.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import BaseImageProcessor


def pixel_patches(
    processor: BaseImageProcessor, images: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "patches values"], Int[Tensor, "batch 3"]]:
    """What `processor(images, do_rescale=False)` gives: patches in merge order, and (t, h, w) in patches.

    `images` are in [0, 1]; resized by the processor's own rule, normalised, and cut up, in their dtype.
    Raises ValueError for anything but a batch of RGB images in floating point.
    """
    patches, grid = cut_up(processor, images)
    return patches, torch.tensor([grid], device=images.device).expand(len(images), 3)


def cut_up(
    processor: BaseImageProcessor, images: Float[Tensor, "batch 3 height width"]
) -> tuple[Float[Tensor, "patches values"], tuple[int, int, int]]:
    """The patches of `pixel_patches`, and the one (t, h, w) of all images as numbers.

    Raises ValueError as that does.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        kind = f"{tuple(images.shape)} of {images.dtype}"
        raise ValueError(f"The VLM reads images of shape (batch, 3, height, width) in floating point, not {kind}.")
    patch, merge = processor.patch_size, processor.merge_size
    images = processor.resize(images=images, size=processor.size, resample=processor.resample, factor=patch * merge)
    mean, std = (_channels(tuple(c), images.dtype, images.device) for c in (processor.image_mean, processor.image_std))
    patches, height, width = processor.patchify((images - mean) / std, patch, merge, processor.temporal_patch_size)
    return patches.flatten(0, 1), (1, height, width)


@lru_cache(maxsize=16)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Float[Tensor, "3 1 1"]:
    """A number for each colour; kept, since to put it on a GPU waits for all that the GPU has to do."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


class MatrixPatchEmbed(nn.Module):
    """A patch embedding's 3-D convolution as the matrix product that it is.

    Its stride is its kernel, so each patch meets the kernel once; on a CPU the product's backward
    pass takes half the time. Parameters keep their names.
    """

    def __init__(self, proj: nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, patches: Float[Tensor, "patches values"]) -> Float[Tensor, "patches width"]:
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)
