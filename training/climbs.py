"""Landings that climb the reward of an edit: they fool the VLM as edits do and are made in a fraction of their time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from editor import images
from editor.engine import EFFORTS, Editor
from editor.judge import Judge
from editor.landing import ascended
from editor.run import ASCENT
from editor.types import FlowMap, Latents
from rewards.plan import parse, worked_out
from rewards.vlm import Calls
from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.labels import CHANGED
from training.mixes import patches
from training.world import Request

CLIMBERS = 8
"""Landings of each clock that climb."""


@torch.no_grad()
def time_climbs(
    editor: Editor, clock: Clock, wanted: Request, rng: Random, generator: torch.Generator
) -> Iterator[Tensor]:
    """Clocks that begin at about the time asked for and climb within the dial: pictures, each (3, 128, 128)."""
    asked = language.apply(clock, wanted).minutes
    judge, flow, square = _judged(editor, clock, wanted)
    judge.mask = _dial(clock, rng.uniform(0.75, 1.0), judge.latents)
    begun = judge.latents
    if rng.random() < 0.85:
        away = rng.choice((0, 0, 0, rng.randint(-20, 20), rng.choice((-60, 60)), rng.randint(0, 719)))
        near = images.to_unit(clocks.render(language.with_time(clock, (asked + away) % 720)))
        begun = editor.models.codec.encode(near.to(square))
    times = rng.uniform(0.2, 0.5), rng.uniform(0.28, 0.42), rng.uniform(0.38, 0.6)
    yield from _climbed(judge, flow, begun, times, (3, 7), rng, generator)


@torch.no_grad()
def look_climbs(
    editor: Editor, clock: Clock, wanted: Request, rng: Random, generator: torch.Generator
) -> Iterator[Tensor]:
    """Clocks that climb to another look, from the source or from one that has it in places: each (3, 128, 128)."""
    judge, flow, square = _judged(editor, clock, wanted)
    answer = images.to_unit(clocks.render(language.apply(clock, wanted))).to(square)
    begun = square
    if rng.random() < 0.6:
        begun = square.lerp(answer, torch.from_numpy(patches(rng.uniform(0.1, 0.95), rng)).to(square))
    if rng.random() < 0.7:
        changed = ((square - answer).abs().amax(1, keepdim=True) > CHANGED).float()
        judge.mask = F.adaptive_max_pool2d(changed, judge.latents.shape[-2:]).to(judge.latents)
    times = rng.uniform(0.05, 0.8), rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.8)
    yield from _climbed(judge, flow, editor.models.codec.encode(begun), times, (0, 4), rng, generator)


def _judged(editor: Editor, clock: Clock, wanted: Request) -> tuple[Judge, FlowMap, Tensor]:
    """The judge of an edit of a clock, the flow map of its caption, and the clock's picture (1, 3, 128, 128)."""
    models, plan = editor.models, parse(worked_out(wanted.reply))
    square = images.to_unit(clocks.render(clock)).to(models.hardware.device)
    source = models.codec.encode(square)
    before = models.codec.render(source)
    judge = Judge.of(models, plan, square, source, before, None, EFFORTS["balanced"], Calls())
    return judge, models.condition(plan.caption), square


def _climbed(
    judge: Judge, flow: FlowMap, begun: Latents, times: Sequence[float], steps: tuple[int, int], rng: Random,
    generator: torch.Generator,
) -> Iterator[Tensor]:  # fmt: skip
    """Where a latent lands, noised to the first time, after a number of steps up the reward within these bounds.

    It is noised to the next time and drawn again after each climb, as a search from its own end is. Some are shown
    before that.
    """

    def noised(clean: Tensor, t: float) -> Tensor:
        return torch.lerp(torch.randn(clean.shape, generator=generator).to(clean), clean, t)

    first, *later = times
    landed = flow(noised(begun.expand(CLIMBERS, -1, -1, -1), first), first, 1.0)
    for t in later:
        landed = ascended(judge, landed, rng.randint(*steps), ASCENT)
        if rng.random() < 0.4:
            yield from judge.decoded(landed).cpu()
        half = (1 + t) / 2
        landed = flow(flow(noised(judge.within(landed), t), t, half), half, 1.0)
        yield from judge.decoded(landed).cpu()


def _dial(clock: Clock, share: float, latents: Tensor) -> Tensor:
    """The places (1, 1, h, w) of latents that a share of a clock's dial touches."""
    side = (torch.arange(128) + 0.5) / 128
    away = (side[None] - clock.x).square() + (side[:, None] - clock.y).square()
    inside = (away < (share * clock.dial) ** 2).float()[None, None]
    return F.adaptive_max_pool2d(inside, latents.shape[-2:]).to(latents)
