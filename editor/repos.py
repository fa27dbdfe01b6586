"""What the profiles take from the Hugging Face Hub, as data: repositories with their files, sizes and licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Repo:
    """A repository of the Hugging Face Hub, and the files of it that are needed."""

    id: str
    files: tuple[str, ...]
    """Patterns; everything else in the repository is left there."""
    gigabytes: float
    """Computed from the number of parameters, for when the Hub cannot be asked."""
    gated: bool = False
    """Its licence must be accepted on the Hub by the owner of the token."""
    licence: str = ""
    """Its name, and what it allows."""

    @property
    def name(self) -> str:
        """The id without its owner."""
        return self.id.rpartition("/")[2]

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.id}"


PIPELINE = ("model_index.json", "scheduler/*", "text_encoder/*", "tokenizer/*", "transformer/*", "vae/*")
"""The files of a pipeline with one text encoder."""
FLUX_PIPELINE = (*PIPELINE, "text_encoder_2/*", "tokenizer_2/*")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
"""Files any of which holds a tokenizer's vocabulary."""
_NEEDED = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
_VLM = (*_NEEDED, "*.json", "*.jinja", "*.txt", "*.safetensors")

_DEV = "FLUX.1-dev Non-Commercial License: not for commercial use of the model; read it before you start."
_APACHE = "Apache License 2.0: commercial use allowed."

FLUX_DEV = Repo("black-forest-labs/FLUX.1-dev", FLUX_PIPELINE, 33.7, True, _DEV)
FLUX_SCHNELL = Repo("black-forest-labs/FLUX.1-schnell", FLUX_PIPELINE, 33.7, True, _APACHE)
SANA_SPRINT = Repo(
    "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
    PIPELINE,
    7.0,
    licence="NVIDIA's licence for SANA: not for commercial use; Gemma's terms of use for its text encoder; read both "
    "on the model's page before you start.",
)
TAEF1 = Repo("madebyollin/taef1", ("config.json", "diffusion_pytorch_model.safetensors"), 0.01, licence="MIT License.")

FLOW_MAP_256 = "01-05-26/runs/uniform_half_plane_lr_3e-4/checkpoint-8500/pytorch_lora_weights.safetensors"
FLOW_MAP_512 = "01-12-26/runs/res_512_steps_50k_rank_64_lr_1e-4/checkpoint-43000/pytorch_lora_weights.safetensors"


def flow_map_lora(file: str) -> Repo:
    """The public LoRA that makes a flow map of FLUX.1-dev: one of its files."""
    return Repo("gabeguofanclub/flux-1-dev-flowmap-lsd", (file,), 1.0, licence=f"Made from FLUX.1-dev: {_DEV}")


VLMS = {
    repo.id: repo
    for repo in (
        Repo("Qwen/Qwen2.5-VL-3B-Instruct", _VLM, 7.5, licence="Qwen Research License: not for commercial use."),
        Repo("Qwen/Qwen2.5-VL-7B-Instruct", _VLM, 16.6, licence=_APACHE),
        Repo("Qwen/Qwen3-VL-2B-Instruct", _VLM, 4.3, licence=_APACHE),
        Repo("Qwen/Qwen3-VL-4B-Instruct", _VLM, 8.9, licence=_APACHE),
        Repo("Qwen/Qwen3-VL-8B-Instruct", _VLM, 17.5, licence=_APACHE),
    )
}
"""The vision-language models that any profile but the studio can be given."""
