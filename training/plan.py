"""The third stage of the studio's VLM: its text tower learns to plan, while its vision tower stays as it is.

A plan is thirty times as long as an answer, and the longest of them hold what is hardest to say: two or three changes
at once, and times by how much they move. So this stage has little but plans.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewards.prompt import Question
from rewards.vlm import VLM
from training.attack import attacked
from training.clocks import Clock
from training.harness import Run, optimizers
from training.pictures import Source
from training.speak import answers_loss, asked_and_answered, per_token, planned, row

HARD = ("relative", "two", "three")
"""Kinds of instruction that three fifths of the plans are about."""


def learn_to_plan(vlm: VLM, folder: Path, total: int, batch: int = 24, lr: float = 5e-4) -> None:
    """Train the text tower until `total` pictures were seen; goes on from a checkpoint in `folder`.

    Two thirds of a batch have a plan each. The others, attacked, have ten short questions each, as in `training.speak`:
    what was learned there must not be forgotten.
    """
    vlm.model.train().requires_grad_(False)
    vlm.text.requires_grad_(True)
    run = Run(folder, nn.ModuleDict({"text": vlm.text}), optimizers(vlm.text, lr), seed=3)
    source, calm = Source(), 2 * batch // 3
    while run.images < total:
        generator = run.generator()
        rng = Random(int(torch.randint(2**31, (), generator=generator)))
        shown = source.batch(batch, generator)
        plans = [order(scene, rng) for scene in shown.scenes[:calm]]
        rows = [row(scene, rng) for scene in shown.scenes[calm:]]
        hard = attacked(shown.images[calm:], partial(answers_loss, vlm, vlm.features, rows), generator)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            with torch.no_grad():
                clear, other = vlm.features(shown.images[:calm]), vlm.features(hard)
            long = vlm.score(clear, plans)
            short, true = asked_and_answered(vlm, other, rows)
        run.advance(per_token(long, plans) + per_token(short, rows) + true, batch, run.images / total)
        answers = -float(short.detach().mean())
        run.tell(50, plan=-float(long.detach().mean()), answers=answers, **{"a true word": float(true.detach())})
    run.save()
    run.averaged()


def order(clock: Clock, rng: Random) -> list[Question]:
    """An instruction about a clock with its plan."""
    return planned(clock, rng, rng.choice((*HARD, None, None)))
