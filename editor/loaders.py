"""From folders in the published layouts to networks: one function for each part of a profile.

Every function raises EditError with one sentence when files are missing, torn or of another kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from math import exp
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaSprintPipeline,
    SanaTransformer2DModel,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    CLIPTextModel,
    CLIPTokenizer,
    Gemma2Model,
    GemmaTokenizer,
    PreTrainedTokenizerBase,
    T5EncoderModel,
    T5TokenizerFast,
)

from editor.fold import folded
from editor.repos import VOCABULARIES
from editor.twotime import MARK, load_flow_map_lora, load_two_time
from editor.types import EditError

AUTOENCODERS = {cls.__name__: cls for cls in (AutoencoderDC, AutoencoderKL, AutoencoderTiny)}
TRANSFORMERS = {cls.__name__: cls for cls in (FluxTransformer2DModel, SanaTransformer2DModel)}
SANA_INSTRUCTION = signature(SanaSprintPipeline.__call__).parameters["complex_human_instruction"].default
"""What SANA-Sprint's pipeline puts before every prompt."""


def load_transformer(
    folder: Path, device: torch.device, dtype: torch.dtype, lora: Path | None = None, nf4: bool = False
) -> FluxTransformer2DModel | SanaTransformer2DModel:
    """The transformer in `folder`, frozen, on `device`; under the flow map's LoRA if one is given.

    A folder that is marked as patched is loaded with the two-time patch. With `nf4` the blocks' weights are
    quantised on their way to the device, each by itself, so that the device never holds the others.
    """
    with reading(folder):
        config = json.loads((folder / "config.json").read_text())
        cls = TRANSFORMERS[config["_class_name"]]
        patched = config.get(MARK, False)
        transformer = load_two_time(folder, dtype) if patched else pretrained(cls, folder, dtype)
    if lora is not None:
        load_flow_map_lora(transformer, lora)
        nn.Module.to(transformer, dtype)
    if nf4:
        from editor.quantize import quantize_nf4  # slow to import, and nobody else needs it

        for name, blocks in transformer.named_children():
            if name.endswith("transformer_blocks"):
                quantize_nf4(blocks, device, dtype)
    return frozen(transformer, device)


def load_autoencoder(
    folder: Path, device: torch.device, dtype: torch.dtype
) -> AutoencoderDC | AutoencoderKL | AutoencoderTiny:
    """The autoencoder in `folder`, frozen.

    Float32 convolutions on a CPU take weights with the channels last: decoding eight 128 px images on one core of an
    AMD EPYC took 0.39 s for 0.52, with a gradient 0.80 for 0.92 (`python -m benchmarks.memory_format`, 2026-11-29).
    """
    with reading(folder):
        cls = AUTOENCODERS[json.loads((folder / "config.json").read_text())["_class_name"]]
        vae = pretrained(cls, folder, dtype)
        if isinstance(vae, AutoencoderTiny):
            vae.decoder.layers = folded(vae.decoder.layers)
        vae = frozen(vae, device)
    if device.type == "cpu" and dtype == torch.float32:
        vae.to(memory_format=torch.channels_last)
    return vae


def load_flux_text(folder: Path, device: torch.device, dtype: torch.dtype) -> FluxPipeline:
    """A FluxPipeline of nothing but its text encoders and tokenizers."""
    with reading(folder):
        return FluxPipeline(
            scheduler=None,
            vae=None,
            text_encoder=frozen(pretrained(CLIPTextModel, folder / "text_encoder", dtype), device),
            tokenizer=load_tokenizer(CLIPTokenizer, folder / "tokenizer"),
            text_encoder_2=frozen(pretrained(T5EncoderModel, folder / "text_encoder_2", dtype), device),
            tokenizer_2=load_tokenizer(T5TokenizerFast, folder / "tokenizer_2"),
            transformer=None,
        )


def load_sana_text(folder: Path, device: torch.device, dtype: torch.dtype) -> SanaSprintPipeline:
    """A SanaSprintPipeline of nothing but its text encoder and tokenizer."""
    with reading(folder):
        return SanaSprintPipeline(
            tokenizer=load_tokenizer(GemmaTokenizer, folder / "tokenizer"),
            text_encoder=frozen(pretrained(Gemma2Model, folder / "text_encoder", dtype), device),
            vae=None,
            transformer=None,
            scheduler=None,
        )


def load_time_shift(folder: Path, tokens: int) -> float:
    """m of the time shift that the scheduler in `folder` gives an image of so many tokens; see `schedules.shifted`.

    A dynamic scheduler, as FLUX.1-dev's, takes mu from the straight line through (base_image_seq_len, base_shift) and
    (max_image_seq_len, max_shift); m is e^mu, or mu itself if its type is "linear". Others, as schnell's, fix m.
    """
    with reading(folder):
        config = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, local_files_only=True).config
    if not config.use_dynamic_shifting:
        return float(config.shift)
    share = (tokens - config.base_image_seq_len) / (config.max_image_seq_len - config.base_image_seq_len)
    mu = config.base_shift + share * (config.max_shift - config.base_shift)
    return mu if config.time_shift_type == "linear" else exp(mu)


def pretrained(cls: type, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A network of a Hugging Face class from its folder, in `dtype`, from safetensors only."""
    return cls.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)


def load_tokenizer(cls: type[PreTrainedTokenizerBase], folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`. An empty folder, which the library takes for an empty vocabulary, is an OSError."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"There is no vocabulary in {folder}.")
    return cls.from_pretrained(folder, local_files_only=True)


def frozen(module: nn.Module, device: torch.device) -> nn.Module:
    """The module on its device, in evaluation mode, its parameters without gradient."""
    return nn.Module.to(module, device).eval().requires_grad_(False)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns what the libraries raise for missing, torn or foreign files into one sentence; faults of a GPU stay."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EditError(f"The model in {folder} is missing files or holds damaged ones: fetch it again.") from error
