"""The two-time patch: a FLUX transformer that takes the time it leaves and the time it lands.

A flow map's network v(x, s, t) needs two times where FLUX has one. The published flow-map LoRA of
FLUX.1-dev doubles the embedder of time, guidance and pooled text and averages the two embeddings;
its weights name the copies `time_text_embed.original_embedder` and `time_text_embed.second_embedder`,
so those names are a file format. The studio's transformer carries the same patch.

Timesteps here are diffusers' own: sigma in [0, 1] (1 is noise), which the transformer multiplies by 1000.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from editor.types import EditError

WEIGHTS = "diffusion_pytorch_model.safetensors"
MARK = "two_time"
"""The entry of a transformer's config that says it is patched."""


class DualTimeEmbedder(nn.Module):
    """(emb1(t) + emb2(s)) / 2 for timesteps (B, 2), as the published flow-map LoRA expects.

    A plain timestep (B,) stands for the pair (t, t): the instantaneous velocity, which is what a
    one-time sampler such as the stock FluxPipeline asks for.
    """

    def __init__(self, embedder: nn.Module) -> None:
        super().__init__()
        self.original_embedder = embedder
        self.second_embedder = copy.deepcopy(embedder)

    def forward(self, timestep: Float[Tensor, "batch ..."], *conditions: Tensor) -> Float[Tensor, "batch width"]:
        first, second = timestep.unbind(-1) if timestep.ndim == 2 else (timestep, timestep)
        return (self.original_embedder(first, *conditions) + self.second_embedder(second, *conditions)) / 2


def two_time(transformer: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """Patch a transformer in place so that it takes timesteps (B, 2), and mark its config.

    The second embedder starts as a copy of the first, so for pairs (t, t) nothing changes.
    Patching twice does nothing more.
    """
    if not is_two_time(transformer):
        transformer.time_text_embed = DualTimeEmbedder(transformer.time_text_embed)
        transformer.register_to_config(**{MARK: True})
    return transformer


def is_two_time(transformer: FluxTransformer2DModel) -> bool:
    return isinstance(transformer.time_text_embed, DualTimeEmbedder)


def load_two_time(folder: Path, dtype: torch.dtype = torch.float32) -> FluxTransformer2DModel:
    """The patched transformer that `save_pretrained` wrote into `folder`.

    Raises EditError when the folder holds no patched transformer or its weights are incomplete.
    """
    try:
        config = FluxTransformer2DModel.load_config(folder, local_files_only=True)
        if not config.pop(MARK, False):
            raise EditError(f"{folder} holds a transformer of one time; a flow map of two times is needed there.")
        with torch.device("meta"):
            transformer = two_time(FluxTransformer2DModel.from_config(config))
        weights = load_file(Path(folder) / WEIGHTS)
        transformer.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EditError(f"The flow map's weights in {folder} are missing or incomplete: fetch them again.") from error
    return transformer.eval()
