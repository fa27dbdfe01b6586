"""FlowEdit (Kulikov et al., arXiv 2412.08629) + best of N: what captions alone make of a source, chosen by the reward.

The source goes from noise to itself under the caption of what is there, and the edit beside it, with the same noise,
under the caption of what is wanted; what the two ways differ by is added to the edit. What both captions draw alike
cancels, so that no inversion is needed and no reward is followed: a peer that edits by its prompt.
"""

from __future__ import annotations

import time
from itertools import pairwise

import torch

from benchmarks.outcome import Outcome
from editor import images
from editor.engine import Editor
from editor.flowmap import Counted, transport
from editor.judge import MET, Judge
from editor.schedules import grid
from editor.types import EditRequest, FlowMap, Latents, SearchSettings
from rewards.vlm import Calls

METHOD = "flowedit"
FIRST = 0.05
"""Time of the first jump: nearly noise, so that nothing of the source keeps the edit from what is asked for."""


def planned_nfe(settings: SearchSettings) -> int:
    """Network evaluations of `settings.particles` edits in `settings.steps` jumps under two captions."""
    return 2 * settings.particles * settings.steps


@torch.no_grad()
def carry(
    flow: FlowMap, source_flow: FlowMap, latents: Latents, settings: SearchSettings, shift: float = 1.0
) -> tuple[Latents, int]:
    """settings.particles edits (N, C, h, w) of clean latents (1, C, h, w) in settings.steps jumps, and their NFE.

    With x_s = s x_1 + (1 - s) e of the source x_1, fresh noise e at each jump from s to t, and the edit's own z_s =
    x_s + z - x_1, z moves by [X_{s,t}(z_s) - z_s] - [X'_{s,t}(x_s) - x_s]; X' is the map under the source's caption.
    FlowEdit takes (t - s) times the velocities in place of the jumps. Times as `editor.schedules.grid` has them.
    """
    wanted, there = Counted(flow), Counted(source_flow)
    generator = torch.Generator().manual_seed(settings.seed)
    source = latents.expand(settings.particles, *latents.shape[1:])
    edits = source
    for s, t in pairwise(grid(FIRST, 1.0, settings.steps, shift)):
        x = torch.lerp(torch.randn(source.shape, generator=generator).to(source), source, s)
        z = x + edits - source
        edits = edits + (transport(wanted, z, s, t) - z) - (transport(there, x, s, t) - x)
    return edits, wanted.nfe + there.nfe


@torch.no_grad()
def flowedited(editor: Editor, request: EditRequest) -> Outcome:
    """The best of N such edits and the source itself by the engine's own reward, laid into the source's pixels.

    The request needs a plan, and its settings say how many edits and jumps.
    """
    started, calls, plan, models = time.monotonic(), Calls(), request.plan, editor.models
    square, place = images.fit(request.image, editor.profile.size)
    latents = models.codec.encode(images.to_unit(square).to(models.hardware.device))
    before = models.codec.render(latents)
    judge = Judge.of(models, plan, latents, before, request.mask, request.settings, calls)
    flows = [models.condition(caption) for caption in (plan.caption, plan.source)]
    edits, nfe = carry(*flows, latents, request.settings, models.shift)
    scored = judge(torch.cat([latents, edits]))
    order = scored.order()
    best = order.index(max(order))
    image = images.composite(request.image, before[0], scored.images[best], place, request.mask)
    believed = bool((scored.checks[best, : judge.wanted] > MET).all())
    return Outcome(image.convert("RGB"), order[best][2], judge.source.reward, believed, nfe, 0, calls.count,
                   1 + judge.decodes, time.monotonic() - started)  # fmt: skip
