"""Profiles: named sets of models and settings, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from editor.types import EditError

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "models"
"""Where the models that come with the repository lie."""


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

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.id}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a profile is made of. `flow` and `vlm` are folders beside each other (studio) or Hub repositories."""

    name: str
    description: str
    """One line for the page: what it can edit, and on what machine."""
    flow: str | Repo
    vlm: str | Repo
    kind: str = "flux"
    """The family of the flow map's network: 'flux' or 'sana'."""
    lora: Repo | None = None
    """The LoRA that makes a map of two times of the transformer; its one file."""
    draft: Repo | None = None
    """A small autoencoder of the same latents, to differentiate where the full one is too big."""
    size: int
    """Side of the square images that the models see, in pixels."""
    least_psnr: float = 18.0
    """A picture whose round trip is worse than this many dB is refused: the models cannot represent it."""
    two_time: bool
    """Whether the flow map is a map between any two times; if not, exact sampling is refused."""
    text_tokens: int = 512
    """Length of the prompt's token sequence."""
    plan_template: str = "general"
    """Name of the planner's prompt in `rewards.plan`."""
    licence: str
    """Of the weights, with what they may be used for."""
    notices: tuple[str, ...] = ()
    """What a user of these weights must know or do, one sentence each."""

    @property
    def repos(self) -> tuple[Repo, ...]:
        """Everything that has to be fetched; nothing for a profile that comes with the repository."""
        return tuple(part for part in (self.flow, self.lora, self.draft, self.vlm) if isinstance(part, Repo))


PIPELINE = ("model_index.json", "scheduler/*", "text_encoder/*", "tokenizer/*", "transformer/*", "vae/*")
"""The files of a pipeline with one text encoder."""
FLUX_PIPELINE = (*PIPELINE, "text_encoder_2/*", "tokenizer_2/*")
_VLM = ("*.json", "*.jinja", "*.txt", "*.safetensors")

FLUX_DEV = Repo("black-forest-labs/FLUX.1-dev", FLUX_PIPELINE, 33.7, gated=True)
FLUX_SCHNELL = Repo("black-forest-labs/FLUX.1-schnell", FLUX_PIPELINE, 33.7)
SANA_SPRINT = Repo("Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers", PIPELINE, 7.0)
TAEF1 = Repo("madebyollin/taef1", ("config.json", "diffusion_pytorch_model.safetensors"), 0.01)
FLOW_MAP_LORA = "gabeguofanclub/flux-1-dev-flowmap-lsd"
FLOW_MAP_256 = "01-05-26/runs/uniform_half_plane_lr_3e-4/checkpoint-8500/pytorch_lora_weights.safetensors"
FLOW_MAP_512 = "01-12-26/runs/res_512_steps_50k_rank_64_lr_1e-4/checkpoint-43000/pytorch_lora_weights.safetensors"

VLMS = {
    repo.id: repo
    for repo in (
        Repo("Qwen/Qwen2.5-VL-3B-Instruct", _VLM, 7.5),
        Repo("Qwen/Qwen2.5-VL-7B-Instruct", _VLM, 16.6),
        Repo("Qwen/Qwen3-VL-2B-Instruct", _VLM, 4.3),
        Repo("Qwen/Qwen3-VL-4B-Instruct", _VLM, 8.9),
        Repo("Qwen/Qwen3-VL-8B-Instruct", _VLM, 17.5),
    )
}
"""The vision-language models that any profile but the studio can be given."""
_QWEN = VLMS["Qwen/Qwen2.5-VL-3B-Instruct"]

_DEV_LICENCE = "FLUX.1-dev Non-Commercial License: not for commercial use of the model; read it before you start."
_DEV_NOTICES = (
    "Accept the licence of FLUX.1-dev on its page on the Hub before the download.",
    "The licence asks you to filter unlawful or infringing output, and to disclose that an image was made by AI.",
)
_ONE_END = "This model knows where a candidate lands but no map between two times: it can search, not sample exactly."


def _flux(name: str, size: int, file: str) -> Profile:
    return Profile(
        name=name,
        description=f"Any picture at {size} pixels, with FLUX.1-dev's flow map, on a GPU of 16 GB or more.",
        flow=FLUX_DEV,
        lora=Repo(FLOW_MAP_LORA, (file,), 1.0),
        draft=TAEF1,
        vlm=_QWEN,
        size=size,
        two_time=True,
        licence=_DEV_LICENCE,
        notices=_DEV_NOTICES,
    )


_ALL = (
    Profile(
        name="studio",
        description="Pictures of clocks at 128 pixels, on any CPU, offline.",
        flow="studio/flow",
        vlm="studio/vlm",
        size=128,
        two_time=True,
        text_tokens=32,
        plan_template="studio",
        licence="The licence of this repository: free for any use.",
    ),
    _flux("flux", 512, FLOW_MAP_512),
    _flux("flux-256", 256, FLOW_MAP_256),
    Profile(
        name="flux-schnell",
        description="Any picture at 512 pixels, with FLUX.1-schnell as look-ahead, on a GPU of 16 GB or more.",
        flow=FLUX_SCHNELL,
        draft=TAEF1,
        vlm=_QWEN,
        size=512,
        two_time=False,
        text_tokens=256,
        licence="Apache License 2.0: commercial use allowed.",
        notices=(_ONE_END,),
    ),
    Profile(
        name="sana",
        description="Any picture at 1024 pixels, with SANA-Sprint 0.6B as look-ahead, on a GPU of 24 GB or more.",
        kind="sana",
        flow=SANA_SPRINT,
        vlm=_QWEN,
        size=1024,
        two_time=False,
        text_tokens=300,
        licence="NVIDIA's licence for SANA: not for commercial use; read it on the model's page before you start.",
        notices=(_ONE_END,),
    ),
)
PROFILES = {profile.name: profile for profile in _ALL}


def chosen(name: str, vlm: str | None = None) -> Profile:
    """The profile of that name, with another VLM if one is named. Raises EditError."""
    if name not in PROFILES:
        raise EditError(f"There is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    profile = PROFILES[name]
    if vlm is None:
        return profile
    if not profile.repos:
        raise EditError(f"The profile {name} comes with its own VLM: leave out the choice of another.")
    if vlm not in VLMS:
        raise EditError(f"There is no VLM {vlm!r}: choose one of {', '.join(VLMS)}.")
    return replace(profile, vlm=VLMS[vlm])
