"""Drafts: what captions alone make of a source, before any search (FlowEdit, Kulikov et al., arXiv 2412.08629).

The source goes from noise to itself under the caption of what is there, and the edit beside it, with the same noise,
under the caption of what is wanted; what the two ways differ by is added to the edit. What both captions draw alike
cancels, so that no inversion is needed and no reward is followed.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from editor.flowmap import Counted, transport
from editor.schedules import grid
from editor.types import FlowMap, Latents

FIRST = 0.05
"""Time of the first jump: nearly noise, so that nothing of the source keeps the edit from what is asked for."""


@torch.no_grad()
def draft(
    flow: FlowMap, source_flow: FlowMap, latents: Latents, count: int, jumps: int, seed: int, shift: float = 1.0
) -> tuple[Latents, int]:
    """So many edits (count, C, h, w) of clean latents (1, C, h, w), and their NFE: one a jump under each caption.

    With x_s = s x_1 + (1 - s) e of the source x_1, fresh noise e at each jump from s to t, and the edit's own z_s =
    x_s + z - x_1, z moves by [X_{s,t}(z_s) - z_s] - [X'_{s,t}(x_s) - x_s]; X' is the map under the source's caption.
    FlowEdit takes (t - s) times the velocities in place of the jumps. Times as `editor.schedules.grid` has them.
    """
    wanted, there = Counted(flow), Counted(source_flow)
    generator = torch.Generator().manual_seed(seed)
    source = latents.expand(count, *latents.shape[1:])
    edits = source
    for s, t in pairwise(grid(FIRST, 1.0, jumps, shift)):
        x = torch.lerp(torch.randn(source.shape, generator=generator).to(source), source, s)
        z = x + edits - source
        edits = edits + (transport(wanted, z, s, t) - z) - (transport(there, x, s, t) - x)
    return edits, wanted.nfe + there.nfe
