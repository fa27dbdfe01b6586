"""FlowEdit + best of N: what captions alone make of a source (see `editor.drafts`), chosen by the reward.

A peer that edits by its prompt.
"""

from __future__ import annotations

import time

import torch

from benchmarks.outcome import Outcome
from editor import images
from editor.drafts import Way, draft
from editor.engine import Editor
from editor.judge import Judge
from editor.types import EditRequest
from rewards.vlm import Calls

METHOD = "flowedit"
WAY = Way(0.05, 1.0)
"""From nearly noise, so that nothing of the source keeps the edit from what is asked for."""


@torch.no_grad()
def flowedited(editor: Editor, request: EditRequest) -> Outcome:
    """The best of N such edits and the source itself by the engine's own reward, laid into the source's pixels.

    The request needs a plan, and its settings say how many edits and jumps.
    """
    started, calls, plan, models = time.monotonic(), Calls(), request.plan, editor.models
    settings = request.settings
    fitted, place = images.fit(request.image, editor.profile.size)
    square = images.to_unit(fitted).to(models.hardware.device)
    latents = models.codec.encode(square)
    before = models.codec.render(latents)
    judge = Judge.of(models, plan, square, latents, before, request.mask, settings, calls)
    flows = [models.condition(caption) for caption in (plan.caption, plan.source)]
    count, jumps = settings.particles, settings.steps
    edits, nfe = draft(*flows, latents, None, count, jumps, settings.seed, models.shift, (WAY,))
    scored = judge(torch.cat([latents, edits]))
    best = scored.best()
    image = images.composite(request.image, before[0], scored.images[best], place, request.mask)
    least = float(scored.checks[best, : judge.wanted].min())
    return Outcome(image.convert("RGB"), float(scored.reward[best]), judge.source.reward, least, nfe, 0, calls.count,
                   1 + judge.decodes, time.monotonic() - started)  # fmt: skip
