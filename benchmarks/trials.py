"""One edit of the benchmark: run it, read the result by geometry, compare it with the perfect answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.nn import functional as F

from benchmarks import flowedit
from benchmarks.cases import Case
from benchmarks.judge import minutes_off, read
from benchmarks.outcome import Outcome, edited
from benchmarks.records import Record
from editor import images
from editor.engine import Editor
from editor.judge import MET
from editor.models import Models
from editor.types import EditError, EditRequest, Images, Plan, SearchSettings
from rewards.base import Check
from rewards.checks import CheckScores, softened
from rewards.plan import keep_checks
from rewards.vlm import Calls

SWAPS = ("reward", "latent")
"""What the truth can replace: the VLM's opinion by the closeness to the perfect answer; the search by its latent."""


class Planned(NamedTuple):
    """A case with the plan that its edits follow, or the sentence that refused one."""

    case: Case
    plan: Plan | None
    refused: str
    seconds: float


def planned(editor: Editor, case: Case, oracle: bool) -> Planned:
    """The world's perfect plan, or the VLM's."""
    if oracle:
        return Planned(case, case.plan, "", 0.0)
    started = time.monotonic()
    try:
        plan, refused = editor.plan(case.image, case.request.instruction), ""
    except EditError as error:
        plan, refused = None, str(error)
    return Planned(case, plan, refused, time.monotonic() - started)


def trial(editor: Editor, wanted: Planned, method: str, budget: int, settings: SearchSettings,
          swap: str | None) -> tuple[Record, Image.Image]:  # fmt: skip
    """Run one edit and measure it; a refusal counts as the source unchanged and fails."""
    case, refused = wanted.case, wanted.refused
    outcome = Outcome(case.image)
    forget_peak()
    if wanted.plan:
        request = EditRequest(image=case.image, instruction=case.request.instruction, plan=wanted.plan,
                              settings=settings)  # fmt: skip
        try:
            if swap == "latent":
                outcome = edited_by_latent(editor, request, case)
            elif settings.method == flowedit.METHOD:
                outcome = flowedit.flowedited(editor, request)
            else:
                outcome = edited(Editor(editor.models, partial(Truth.of, case)) if swap else editor, request)
        except EditError as error:
            refused = str(error)
    answer, least = case.answer, outcome.least
    record = Record(
        method=method, budget=budget, case=case.index, kind=case.kind, instruction=case.request.instruction,
        refused=refused, plan_exact=wanted.plan == case.plan, **verdict(case, outcome.image, refused),
        psnr=psnr(outcome.image, answer), ssim=ssim(outcome.image, answer), source_psnr=psnr(case.image, answer),
        believed=None if least is None else least > MET, peak_mb=peak_mb(),
        **{name: getattr(outcome, name) for name in Outcome._fields if name != "image"},
    )  # fmt: skip
    return record, outcome.image


def verdict(case: Case, image: Image.Image, refused: str) -> dict[str, Any]:
    """What the judge makes of a result, by the names of a record."""
    found = read(image, case.source)
    off = minutes_off(found.time, case.target.minutes) if "time" in case.changed else float("inf")
    return {
        "success_3": not refused and case.success(found, 3), "success_10": not refused and case.success(found, 10),
        "minutes_off": off if off < float("inf") else None, "moved": case.moved(found),
    }  # fmt: skip


# The truth in the place of a part ------------------------------------------------------------------------------------

ALLOWED, STEEP = 0.35, 6.0
"""The truth says yes or no with equal odds where this share of what the source lacks is left, squared; and how many
nats the log-odds rise while that share falls by a factor of e."""
CLOSE, AROUND = 0.05, 2
"""Pixels that answer and source differ in by less than CLOSE, of [0, 1], ask for nothing, but AROUND those that do."""


@dataclass
class Truth:
    """In the VLM's place: `editor.judge.Opinions` that know the perfect answer, and hold every check for one thing.

    That is how near a picture is to it where it differs from the source. What must stay is always there.
    """

    checks: tuple[Check, ...]
    wanted: int
    """How many of the checks come first and ask for what the plan wants; the others ask for what must stay."""
    answer: Images
    """(1, 3, S, S): as the autoencoder shows it, so that it can be reached."""
    where: Images
    """(1, 1, S, S): 1 where the source differs."""
    lacks: Tensor
    """Squared error of the source there."""

    @classmethod
    def of(cls, case: Case, models: Models, plan: Plan, settings: SearchSettings, calls: Calls) -> Truth:
        """The `editor.judge.Asks` of a case."""
        source, answer = (
            images.to_unit(images.fit(image, models.profile.size)[0]).to(models.hardware.device)
            for image in (case.image, case.answer)
        )
        differs = ((source - answer).abs().amax(1, keepdim=True) > CLOSE).float()
        where = F.max_pool2d(differs, 2 * AROUND + 1, stride=1, padding=AROUND)
        with torch.no_grad():
            seen, before = (models.codec.render(models.codec.encode(square)) for square in (answer, source))
        lacks = ((before - seen).square() * where).sum()
        return cls(plan.checks + keep_checks(plan), len(plan.checks), seen, where, lacks)

    def evaluate(self, pictures: Images) -> CheckScores:
        left = ((pictures - self.answer).square() * self.where).sum((1, 2, 3)) / self.lacks.clamp(min=1e-6)
        odds = STEEP * (ALLOWED / left.clamp(min=1e-3)).log()
        asked = odds.detach().sigmoid()[:, None].expand(-1, self.wanted)
        stays = asked.new_ones(len(pictures), len(self.checks) - self.wanted)
        return CheckScores(softened(odds), torch.cat([asked, stays], 1))


def edited_by_latent(editor: Editor, request: EditRequest, case: Case) -> Outcome:
    """The edit with the perfect answer's latent in the place of the search's."""
    started, settings, plan = time.monotonic(), request.settings, request.plan
    inverted = editor.invert(request.image, settings.start, plan.source)
    perfect = editor.invert(case.answer, settings.start, plan.caption)
    image = images.composite(request.image, inverted.before[0], perfect.back[0], inverted.placement)
    return Outcome(image, inversion_nfe=inverted.trip.nfe + perfect.trip.nfe, decodes=4,
                   seconds=time.monotonic() - started)  # fmt: skip


# Measures ------------------------------------------------------------------------------------------------------------


def psnr(image: Image.Image, other: Image.Image) -> float:
    """dB; 100 for equal pictures."""
    a, b = np.asarray(image.convert("RGB")), np.asarray(other.convert("RGB"))
    return 100.0 if np.array_equal(a, b) else float(peak_signal_noise_ratio(b, a))


def ssim(image: Image.Image, other: Image.Image) -> float:
    """Structural similarity in [-1, 1] of the colour pictures."""
    return float(structural_similarity(np.asarray(other.convert("RGB")), np.asarray(image.convert("RGB")),
                                       channel_axis=2))  # fmt: skip


def forget_peak() -> None:
    """Start a new measurement of the process's largest resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    """Largest resident memory since `forget_peak`, in MB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000
