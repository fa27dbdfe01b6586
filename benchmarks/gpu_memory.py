"""`python -m benchmarks.gpu_memory --profile flux`: the memory plans of `editor.memory`, measured on one GPU.

No download: FLUX.1's transformer, its LoRA and autoencoders and Qwen2.5-VL are made with random weights of the
published sizes (`benchmarks.random_models`); only the text encoders, which never touch the GPU, are left out. For each
plan:

- `weights`: allocated once everything is there.
- `peak`, `reserved`: torch's own counts at their highest in one backward pass of the plan's candidates: one look-ahead
  of the flow map, decoded, eight questions to the VLM, gradient back to the latents. That is what `computed` counts.
- `used`: `reserved` and the CUDA context beside it, to be held against `computed`; `ratio` is used / computed.
- `seconds`: of that pass, the second time.
- `step`: `used` and seconds in one step of an edit at the effort "fast", with all its candidates, its jitters, its
  look-ahead of several jumps and the judge's own preparation, at the second time.

GB are 1e9 bytes. `--limit GB` lets torch have no more than that, as a smaller card would. Exit status 0 if every plan
gave a finite gradient (or, where it has none, finite rewards), 1 if not or if memory ran out, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.random_models import TEXTS, Sizes, published, random_models
from editor.engine import EFFORTS
from editor.judge import Judge
from editor.landing import land
from editor.memory import QUESTIONS, MemoryPlan, ladder, need
from editor.models import Hardware, Models
from editor.profiles import PROFILES, Profile, chosen
from editor.runtime import prepare
from editor.types import EditError
from rewards.base import Check, Plan
from rewards.checks import CheckReward
from rewards.vlm import Calls

THINGS = ("clock on the wall", "rim of the clock", "face of the clock", "longer of the two hands", "shorter hand",
          "numeral at the top", "background behind it", "shadow on the left")  # fmt: skip
PLAN = Plan(
    tuple(Check(f"Does the picture show that the {thing} is painted in a bright and even red?") for thing in THINGS),
    "a red clock on a red wall",
)
HEAD = "plan computed  weights   peak reserved   used ratio seconds  step"


@dataclass
class Measured:
    """One plan. GB, and seconds; zeros without CUDA. `failure` is empty or says in a sentence what went wrong."""

    index: int
    plan: str
    computed: dict[str, float]
    """By part, as `editor.memory.need` gives it."""
    weights: float = 0.0
    peak: float = 0.0
    reserved: float = 0.0
    used: float = 0.0
    seconds: float = 0.0
    step_peak: float = 0.0
    step_used: float = 0.0
    step_seconds: float = 0.0
    gradient: float = 0.0
    """Norm of the gradient; 0 for a plan without any."""
    build_seconds: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        total = sum(self.computed.values())
        line = (
            f"{self.index:4} {total:8.1f} {self.weights:8.1f} {self.peak:6.1f} {self.reserved:8.1f} {self.used:6.1f} "
            f"{self.used / total:5.2f} {self.seconds:7.2f}  {self.step_used:.1f} GB, {self.step_seconds:.1f} s"
        )
        return f"{line}  FAILED: {self.failure}" if self.failure else line


def measure(profile: Profile, index: int, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Measured:
    """Build the models of a profile's plan, run its passes and let everything go again."""
    plan = ladder(profile)[index]
    result = Measured(index, str(plan), need(profile, plan))
    collected(device)
    try:
        _fill(result, profile, plan, sizes, Hardware(device, dtype, None, plan))
    except torch.OutOfMemoryError as error:
        result.failure = str(error).split(". ")[0]
    except (EditError, RuntimeError, ValueError) as error:
        result.failure = f"{type(error).__name__}: {error}"
    collected(device)
    return result


