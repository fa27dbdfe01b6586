"""Drafts: what captions alone make of a source, before any search (FlowEdit, Kulikov et al., arXiv 2412.08629).

The source goes from noise to itself under the caption of what is there, and the edit beside it, with the same noise,
under the caption of what is wanted; what the two ways differ by is added to the edit. What both captions draw alike
cancels, so that no inversion is needed and no reward is followed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch

from editor.flowmap import Counted, transport
from editor.schedules import grid
from editor.types import FlowMap, Latents


class Way(NamedTuple):
    """How a draft goes from noise to clean."""

    first: float
    """Time of the first jump."""
    pull: float
    """How many times as far as FlowEdit each jump moves the edit, at most to where the two ways end."""


FLOWEDIT = Way(0.05, 1.0)
"""From nearly noise, so that nothing of the source keeps the edit from what is asked for."""
WAYS = (Way(0.3, 2.0), FLOWEDIT)
"""Drafts take these in turn: from where outlines and hands stand already, and stay where they are, an edit has less far
to go and would stop half-way; what has to be drawn elsewhere begins nearer to noise."""


@torch.no_grad()
def draft(
    flow: FlowMap, source_flow: FlowMap, latents: Latents, count: int, jumps: int, seed: int, shift: float = 1.0,
    ways: tuple[Way, ...] = WAYS,
) -> tuple[Latents, int]:  # fmt: skip
    """So many edits (count, C, h, w) of clean latents (1, C, h, w), and their NFE: one a jump under each caption.

    With x_s = s x_1 + (1 - s) e of the source x_1, fresh noise e at each jump from s to t, and the edit's own z_s =
    x_s + z - x_1, z moves by r ([X_{s,t}(z_s) - z_s] - [X'_{s,t}(x_s) - x_s]) with r = min(pull, (1 - s) / (t - s));
    X' is the map under the source's caption. FlowEdit has r = 1, and (t - s) times the velocities in place of the
    jumps. Times as `editor.schedules.grid` has them.
    """
    wanted, there = Counted(flow), Counted(source_flow)
    generator = torch.Generator().manual_seed(seed)
    made = []
    for turn, way in enumerate(ways[:count]):
        edits = source = latents.expand(len(range(turn, count, len(ways))), *latents.shape[1:])
        for s, t in pairwise(grid(way.first, 1.0, jumps, shift)):
            x = torch.lerp(torch.randn(source.shape, generator=generator).to(source), source, s)
            z = x + edits - source
            apart = (transport(wanted, z, s, t) - z) - (transport(there, x, s, t) - x)
            edits = edits + min(way.pull, (1 - s) / (t - s)) * apart
        made.append(edits)
    return torch.cat(made), wanted.nfe + there.nfe
