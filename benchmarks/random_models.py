"""Models of the published sizes with random weights: what they weigh and cost is the same, what they show is noise.

Nothing is downloaded, and no weight passes through main memory: networks are laid out without storage and filled where
they run; those held in NF4 are quantised one block after the other, as `editor.loaders` does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, AutoencoderTiny, FluxTransformer2DModel
from peft import LoraConfig
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from editor.adapters import LatentCodec
from editor.loaders import frozen
from editor.memory import MemoryPlan, judge_of
from editor.models import Hardware, Models, Place
from editor.profiles import Profile
from editor.quantize import quantize_nf4
from editor.twotime import two_time
from rewards.vlm import VLM
from training.vlm_folder import (
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
    new_processor,
    new_tokenizer,
)

LORA_RANK = 64
"""Of the published flow-map LoRA at 512 pixels."""
FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "axes_dims_rope": (16, 56, 56),
}
"""FLUX.1's transformer."""
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""FLUX.1's autoencoder."""
DRAFT: dict[str, Any] = {"latent_channels": 16}
"""TAEF1; the rest is AutoencoderTiny's own default."""
VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""The vision tower of Qwen2.5-VL of either size, but for the width that it hands on."""
TEXTS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}
"""The text towers of Qwen2.5-VL, by name."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Configurations of a profile's networks; the published ones unless a test wants them smaller."""

    flow: dict[str, Any] = field(default_factory=FLUX.copy)
    vae: dict[str, Any] = field(default_factory=VAE.copy)
    draft: dict[str, Any] = field(default_factory=DRAFT.copy)
    text: dict[str, Any]
    vision: dict[str, Any] = field(default_factory=VISION.copy)
    sections: tuple[int, int, int] = (16, 24, 24)
    """Dimensions of half a head that turn with time, height and width."""


class RandomText:
    """In place of the text encoders, which never touch the GPU: embeddings of the right shape."""

    def __init__(self, flow: dict[str, Any], dtype: torch.dtype) -> None:
        self.widths, self.dtype = (flow["joint_attention_dim"], flow["pooled_projection_dim"]), dtype

    def encode_prompt(self, prompt: str, max_sequence_length: int) -> tuple[Tensor, Tensor, None]:
        sequence, pooled = self.widths
        shapes = (1, max_sequence_length, sequence), (1, pooled)
        return *(torch.randn(shape, dtype=self.dtype) for shape in shapes), None


def random_models(profile: Profile, plan: MemoryPlan, sizes: Sizes, corpus: list[str], hardware: Hardware) -> Models:
    """A profile's models held as `plan` says, with random weights; the VLM's tokenizer knows the words of `corpus`."""
    at, dtype = hardware.device, hardware.dtype
    held = Models(profile, Place(None, None), hardware)
    vlm = random_vlm(sizes, profile.size, corpus, at, dtype, plan.vlm == "nf4")
    transformer = empty_transformer(profile, sizes.flow)
    for name, blocks in transformer.named_children():
        if plan.flow == "nf4" and name.endswith("transformer_blocks"):
            quantized(blocks, at, dtype)
    filled(transformer, at, dtype)
    if plan.checkpoint:
        transformer.enable_gradient_checkpointing()
    vae, draft = (empty(cls, size) for cls, size in ((AutoencoderKL, sizes.vae), (AutoencoderTiny, sizes.draft)))
    codec = LatentCodec(filled(vae, at, dtype), None if plan.full_decoder else filled(draft, at, dtype), plan.rows)
    held.__dict__.update(_transformer=transformer, _codec=codec, _vlm=vlm, _text=RandomText(sizes.flow, dtype))
    return held


def empty(cls: type[nn.Module], config: Any) -> nn.Module:
    """A network whose parameters have no storage yet; its buffers do, since they are computed when it is made."""
    with init_empty_weights(include_buffers=False):
        return cls(**config) if isinstance(config, dict) else cls(config)


def empty_transformer(profile: Profile, flow: dict[str, Any]) -> FluxTransformer2DModel:
    """FLUX.1 as the profile holds it: with the two-time patch and a LoRA over its blocks and time embedders, if any."""
    transformer = empty(FluxTransformer2DModel, flow | {"guidance_embeds": profile.two_time})
    if profile.two_time:
        with init_empty_weights(include_buffers=False):
            layers = [name for name, layer in two_time(transformer).named_modules() if isinstance(layer, nn.Linear)]
            targets = [name for name in layers if "transformer_blocks" in name or "time_text_embed" in name]
            transformer.add_adapter(LoraConfig(r=LORA_RANK, target_modules=targets))
    return transformer


def empty_vlm(sizes: Sizes, tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL for the markers of `tokenizer`, whose vocabulary may be smaller than the model's."""
    marks = {"image": IMAGE, "video": VIDEO, "vision_start": VISION_START, "vision_end": VISION_END}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(sizes.sections)}
    config = Qwen2_5_VLConfig(
        text_config=sizes.text | {"rope_parameters": rope, "bos_token_id": None, "eos_token_id": None},
        vision_config=sizes.vision | {"out_hidden_size": sizes.text["hidden_size"]},
        tie_word_embeddings=sizes.text["tie_word_embeddings"],
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark) for name, mark in marks.items()},
    )
    model = empty(Qwen2_5_VLForConditionalGeneration, config)
    model.tie_weights()
    return model


def random_vlm(sizes: Sizes, size: int, corpus: list[str], at: torch.device, dtype: torch.dtype, nf4: bool) -> VLM:
    """The judge of images of `size` pixels, which it sees with as many tokens as the published one."""
    tokenizer = new_tokenizer(corpus, 1024)
    model = empty_vlm(sizes, tokenizer)
    if nf4:
        quantized(model.model.language_model.layers, at, dtype)
    filled(model, at, dtype)
    square = 2 * sizes.vision["patch_size"]
    return VLM(model, new_processor(tokenizer, max(1, round(size / square)) * square, sizes.vision["patch_size"]))


def quantized(blocks: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Fill blocks and quantise them, each before the next is filled, so that one at a time is held in full."""
    for block in blocks.children():
        quantize_nf4(filled(block, device, dtype), device, dtype)


@torch.no_grad()
def filled(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Give storage on `device` to what has none: matrices that keep the scale of their input, scales 1, offsets 0.

    Parameters that several layers share stay shared. Frozen.
    """
    made: dict[int, nn.Parameter] = {}
    for layer in module.modules():
        for name, old in layer.named_parameters(recurse=False, remove_duplicate=False):
            if old.is_meta and id(old) not in made:
                new = torch.empty(old.shape, device=device, dtype=dtype)
                if old.ndim > 1:
                    new.normal_(0, old[0].numel() ** -0.5)
                else:
                    new.fill_(float(name == "weight"))
                made[id(old)] = nn.Parameter(new, requires_grad=False)
            if id(old) in made:
                setattr(layer, name, made[id(old)])
    return frozen(module, device)


def parameters(module: nn.Module) -> float:
    """Billions of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e9


def published(profile: Profile) -> Sizes:
    """The sizes of a profile's networks. Raises EditError or KeyError for a VLM whose sizes are not known here."""
    judge_of(profile)
    return Sizes(text=TEXTS[profile.vlm.id])
