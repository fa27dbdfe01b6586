"""A profile's models, each loaded once and when first asked for: `load_profile("studio").condition(prompt)`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FluxPipeline
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from editor.adapters import FluxFlowMap, LatentCodec
from editor.profiles import ASSETS, PROFILES, Profile
from editor.twotime import load_two_time
from editor.types import EditError
from rewards.vlm import VLM

AUTOENCODERS = {cls.__name__: cls for cls in (AutoencoderKL, AutoencoderTiny)}
KEPT_PROMPTS = 16
"""How many prompts stay encoded."""


@dataclass
class Models:
    """The models of one profile. Nothing is loaded before its first use; parameters are frozen.

    Several threads may share it: loading and prompt encoding take a lock.
    """

    profile: Profile
    folder: Path
    """Where the profile's folders lie."""
    device: torch.device
    dtype: torch.dtype
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)
    _maps: dict[str, FluxFlowMap] = field(default_factory=dict, init=False, repr=False)

    def condition(self, prompt: str) -> FluxFlowMap:
        """The flow map with `prompt` bound, which may be empty; the last few prompts are kept encoded."""
        with self._lock:
            if prompt not in self._maps:
                if len(self._maps) == KEPT_PROMPTS:
                    del self._maps[next(iter(self._maps))]
                self._maps[prompt] = self._bind(prompt)
            return self._maps[prompt]

    @property
    def codec(self) -> LatentCodec:
        """Images to latents and back."""
        with self._lock:
            return self._codec

    @property
    def vlm(self) -> VLM:
        """The vision-language model that plans and judges."""
        with self._lock:
            return self._vlm

    @torch.no_grad()
    def _bind(self, prompt: str) -> FluxFlowMap:
        sequence, pooled, _ = self._text.encode_prompt(prompt, max_sequence_length=self.profile.text_tokens)
        return FluxFlowMap(self._transformer, sequence.to(self.device), pooled.to(self.device))

    @cached_property
    def _transformer(self):
        with reading(self._flow):
            return frozen(load_two_time(self._flow / "transformer", self.dtype), self.device)

    @cached_property
    def _codec(self) -> LatentCodec:
        with reading(self._flow):
            name = AutoencoderTiny.load_config(self._flow / "vae", local_files_only=True)["_class_name"]
            vae = AUTOENCODERS[name].from_pretrained(self._flow / "vae", dtype=self.dtype, local_files_only=True)
        return LatentCodec(frozen(vae, self.device))

    @cached_property
    def _text(self) -> FluxPipeline:
        """The pipeline with its text encoders only."""
        with reading(self._flow):
            tokenizers = {"tokenizer": CLIPTokenizer, "tokenizer_2": T5TokenizerFast}
            encoders = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
            parts = {name: tokenizer(self._flow / name, cls) for name, cls in tokenizers.items()}
            for name, cls in encoders.items():
                model = cls.from_pretrained(self._flow / name, dtype=self.dtype, local_files_only=True)
                parts[name] = frozen(model, self.device)
        return FluxPipeline(scheduler=None, vae=None, transformer=None, **parts)

    @cached_property
    def _vlm(self) -> VLM:
        folder = self.folder / self.profile.vlm
        with reading(folder):
            return VLM.load(folder, self.device, self.dtype)

    @property
    def _flow(self) -> Path:
        return self.folder / self.profile.flow


def load_profile(name: str, folder: Path = ASSETS, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Models:
    """The models of a profile, to be read from `folder` when they are first used.

    Raises EditError with a sentence when there is no such profile or its files are not there.
    """
    if name not in PROFILES:
        raise EditError(f"There is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    profile = PROFILES[name]
    for part in (profile.flow, profile.vlm):
        if not (folder / part).is_dir():
            raise EditError(f"The models of the profile {name} are not in {folder / part}: fetch the repository again.")
    return Models(profile, folder, torch.device(device), dtype)


def tokenizer(folder: Path, cls: type[CLIPTokenizer | T5TokenizerFast]) -> CLIPTokenizer | T5TokenizerFast:
    """The tokenizer in `folder`. An empty folder, which the library takes for an empty vocabulary, is an OSError."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "spiece.model")):
        raise FileNotFoundError(f"There is no vocabulary in {folder}.")
    return cls.from_pretrained(folder, local_files_only=True)


def frozen(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The module on its device, in evaluation mode, its parameters without gradient."""
    return torch.nn.Module.to(module, device).eval().requires_grad_(False)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns what the libraries raise for missing, torn or foreign files into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EditError(f"The model in {folder} is missing files or holds damaged ones: fetch it again.") from error
