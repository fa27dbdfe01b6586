"""The third stage of the studio's VLM: an adapter of its towers learns to plan, while all else stays as it is.

A plan is thirty times as long as an answer, and the longest of them hold what is hardest to say: two or three changes
at once, and times by how much they move. And what is no order about a clock has to be told from what is one. What goes
wrong most is the minute that the clock shows, so every order comes with a question for it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from peft import LoraConfig
from torch import Tensor, nn

from rewards.planner import FOLDER, twin
from rewards.prompt import Question
from rewards.vlm import VLM
from training import clock_language as language
from training.asked import Asked, lay_out, likelihoods, nats
from training.clocks import Clock
from training.harness import Length, Run, half_precision
from training.lora import MATRICES
from training.pictures import Source, augment, to_images
from training.speak import free, grid_of, planned
from training.tower import look

RANK = 16
"""Of the changes to each matrix."""
KINDS = ("refuse", "relative", "two", "three", *language.KINDS, None)
WEIGHTS = (24, 8, 8, 8, *(2 for _ in language.KINDS), 4)
"""How often an order of each kind is drawn: a third is to be refused, a third is what is hardest to say."""


class Lesson(NamedTuple):
    """A batch of pictures with an order and a question about each, as a worker makes it."""

    pixels: Tensor
    """8 bits, (B, 128, 128, 3)."""
    plans: Asked


def lesson(vlm: VLM, source: Source, batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    scenes, pixels = source.batch(batch, generator)
    return Lesson(pixels, lay_out(vlm, grid_of(vlm, pixels), [order(scene, rng) for scene in scenes]))


def learn_to_plan(vlm: VLM, folder: Path, length: Length, batch: int = 24, lr: float = 2e-3, workers: int = 0) -> None:
    """Train the adapter that plans are written with for this `length`; goes on from a checkpoint in `folder`.

    A VLM without one gets a new one. No pictures: nothing is changed, whatever the folder holds.
    """
    if not length.images:
        return
    vlm.model.eval().requires_grad_(False)
    adapter = nn.ParameterList(_adapter(vlm))
    run = Run(folder, nn.ModuleDict({"adapter": adapter}), [torch.optim.AdamW(adapter, lr, (0.9, 0.98))], seed=3)
    batches = run.batches(partial(lesson, vlm, Source(), batch), workers)
    while (share := run.share(length)) < 1:
        generator, made = run.generator(vlm.device), next(batches)
        images, _ = augment(to_images(made.pixels.to(vlm.device, non_blocking=True)), generator)
        with half_precision(vlm.device):
            seen, _ = look(vlm.planner.model.model.visual, vlm.processor.image_processor, images)
            said = likelihoods(vlm.planner, seen, made.plans.to(vlm.device))
        run.advance(nats(said, made.plans.to(vlm.device)), batch, share)
        plan, time = -said.detach().mean(0)
        run.tell(50, plan=plan, time=time)
    run.save()
    run.averaged()


def _adapter(vlm: VLM) -> list[nn.Parameter]:
    """The parameters of the adapter for plans, ready to learn."""
    if vlm.planner is vlm:
        model = twin(vlm.model)
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MATRICES), FOLDER)
        vlm.plan_with(model)
    found = [p for name, p in vlm.planner.model.named_parameters() if "lora_" in name]
    for parameter in found:
        parameter.requires_grad_(True)
    return found


def order(clock: Clock, rng: Random) -> list[Question]:
    """An instruction about a clock with its plan, and what time it shows."""
    return [*planned(clock, rng, rng.choices(KINDS, WEIGHTS)[0]), free(clock, "time", rng)]
