"""A profile's models, each loaded once and when first asked for: `load_profile("studio").condition(prompt)`.

The libraries that they are made of take seconds to import, so these wait until then too: a page starts without them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

import torch

from editor.hub import Hub, folders
from editor.memory import QUESTIONS, MemoryPlan, ladder, lower, spread
from editor.profiles import ASSETS, Profile, chosen
from editor.repos import Repo
from editor.runtime import half_or_single
from editor.types import EditError
from rewards.checks import Limit
from rewards.vlm import VLM

if TYPE_CHECKING:
    from diffusers import FluxPipeline, FluxTransformer2DModel, SanaSprintPipeline, SanaTransformer2DModel

    from editor.adapters import FluxFlowMap, LatentCodec, SanaFlowMap

Result = TypeVar("Result")

KEPT_PROMPTS = 16
"""How many prompts stay encoded."""
SHORT = "The GPU ran out of memory: ask for fewer candidates, or free it."
TWICE = "The GPU ran out of memory twice: ask for fewer candidates, or free it."
BESIDE = "The GPU has no room for this beside the run that goes on: try again when that has ended."
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Place:
    """Where a profile's parts lie on the disk."""

    flow: Path
    """A pipeline's folder."""
    vlm: Path
    lora: Path | None = None
    """The flow map's LoRA: a file."""
    draft: Path | None = None


@dataclass(frozen=True)
class Hardware:
    """Where a profile's parts run, and how they are held there."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    vlm_device: torch.device | None = None
    """A GPU of the VLM's own; None puts it beside the flow map. Gradients cross between them."""
    plan: MemoryPlan | None = None
    """None holds everything whole and differentiates it at once, as the studio does."""

    def __str__(self) -> str:
        second = f", VLM on {self.vlm_device}" if self.vlm_device else ""
        return f"{self.device}{second}: {self.plan or 'everything whole'}"

    @property
    def held(self) -> str:
        """What pixels depend on besides the kind of machine: precision, the memory plan, the CPU's threads."""
        precision = str(self.dtype).removeprefix("torch.")
        return f"{precision}, {self.plan or 'everything whole'}, {torch.get_num_threads()} threads"


@dataclass
class Models:
    """The models of one profile. Nothing is loaded before its first use; parameters are frozen.

    Several threads may share it: loading and prompt encoding take a lock.
    """

    profile: Profile
    place: Place
    hardware: Hardware = field(default_factory=Hardware)
    runs: int = field(default=0, init=False)
    """How many go on, and hold these models: they can't be dropped under them."""
    _lock: RLock = field(default_factory=RLock, init=False, repr=False)
    _maps: dict[str, FluxFlowMap | SanaFlowMap] = field(default_factory=dict, init=False, repr=False)

    def condition(self, prompt: str) -> FluxFlowMap | SanaFlowMap:
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

    @property
    def can_plan(self) -> bool:
        """Whether the VLM is loaded, so that a plan has to wait for none."""
        return "_vlm" in self.__dict__

    def load(self) -> None:
        """Load now what is not loaded yet, so that the first edit need not wait. Raises EditError."""
        self.condition("")
        _ = self.codec, self.vlm

    @property
    def rows(self) -> int | None:
        """Candidates that one backward pass may hold; flow map and codec keep to it by themselves. None: no limit."""
        return self.hardware.plan.rows if self.hardware.plan else None

    @property
    def limit(self) -> Limit | None:
        """What one pass of the VLM may hold. None: no limit."""
        return None if self.rows is None else Limit(self.rows, self.rows * QUESTIONS)

    @cached_property
    def shift(self) -> float:
        """m of the time shift of inversion and search, see `schedules.shifted`: 1 leaves the times even."""
        if self.profile.time_grid == "even":
            return 1.0
        from editor.loaders import load_time_shift

        return load_time_shift(self.place.flow / "scheduler", self.profile.image_tokens)

    @property
    def gradient(self) -> bool:
        """Whether there is memory to differentiate; if not, search by selection alone (guidance 0)."""
        return self.hardware.plan is None or self.hardware.plan.gradient

    @property
    def tightest(self) -> bool:
        """Whether there is no tighter memory plan to go to."""
        return self.hardware.plan in (None, ladder(self.profile)[-1])

    def tighten(self) -> MemoryPlan:
        """After running out of GPU memory: drop every model, take the next tighter plan and return it.

        Models are loaded again when they are next asked for. Raises EditError when there is no tighter plan.
        """
        with self._lock:
            if self.hardware.plan is None:
                raise EditError("The machine ran out of memory: ask for fewer candidates.")
            self.hardware = replace(self.hardware, plan=lower(self.profile, self.hardware.plan))
            self._maps.clear()
            for name in ("_transformer", "_codec", "_text", "_vlm"):
                self.__dict__.pop(name, None)
            gc.collect()  # autograd's graphs and hooks hold one another in circles
            torch.cuda.empty_cache()
            print(f"The GPU ran out of memory; now: {self.hardware.plan}.", file=sys.stderr)
            return self.hardware.plan

    def within_memory(self, work: Callable[[], Result]) -> Result:
        """work(), and when GPU memory runs out once more under the next tighter plan. Raises EditError if again.

        Beside a run that goes on, too: the models that it holds stay as they are.
        """
        try:
            return work()
        except torch.OutOfMemoryError as error:
            if self.runs:
                raise EditError(BESIDE) from error
            # the error holds all that the work held: it must be gone before the models are loaded again
        self.tighten()
        try:
            return work()
        except torch.OutOfMemoryError as error:
            raise EditError(TWICE) from error

    @torch.no_grad()
    def _bind(self, prompt: str) -> FluxFlowMap | SanaFlowMap:
        from editor.adapters import FluxFlowMap, SanaFlowMap
        from editor.loaders import SANA_INSTRUCTION

        device, length = self.hardware.device, self.profile.text_tokens
        if self.profile.kind == "sana":
            sequence, mask = self._text.encode_prompt(
                prompt, max_sequence_length=length, complex_human_instruction=SANA_INSTRUCTION
            )
            return SanaFlowMap(self._transformer, sequence.to(device), mask.to(device), rows=self.rows)
        sequence, pooled, _ = self._text.encode_prompt(prompt, max_sequence_length=length)
        return FluxFlowMap(self._transformer, sequence.to(device), pooled.to(device), rows=self.rows)

    @cached_property
    def _transformer(self) -> FluxTransformer2DModel | SanaTransformer2DModel:
        from editor.loaders import load_transformer

        at, plan = self.hardware, self.hardware.plan
        nf4 = plan is not None and plan.flow == "nf4"
        transformer = load_transformer(self.place.flow / "transformer", at.device, at.dtype, self.place.lora, nf4)
        if plan is not None and plan.checkpoint:
            transformer.enable_gradient_checkpointing()
        return transformer

    @cached_property
    def _codec(self) -> LatentCodec:
        from editor.adapters import LatentCodec
        from editor.loaders import load_autoencoder

        at, plan = self.hardware, self.hardware.plan
        vae = load_autoencoder(self.place.flow / "vae", at.device, at.dtype)
        if plan is None:
            return LatentCodec(vae)
        if plan.full_decoder:
            return LatentCodec(vae, rows=plan.rows)
        return LatentCodec(vae, load_autoencoder(self.place.draft, at.device, at.dtype), plan.rows)

    @cached_property
    def _text(self) -> FluxPipeline | SanaSprintPipeline:
        """The text encoders. A GPU is left to what is differentiated: a prompt is encoded once, on the CPU."""
        from editor.loaders import load_flux_text, load_sana_text

        load = load_sana_text if self.profile.kind == "sana" else load_flux_text
        return load(self.place.flow, CPU, self.hardware.dtype)

    @cached_property
    def _vlm(self) -> VLM:
        from editor.loaders import reading

        at, plan = self.hardware, self.hardware.plan
        with reading(self.place.vlm):
            return VLM.load(
                self.place.vlm, at.vlm_device or at.device, at.dtype, "nf4" if plan and plan.vlm == "nf4" else None
            )


