"""What a profile needs of a GPU, as arithmetic, and the plan that fits. Computed, not measured.

Weights cost their bytes; activations are counted in tensors as large as a layer's state. All figures are
in GB (1e9 bytes) and for the stated number of candidates in one backward pass. Every jump of a look-ahead, the decoder
and the VLM are recomputed in the backward pass one after the other (`rewards.chunks`), so that several jumps need no
more than one; the sum over the parts errs on the safe side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, floor, prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from editor.profiles import Profile
from editor.repos import VLMS, Repo
from editor.types import EditError

BF16 = 2.0
"""Bytes of a weight or an activation."""
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight: four bits, a byte for each 64, four bytes for each 256 of those."""
SAVED = 17
"""State-sized tensors that a transformer block keeps for its backward pass."""
LIVE = 2 * SAVED
"""State-sized tensors while one checkpointed block is run backward."""
FULL_DECODER, DRAFT_DECODER = 60 * 128, 15 * 64
"""Activations per pixel that decoding keeps: tensors at full resolution times their channels."""
SANA_DECODER = 30 * 128
PASSING = 0.1
"""Share of those activations that are held at once where no gradient is wanted."""
TEXT_ENCODERS = {"flux": 9.8, "sana": 5.3}
"""GB of main memory for the text encoders, by the kind of profile; they never go to the GPU."""
RESERVE = 2.0
"""GB for the CUDA context and fragmentation."""


@dataclass(frozen=True)
class Tower:
    """A stack of transformer blocks: parameters in billions (those that NF4 leaves alone too), width, blocks.

    NF4 takes linear layers alone: half of SANA's blocks are convolutions of one pixel.
    """

    parameters: float
    kept: float
    width: int
    blocks: int


@dataclass(frozen=True)
class Judge:
    """A VLM: its text tower (with its embeddings, which NF4 leaves alone), its vision tower, pixels per token."""

    text: Tower
    vision: Tower
    patch: int


FLOW_MAP_LORA = 0.35
"""Billions of parameters of the flow map's LoRA, of rank 64 over every layer of the blocks and the time embedders. It
stays beside the weights, in bfloat16 whatever they are held in."""
FLUX = Tower(11.9, 0.1, 3072, 57)
SANA = Tower(0.6, 0.3, 1152, 28)
TOWERS = {"flux": FLUX, "sana": SANA}
"""The flow map's transformer, by the kind of profile."""
JUDGES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": Judge(Tower(3.08, 0.31, 2048, 36), Tower(0.67, 0.67, 1280, 32), 14),
    "Qwen/Qwen2.5-VL-7B-Instruct": Judge(Tower(7.61, 1.09, 3584, 28), Tower(0.68, 0.68, 1280, 32), 14),
    "Qwen/Qwen3-VL-2B-Instruct": Judge(Tower(1.72, 0.31, 2048, 28), Tower(0.41, 0.41, 1024, 24), 16),
    "Qwen/Qwen3-VL-4B-Instruct": Judge(Tower(4.02, 0.39, 2560, 36), Tower(0.42, 0.42, 1024, 24), 16),
    "Qwen/Qwen3-VL-8B-Instruct": Judge(Tower(8.19, 1.24, 4096, 36), Tower(0.58, 0.58, 1152, 27), 16),
}
QUESTIONS = 8
"""Questions that one pass of a judge asks about an image at most; longer plans are asked in several."""
QUESTION_TOKENS = 40
"""Tokens of a question with its answer and the chat around it."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a profile's models are held. The fields are in the order in which comfort is given up."""

    rows: int = 1
    """Candidates in one backward pass."""
    checkpoint: bool = True
    """Recompute the transformer's blocks in the backward pass instead of keeping their activations."""
    full_decoder: bool = True
    """Differentiate the full autoencoder; otherwise the draft, and the full one renders without a gradient."""
    flow: str = "bf16"
    """'bf16' or 'nf4' for the flow map's transformer."""
    vlm: str = "bf16"
    gradient: bool = True
    """False: search by selection alone, nothing is differentiated."""

    def __str__(self) -> str:
        guided = "gradients" if self.gradient else "no gradients"
        decoder = "full decoder" if self.full_decoder else "draft decoder"
        kept = "recomputed" if self.checkpoint else "kept"
        return (
            f"flow map in {self.flow}, VLM in {self.vlm}, {decoder}, activations {kept}, "
            f"{self.rows} at a time, {guided}"
        )


