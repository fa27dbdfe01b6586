"""`python -m benchmarks.gpu_smoke --profile flux`: run once on a GPU, and read pass or FAIL for each part of the road.

Load, one look-ahead, one gradient, one short edit of an example picture, and whether the VLM judges better when it sees
the image first (`benchmarks.question_order`; `--record` writes its row too); with seconds and peak GPU memory for each.
A gradient that the memory plan has no room for is skipped. Exit status 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from benchmarks.question_order import ORDERS, TABLE, Case, cases, record, row
from editor import images
from editor.engine import Editor
from editor.profiles import PROFILES
from editor.runtime import prepare
from editor.types import EditError, EditRequest, SearchSettings
from rewards.base import Check, Plan

PLAN = Plan((Check("Is this a photograph of a cat?"),), "a photograph of a cat")
SETTINGS = SearchSettings(particles=2, steps=2, keep=1, selections=1)
EXAMPLE = Path(__file__).resolve().parent.parent / "assets" / "examples" / "school-clock.png"
CLOCKS = 40
"""Clocks that the VLM is asked about, two questions each, in both orders."""
VERDICTS = {True: "pass", False: "FAIL", None: "skip"}


@dataclass(frozen=True)
class Result:
    """How one part went."""

    part: str
    passed: bool | None
    """None where the memory plan leaves the part out."""
    seconds: float
    peak: float
    """GB of GPU memory at its worst, over all GPUs; 0 without a GPU."""
    text: str


def load(editor: Editor) -> str:
    """Everything in memory."""
    models = editor.models
    models.condition(PLAN.caption), models.codec, models.vlm
    return str(models.hardware)


def look_ahead(editor: Editor, picture: Image.Image) -> str:
    """From noisy latents of the picture to where the map lands, decoded."""
    with torch.no_grad():
        x = noisy(editor, picture)
        seen = editor.models.codec.decode(editor.models.condition(PLAN.caption)(x, 0.5, 1.0))
    if not seen.isfinite().all():
        raise ValueError("The look-ahead holds numbers that are not finite.")
    return f"{images.psnr(seen, unit(editor, picture).to(seen)):.1f} dB to the picture it came from"


def gradient(editor: Editor, picture: Image.Image) -> str:
    """Of the VLM's log-odds with respect to the noisy latents, through decoder and flow map."""
    x = noisy(editor, picture).requires_grad_()
    seen = editor.models.codec.decode(editor.models.condition(PLAN.caption)(x, 0.5, 1.0))
    odds = editor.models.vlm.log_odds(seen, [check.question for check in PLAN.checks])
    (slope,) = torch.autograd.grad(odds.sum(), x)
    if not slope.isfinite().all() or not slope.abs().sum() > 0:
        raise ValueError("The gradient is zero or not finite.")
    return f"norm {slope.norm():.3g}"


def edit(editor: Editor, picture: Image.Image) -> str:
    """A short edit through the engine, from request to candidates."""
    request = EditRequest(image=picture, instruction="make it a cat", plan=PLAN, settings=SETTINGS)
    *_, last = editor.edit(request)
    last = last.whole()
    return f"score {last.source_score:.2f} -> {last.score:.2f}, {last.cost.nfe} network evaluations"


def question_order(editor: Editor, labelled: Sequence[Case], keep: Callable[[str, dict[str, object]], None]) -> str:
    """The row of the profile's VLM in the table of `benchmarks.question_order`, told and handed to `keep`.

    The VLM is measured as the memory plan holds it; in 4 bits it has a row of its own.
    """
    plan, vlm = editor.models.hardware.plan, editor.profile.vlm
    name = editor.profile.name if isinstance(vlm, str) else vlm.name
    measured = row(editor.models.vlm, labelled)
    keep(f"{name} in nf4" if plan and plan.vlm == "nf4" else name, measured)
    told = (
        f"{order}: {measured[order]['accuracy']:.0%} right, {measured[order]['ranking']:.0%} ranked" for order in ORDERS
    )
    return f"{'; '.join(told)}; better: {measured['better']}"


def unit(editor: Editor, picture: Image.Image) -> torch.Tensor:
    """The picture as the models see it, (1, 3, S, S) in [0, 1]."""
    return images.to_unit(images.fit(picture, editor.profile.size)[0])


def noisy(editor: Editor, picture: Image.Image) -> torch.Tensor:
    """Latents of the picture half-way to noise, on the CPU, from a fixed seed."""
    latents = editor.models.codec.encode(unit(editor, picture))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    return (latents + noise.to(latents)) / 2


def measured(part: str, run: Callable[[], str]) -> Result:
    """Run a part; a failure is a result too."""
    devices = range(torch.cuda.device_count())
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    try:
        passed, text = True, run()
    except (EditError, ValueError, RuntimeError, NotImplementedError) as error:
        passed, text = False, f"{type(error).__name__}: {error}"
    peak = sum(torch.cuda.max_memory_allocated(device) for device in devices) / 1e9
    return Result(part, passed, time.perf_counter() - started, peak, text)


def smoke(
    editor: Editor,
    picture: Image.Image,
    labelled: Sequence[Case],
    keep: Callable[[str, dict[str, object]], None] = lambda name, measured: None,
) -> Iterator[Result]:
    """Every part, one after the other; ends with the load if that fails. `keep` is told the row of the VLM's order."""
    loaded = measured("load", partial(load, editor))
    yield loaded
    if not loaded.passed:
        return
    yield measured("look-ahead", partial(look_ahead, editor, picture))
    if editor.models.gradient:
        yield measured("gradient", partial(gradient, editor, picture))
    else:
        yield Result("gradient", None, 0.0, 0.0, "not in this plan")
    yield measured("edit", partial(edit, editor, picture))
    yield measured("question-order", partial(question_order, editor, labelled, keep))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_smoke", description=__doc__)
    parser.add_argument("--profile", choices=list(PROFILES), default="flux")
    parser.add_argument("--vlm", metavar="NAME_OR_FOLDER", help="another VLM than the profile's own")
    parser.add_argument("--image", default=EXAMPLE, help="a picture to edit; default: an example")
    parser.add_argument("--record", action="store_true", help=f"write the VLM's row into {TABLE.name}")
    options = parser.parse_args(arguments)
    prepare()
    try:
        editor, picture = Editor.load(options.profile, options.vlm), images.load(options.image).image
    except EditError as error:
        print(error, file=sys.stderr)
        return 2
    status = 0
    for result in smoke(editor, picture, list(cases(CLOCKS)), *([record] if options.record else [])):
        status = 1 if result.passed is False else status
        told = f"{VERDICTS[result.passed]}  {result.part:14}  {result.seconds:7.1f} s  {result.peak:5.1f} GB"
        print(f"{told}  {result.text}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