def load_profile(name: str, folder: Path = ASSETS, vlm: str | None = None, hub: Hub | None = None) -> Models:
    """The models of a profile, to be read when they are first used. Never downloads anything.

    `folder` holds the models that come with the repository; they run on the CPU, in bfloat16 where it has units for
    that. `vlm` is another VLM, see `profiles.chosen`. Profiles of the Hub take the roomiest plan that fits the first
    two GPUs, see `memory.spread`. Says on standard error which plan that is. Raises EditError with a sentence when
    there is no such profile, its files are not there, or no GPU can hold it.
    """
    profile = chosen(name, vlm)
    if not profile.repos:
        return Models(profile, bundled(profile, folder), Hardware(dtype=half_or_single()))
    hardware = gpus(profile)
    place = placed(profile, folders(profile, hub or Hub()))
    print(f"{profile.name} on {hardware}.", file=sys.stderr)
    return Models(profile, place, hardware)


def bundled(profile: Profile, folder: Path = ASSETS) -> Place:
    """Where the models of a profile lie that come with the repository. Raises EditError where they are not there."""
    place = Place(folder / profile.flow, folder / profile.vlm)
    for part in (place.flow, place.vlm):
        if not part.is_dir():
            raise EditError(f"The models of the profile {profile.name} are not in {part}: fetch the repository again.")
    return place


def placed(profile: Profile, found: dict[str, Path]) -> Place:
    """Where the parts of a profile of the Hub lie, from the folders of its repositories."""

    def at(part: Repo | Path | None) -> Path | None:
        return found[part.id] if isinstance(part, Repo) else part

    lora = at(profile.lora)
    return Place(
        at(profile.flow), at(profile.vlm), None if lora is None else lora / profile.lora.files[0], at(profile.draft)
    )


def gpus(profile: Profile) -> Hardware:
    """The GPUs of this machine and the plan that fits them. Raises EditError."""
    if not torch.cuda.is_available():
        raise EditError(
            f"The profile {profile.name} needs an NVIDIA GPU and none is usable here: use the profile studio."
        )
    count = torch.cuda.device_count()
    way = spread(profile, [torch.cuda.mem_get_info(i)[0] / 1e9 for i in range(count)])
    second = None if way.vlm is None else torch.device("cuda", way.vlm)
    return Hardware(torch.device("cuda", way.flow), torch.bfloat16, second, way.plan)
