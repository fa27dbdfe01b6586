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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from editor.types import EditError

WEIGHTS = "diffusion_pytorch_model.safetensors"
MARK = "two_time"
"""The entry of a transformer's config that says it is patched."""
PREFIX = "transformer."
ADAPTER = "flow_map"


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


def load_flow_map_lora(transformer: FluxTransformer2DModel, file: Path) -> FluxTransformer2DModel:
    """Patch `transformer` in place and lay the flow map's LoRA over it; the weights stay a layer of their own.

    The patch comes first, since the LoRA names the patched modules. Raises EditError that names the file
    and what is wrong with it unless every key of it finds its place and the second embedder gets its own.
    """
    targets = lora_targets(file)
    layers = {name: m for name, m in two_time(transformer).named_modules() if isinstance(m, nn.Linear)}
    strangers = sorted(set(targets) - set(layers))
    if strangers:
        raise EditError(f"{file} is no LoRA for this model: it changes {strangers[0]}, which the model does not have.")
    if not any("second_embedder" in name for name in targets):
        raise EditError(f"{file} is not the flow map's LoRA: it leaves the second time embedder as it is.")
    for name, widths in targets.items():
        if widths != (layers[name].in_features, layers[name].out_features):
            raise EditError(f"{file} was made for a model of another size: {name} does not fit.")
    transformer.load_lora_adapter(str(file), prefix=PREFIX[:-1], adapter_name=ADAPTER, local_files_only=True)
    return transformer


def lora_targets(file: Path) -> dict[str, tuple[int, int]]:
    """The modules that a LoRA file changes, with their widths in and out. Raises EditError if it is no such file."""
    ends = {"lora_A.weight": 1, "lora_B.weight": 0}
    widths: dict[str, dict[str, int]] = {}
    try:
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118 (the file is no mapping)
                module, _, end = key.removeprefix(PREFIX).partition(".lora_")
                end = "lora_" + end
                if not key.startswith(PREFIX) or end not in ends:
                    raise EditError(f"{file} is not the flow map's LoRA: it holds {key}.")
                widths.setdefault(module, {})[end] = weights.get_slice(key).get_shape()[ends[end]]
    except (OSError, SafetensorError) as error:
        raise EditError(f"The LoRA {file} is missing or damaged: fetch it again.") from error
    halves = [module for module, found in widths.items() if len(found) < 2]
    if halves or not widths:
        raise EditError(f"The LoRA {file} is incomplete: fetch it again.")
    return {module: (found["lora_A.weight"], found["lora_B.weight"]) for module, found in widths.items()}
