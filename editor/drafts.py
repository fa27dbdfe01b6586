"""Drafts: what captions alone make of a source, before any search (FlowEdit, Kulikov et al., arXiv 2412.08629).

The source goes from noise to itself under the caption of what is there, and the edit beside it, with the same noise,
under the caption of what is wanted; what the two ways differ by is added to the edit. What both captions draw alike
cancels, so that no reward is followed and noise of any kind will do: fresh noise, or that of the source's inversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as counting
from itertools import pairwise
from typing import NamedTuple

import torch

from editor.flowmap import Counted, transport
from editor.particles import ParticleNoise, mixed, renoise
from editor.schedules import grid
from editor.types import FlowMap, Latents


class Way(NamedTuple):
    """How a draft goes from noise to clean."""

    first: float
    """Time of the first jump."""
    pull: float
    """How many times as far as FlowEdit each jump moves the edit, at most to where the two ways end."""
    fresh: float = 1.0
    """Share rho of the noise that is drawn anew for each jump; the rest is the source's own."""


WAYS = (Way(0.3, 2.0), Way(0.3, 2.0, 0.25))
"""Drafts take these in turn, from where outlines and hands stand already: an edit has less far to go and would stop
half-way. With the source's own noise they change more, and outlines stay where they are; with fresh noise alone hands
stay so more often."""
AGAIN, JUMPS = 0.5, 2
"""Time to which drafts are noised to be drawn again, and jumps that this takes."""


@torch.no_grad()
def draft(
    flow: FlowMap, source_flow: FlowMap, latents: Latents, own: Latents | None, count: int, jumps: int, seed: int,
    shift: float = 1.0, ways: tuple[Way, ...] = WAYS,
) -> tuple[Latents, int]:  # fmt: skip
    """So many edits (count, C, h, w) of clean latents (1, C, h, w), and their NFE: one a jump under each caption.

    With x_s = s x_1 + (1 - s) e of the source x_1, noise e = sqrt(1 - rho^2) own + rho fresh at each jump from s to t,
    and the edit's own z_s = x_s + z - x_1, z moves by r ([X_{s,t}(z_s) - z_s] - [X'_{s,t}(x_s) - x_s]) with r =
    min(pull, (1 - s) / (t - s)); X' is the map under the source's caption. FlowEdit has r = 1 and rho = 1, and (t - s)
    times the velocities in place of the jumps. `own` (1, C, h, w) is the noise that the source's inversion found, and
    None where all ways draw theirs anew. Times as `editor.schedules.grid` has them. More drafts change none of a way's
    first ones.
    """
    wanted, there = Counted(flow), Counted(source_flow)
    made = []
    for turn, way in enumerate(ways[:count]):
        edits = source = latents.expand(len(range(turn, count, len(ways))), *latents.shape[1:])
        noise = ParticleNoise(mixed(seed, turn), len(source))
        for s, t in pairwise(grid(way.first, 1.0, jumps, shift)):
            fresh = noise.normal(source)
            noised = torch.lerp(fresh if own is None else own.expand_as(source), source, s)
            x = renoise(noised, source, s, way.fresh, fresh)
            z = x + edits - source
            apart = (transport(wanted, z, s, t) - z) - (transport(there, x, s, t) - x)
            edits = edits + min(way.pull, (1 - s) / (t - s)) * apart
        made.append(edits)
    return torch.cat(made), wanted.nfe + there.nfe


@torch.no_grad()
def drawn_again(flow: FlowMap, edits: Latents, seed: int, shift: float = 1.0) -> tuple[Latents, int]:
    """Edits (N, C, h, w) noised to AGAIN and drawn by JUMPS under the caption of what is wanted alone, and the NFE.

    What two captions leave half-way, no picture has: the map draws one that is near.
    """
    wanted = Counted(flow)
    x = torch.lerp(ParticleNoise(seed, len(edits)).normal(edits), edits, AGAIN)
    for s, t in pairwise(grid(AGAIN, 1.0, JUMPS, shift)):
        x = transport(wanted, x, s, t)
    return x, wanted.nfe


def drafts(
    flow: FlowMap, source_flow: FlowMap, latents: Latents, own: Latents, count: int, jumps: int, seed: int, shift: float
) -> Iterator[tuple[Latents, int]]:
    """Batches without end, of other noise each, and their NFE: so many drafts, and after them the same drawn again."""
    for turn in counting():
        edits, nfe = draft(flow, source_flow, latents, own, count, jumps, mixed(seed, 2 * turn), shift)
        again, more = drawn_again(flow, edits, mixed(seed, 2 * turn + 1), shift)
        yield torch.cat([edits, again]), nfe + more


def planned(count: int, jumps: int) -> int:
    """NFE of a batch of so many drafts and the same drawn again."""
    return (2 * jumps + JUMPS) * count
