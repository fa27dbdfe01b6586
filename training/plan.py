"""The third stage of the studio's VLM: its text tower learns to plan, while its vision tower stays as it is.

A plan is thirty times as long as an answer, and the longest of them hold what is hardest to say: two or three changes
at once, and times by how much they move. So this stage has little but plans.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training.asked import Asked, lay_out, likelihoods, likelihoods_and_truths, nats
from training.attack import attacked
from training.clocks import Clock
from training.harness import Length, Run, half_precision, optimizers
from training.pictures import Source, augment, to_images
from training.speak import answers_loss, grid_of, planned, row
from training.tower import look

HARD = ("relative", "two", "three", "refuse")
"""Kinds of instruction that two thirds of the plans are about."""


class Lesson(NamedTuple):
    """A batch of pictures with what is asked about them, as a worker makes it."""

    pixels: Tensor
    """8 bits, (B, 128, 128, 3)."""
    long: Asked
    """A plan for each of the first two thirds."""
    short: Asked
    """Ten questions about each of the others."""
    held: Tensor
    """(B, 10): see `speak.Row`."""


def lesson(vlm: VLM, source: Source, batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    scenes, pixels = source.batch(batch, generator)
    calm, grid = 2 * batch // 3, grid_of(vlm, pixels)
    plans = [order(scene, rng) for scene in scenes[:calm]]
    rows = [row(scene, rng) for scene in scenes[calm:]]
    short = lay_out(vlm, grid, [r.questions for r in rows])
    return Lesson(pixels, lay_out(vlm, grid, plans), short, torch.tensor([r.held for r in rows]))


def learn_to_plan(vlm: VLM, folder: Path, length: Length, batch: int = 24, lr: float = 5e-4, workers: int = 0) -> None:
    """Train the text tower where it is for this `length`; goes on from a checkpoint in `folder`.

    Two thirds of a batch have a plan each. The others, attacked, have ten short questions each, as in `training.speak`:
    what was learned there must not be forgotten. No pictures: nothing is changed, whatever the folder holds.
    """
    if not length.images:
        return
    vlm.model.train().requires_grad_(False)
    vlm.text.requires_grad_(True)
    run = Run(folder, nn.ModuleDict({"text": vlm.text}), optimizers(vlm.text, lr), seed=3)
    batches, calm = run.batches(partial(lesson, vlm, Source(), batch), workers), 2 * batch // 3
    while (share := run.share(length)) < 1:
        generator, made = run.generator(vlm.device), next(batches)
        short, long = made.short.to(vlm.device), made.long.to(vlm.device)
        images, _ = augment(to_images(made.pixels.to(vlm.device, non_blocking=True)), generator)
        loss = partial(answers_loss, vlm, partial(_features, vlm), short.only(made.held))
        hard = attacked(images[calm:], loss, generator)
        with half_precision(vlm.device):
            with torch.no_grad():
                clear, other = _features(vlm, images[:calm]), _features(vlm, hard)
            plans = likelihoods(vlm, clear, long)
            answers, true = likelihoods_and_truths(vlm, other, short)
        run.advance(nats(plans, long) + nats(answers, short) + true, batch, share)
        figures = {"plan": -plans.detach().mean(), "answers": -answers.detach().mean(), "a true word": true.detach()}
        run.tell(50, **figures)
    run.save()
    run.averaged()


def _features(vlm: VLM, images: Tensor) -> Features:
    return look(vlm.model.model.visual, vlm.processor.image_processor, images)[0]


def order(clock: Clock, rng: Random) -> list[Question]:
    """An instruction about a clock with its plan."""
    return planned(clock, rng, rng.choice((*HARD, None, None)))