def _fill(result: Measured, profile: Profile, plan: MemoryPlan, sizes: Sizes, hardware: Hardware) -> None:
    device = hardware.device
    words = [check.question for check in PLAN.checks]
    held, result.build_seconds = timed(lambda: random_models(profile, plan, sizes, words, hardware), device)
    result.weights = allocated(device)
    held.condition(PLAN.caption)
    collected(device)
    for _ in range(2):
        slope, result.seconds = timed(lambda: candidates(held), device)
    result.gradient = float(slope.norm()) if plan.gradient else 0.0
    result.peak, result.reserved, result.used = peaks(device)
    collected(device)
    for _ in range(2):
        _, result.step_seconds = timed(lambda: step(held), device)
    result.step_peak, _, result.step_used = peaks(device)
    if not slope.isfinite().all() or (plan.gradient and not result.gradient > 0):
        result.failure = "The gradient is zero or not finite."


def candidates(held: Models) -> Tensor:
    """The gradient of the plan's candidates in one pass, or their rewards where it takes none."""
    x = noise(held, held.rows).requires_grad_(held.gradient)
    asked = CheckReward(held.vlm, PLAN.checks, limit=held.limit)
    with torch.set_grad_enabled(held.gradient):
        reward = asked(held.codec.decode(held.condition(PLAN.caption)(x, 0.5, 1.0)))
        return torch.autograd.grad(reward.sum(), x)[0] if held.gradient else reward


def step(held: Models) -> Tensor:
    """One step of an edit at the effort "fast": the engine's own judge and landing. Rewards of all candidates."""
    settings, x = EFFORTS["fast"], noise(held, 1)
    with torch.no_grad():
        before = held.codec.render(x)
    judge = Judge.of(held, PLAN, before, x, before, None, settings, Calls())
    start = noise(held, settings.particles)
    return land(held.condition(PLAN.caption), judge, start, settings.start, settings, held.gradient).reward


def noise(held: Models, batch: int) -> Tensor:
    """Latents where the engine has them: beside the flow map."""
    side = held.profile.size // held.codec.factor
    channels = held.codec.vae.config.latent_channels
    drawn = torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))
    return drawn.to(held.hardware.device)


def timed(work: Callable, device: torch.device) -> tuple:
    """What `work` returns, and its seconds; the device's memory counts begin anew."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - started


def allocated(device: torch.device) -> float:
    return torch.cuda.memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def peaks(device: torch.device) -> tuple[float, float, float]:
    """The highest allocated and reserved since the counts began, and the latter with what torch does not count."""
    if device.type != "cuda":
        return 0.0, 0.0, 0.0
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.max_memory_reserved(device)
    context = total - free - torch.cuda.memory_reserved(device)
    return torch.cuda.max_memory_allocated(device) / 1e9, reserved / 1e9, (reserved + context) / 1e9


def collected(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_memory", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--profile", choices=[p.name for p in PROFILES.values() if p.draft], default="flux")
    parser.add_argument("--vlm", choices=list(TEXTS), help="another VLM than the profile's own")
    parser.add_argument("--plans", type=int, nargs="+", metavar="N", help="rungs of the ladder from 0; all if left out")
    parser.add_argument("--limit", type=float, metavar="GB", help="as on a card with so much")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures to this file too")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("This measures a GPU's memory, and no NVIDIA GPU is usable here.", file=sys.stderr)
        return 2
    prepare()
    profile, device = chosen(options.profile, options.vlm), torch.device("cuda", 0)
    plans = range(len(ladder(profile))) if options.plans is None else options.plans
    if not all(0 <= index < len(ladder(profile)) for index in plans):
        parser.error(f"the plans of {profile.name} are 0 to {len(ladder(profile)) - 1}")
    if options.limit:
        total = torch.cuda.mem_get_info(device)[1] / 1e9
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.limit / total), device)
    return table(profile, list(plans), device, options.json)


def table(profile: Profile, plans: list[int], device: torch.device, out: Path | None) -> int:
    """Measure the plans, print a line for each, and write them to `out`. Returns the exit status."""
    print(f"{profile.name} with {profile.vlm.id} at {profile.size} pixels on {torch.cuda.get_device_name(device)},")
    print(f"random weights of the published sizes; GB; {QUESTIONS} questions\n{HEAD}", flush=True)
    results = []
    for index in plans:
        results.append(measure(profile, index, published(profile), device, torch.bfloat16))
        print(results[-1], f"\n     {results[-1].plan}", flush=True)
    if out is not None:
        out.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return int(any(result.failure for result in results))


if __name__ == "__main__":
    sys.exit(main())