_LADDER = (
    first := MemoryPlan(rows=2, checkpoint=False),
    MemoryPlan(rows=2),
    MemoryPlan(rows=1),
    draft := MemoryPlan(rows=1, full_decoder=False),
    four := replace(draft, flow="nf4"),
    both := replace(four, vlm="nf4"),
    replace(both, gradient=False),
)


def ladder(profile: Profile) -> tuple[MemoryPlan, ...]:
    """The plans of a profile from the roomiest to the tightest; those that need a draft decoder only if it has one."""
    if profile.draft is not None:
        return _LADDER
    return tuple(dict.fromkeys(replace(plan, full_decoder=True) for plan in _LADDER))


def need(profile: Profile, plan: MemoryPlan) -> dict[str, float]:
    """GB on the GPU by part: 'flow map', 'VLM', 'decoder', 'activations', 'reserve'; the VLM's own are in 'VLM'."""
    tower = TOWERS[profile.kind]
    judge = judge_of(profile)
    vision_tokens = (profile.size // judge.patch) ** 2
    text_tokens = vision_tokens // 4 + QUESTIONS * QUESTION_TOKENS
    backward = plan.gradient
    return {
        "flow map": weights(tower, plan.flow) + lora(profile),
        "VLM": weights(judge.text, plan.vlm)
        + weights(judge.vision, "bf16")
        + plan.rows * backward * (kept(judge.text, text_tokens) + kept(judge.vision, vision_tokens)),
        "decoder": 0.4 + plan.rows * profile.size**2 * decoder(profile, plan) * BF16 / 1e9,
        "activations": plan.rows * flow_activations(tower, profile.image_tokens + profile.text_tokens, plan),
        "reserve": RESERVE,
    }


def host_need(profile: Profile) -> float:
    """GB of main memory at worst: the text encoders, and what is on its way through to the GPU."""
    judge = judge_of(profile)
    flow = weights(TOWERS[profile.kind], "bf16") + lora(profile)
    return TEXT_ENCODERS[profile.kind] + max(flow, weights(judge.text, "bf16") + weights(judge.vision, "bf16"))


def weights(tower: Tower, precision: str) -> float:
    """GB of a tower's weights."""
    if precision == "bf16":
        return tower.parameters * BF16
    return (tower.parameters - tower.kept) * NF4 + tower.kept * BF16


def lora(profile: Profile) -> float:
    """GB of the weights of the profile's LoRA; 0 without one."""
    return FLOW_MAP_LORA * BF16 if profile.lora is not None else 0.0


def decoder(profile: Profile, plan: MemoryPlan) -> float:
    """Activations per pixel while images are decoded: those of the full decoder pass beside what a draft keeps."""
    full = SANA_DECODER if profile.kind == "sana" else FULL_DECODER
    if not plan.gradient:
        return full * PASSING
    return full if plan.full_decoder else full * PASSING + DRAFT_DECODER


def kept(tower: Tower, tokens: int) -> float:
    """GB that the backward pass through one sequence keeps."""
    return tower.blocks * SAVED * tokens * tower.width * BF16 / 1e9


def flow_activations(tower: Tower, tokens: int, plan: MemoryPlan) -> float:
    """GB of the transformer's activations for one candidate: all blocks, or one and the states between them."""
    state = tokens * tower.width * BF16 / 1e9
    if not plan.gradient:
        return SAVED * state
    return kept(tower, tokens) if not plan.checkpoint else (tower.blocks + LIVE) * state


def judge_of(profile: Profile) -> Judge:
    """The sizes of a profile's VLM. Raises EditError when they are not known."""
    if isinstance(profile.vlm, Path):
        return judge_in(profile.vlm)
    if not isinstance(profile.vlm, Repo) or profile.vlm.id not in JUDGES:
        raise EditError(
            f"The memory that the VLM of {profile.name} needs is not known: choose one of {', '.join(JUDGES)}."
        )
    return JUDGES[profile.vlm.id]


@cache
def judge_in(folder: Path) -> Judge:
    """The sizes of the VLM in a folder, from its config and the heads of its weights. Raises EditError."""
    try:
        config = json.loads((folder / "config.json").read_text())
        shapes = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                shapes |= {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        text, vision = config.get("text_config", config), config["vision_config"]
        sizes = {"text": 0.0, "vision": 0.0, "kept": 0.0}
        for name, shape in shapes.items():
            part = "vision" if "visual." in name else "text"
            sizes[part] += prod(shape) / 1e9
            sizes["kept"] += prod(shape) / 1e9 * ("embed_tokens" in name or "lm_head" in name)
        return Judge(
            Tower(sizes["text"], sizes["kept"], text["hidden_size"], text["num_hidden_layers"]),
            Tower(sizes["vision"], sizes["vision"], vision["hidden_size"], vision["depth"]),
            vision["patch_size"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise EditError(f"The VLM in {folder} is missing files or holds damaged ones: fetch it again.") from error


def choose(profile: Profile, free: float, vlm_free: float | None = None) -> MemoryPlan:
    """The roomiest plan that fits into `free` GB; with the VLM on a GPU of its own, into `vlm_free` there.

    Raises EditError when even the tightest does not fit.
    """
    for plan in ladder(profile):
        parts = need(profile, plan)
        judge = parts.pop("VLM") if vlm_free is not None else 0.0
        if sum(parts.values()) <= free and (vlm_free is None or judge + RESERVE <= vlm_free):
            return plan
    wanted, smaller = ceil(least(profile)), smaller_judge(profile, free)
    raise EditError(
        f"The profile {profile.name} needs at least {wanted} GB of free GPU memory, not {floor(free)} GB: "
        f"close other programs on the GPU{smaller and f', add --vlm {smaller}'} or use the profile studio."
    )


def least(profile: Profile) -> float:
    """GB of one GPU that the tightest plan needs."""
    return sum(need(profile, ladder(profile)[-1]).values())


def smaller_judge(profile: Profile, free: float) -> str:
    """The name of the largest VLM on offer with which the profile fits into `free` GB; empty if there is none."""
    needs = {repo.name: least(replace(profile, vlm=repo)) for repo in VLMS.values()}
    fitting = [name for name, wanted in needs.items() if wanted <= free]
    return max(fitting, key=needs.__getitem__, default="")


@dataclass(frozen=True)
class Spread:
    """A plan with the numbers of the GPUs that hold it."""

    plan: MemoryPlan
    flow: int
    """Of the flow map and all but the VLM."""
    vlm: int | None = None
    """Of the VLM's own; None puts it beside the flow map."""


def spread(profile: Profile, free: Sequence[float]) -> Spread:
    """The roomiest plan over the first two GPUs of so many GB free.

    The second takes the VLM, unless the roomier of the two alone has a roomier plan, as where one is small. Raises
    EditError when nothing fits.
    """
    free = free[:2]
    roomier = max(range(len(free)), key=free.__getitem__)
    found = []
    if len(free) == 2:
        with suppress(EditError):
            found.append(Spread(choose(profile, *free), 0, 1))
    if not found or found[0].plan != ladder(profile)[0]:
        try:
            found.append(Spread(choose(profile, free[roomier]), roomier))
        except EditError:
            if not found:
                raise
    return min(found, key=lambda way: ladder(profile).index(way.plan))


def lower(profile: Profile, plan: MemoryPlan) -> MemoryPlan:
    """The next tighter plan. Raises EditError when there is none."""
    rungs = ladder(profile)
    below = rungs[rungs.index(plan) + 1 :] if plan in rungs else ()
    if not below:
        raise EditError(
            "The GPU ran out of memory under the tightest plan: ask for fewer candidates or use a smaller VLM."
        )
    return below[0]
