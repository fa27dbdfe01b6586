"""How well hands are drawn, as log-odds: `python -m training.grade --init assets/models/studio/vlm --out FOLDER`.

A judge that learned from straight hands alone takes bent ones for as good, and a search ends at the first that it
takes. Here the log-odds that a clock shows H:MM fall evenly with how far its hands are from a render of that time
(`training.graded`), so that it pays to straighten one. All else is answered as before.

What is learned is of low rank (LoRA, Hu et al., arXiv 2106.09685) and goes into the weights; the adapter that plans
takes it back by as many ranks more, so that plans are written as before.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from editor.runtime import prepare
from rewards.planner import FOLDER as PLANNER
from rewards.planner import twin
from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training import clock_language as language
from training import clocks
from training.asked import Asked, lay_out, likelihoods, nats
from training.attack import attacked
from training.data import RUNS
from training.graded import FOLDER, KINDS, Graded
from training.harness import Length, Run, add_machine, half_precision, join_others, rank
from training.pictures import Source, augment, to_images
from training.plan import MATRICES
from training.speak import NONE, free, grid_of, remember_texts, row
from training.tower import look
from training.train_vlm import save

ADAPTER = "grade"
RANK = 32
"""Of the changes to each matrix."""
TOP, BOTTOM = 8.0, -8.0
"""Log-odds of hands as a search at its best draws them, and of hands that show another time or none. Beyond both they
may be what they are."""
GOOD, BAD = 0.2, 0.9
"""Errors of the one and of the other."""
SAID, DENIED = 0.4, 0.65
"""Errors up to which an open answer should tell the time, and from which on it should tell none."""
SHARE = 0.75
"""Of graded pictures in a batch."""
CALM = 2
"""One of so many pictures is not attacked."""


def grade(errors: Tensor) -> Tensor:
    """The log-odds that hands with such errors show their time."""
    return TOP + (BOTTOM - TOP) * ((errors - GOOD) / (BAD - GOOD)).clamp(0, 1)


def off(odds: Tensor, wanted: Tensor) -> Tensor:
    """How far log-odds are from those wanted, by Huber's loss of each; 0 where they go beyond TOP or BOTTOM."""
    beyond = ((wanted >= TOP) & (odds > wanted)) | ((wanted <= BOTTOM) & (odds < wanted))
    return F.smooth_l1_loss(odds, wanted, reduction="none", beta=2.0).masked_fill(beyond, 0.0)


class Lesson(NamedTuple):
    """A batch, as a worker makes it: graded pictures, and others."""

    graded: Tensor
    """8 bits, (G, 128, 128, 3)."""
    rows: list[list[Question]]
    """About each: whether it shows the time asked for, whether two others, and the open question."""
    wanted: Tensor
    """(G, 3): log-odds of yes."""
    said: Tensor
    """(G,): 1 where the open answer is sure, else 0."""
    plain: Tensor
    """8 bits, (P, 128, 128, 3)."""
    asked: Asked
    """Ten questions about each of the others."""
    held: Tensor
    """(P, 10): see `training.speak.Row`."""


class Store:
    """Graded pictures of all kinds; each kind is drawn as often."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.kinds = [Graded.load(folder / kind) for kind in KINDS]

    def draw(self, count: int, rng: Random) -> Graded:
        """So many pictures."""
        kinds = [self.kinds[i % len(self.kinds)] for i in range(count)]
        rows = [tuple(part[i] for part in kind) for kind in kinds for i in [rng.randrange(len(kind.seeds))]]
        return Graded(*map(np.stack, zip(*rows, strict=True)))


def lesson(vlm: VLM, source: Source, store: Store, batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    few = round((1 - SHARE) * batch)
    drawn = store.draw(batch - few, rng)
    errors = torch.from_numpy(drawn.errors).float()
    scenes, plain = source.batch(few, generator)
    asked = [row(scene, rng) for scene in scenes]
    wanted = torch.full((len(errors), 3), BOTTOM)
    wanted[:, 0] = grade(errors)
    return Lesson(
        torch.from_numpy(drawn.pixels), [about(*one, rng) for one in zip(*drawn[1:], strict=True)], wanted,
        ((errors <= SAID) | (errors >= DENIED)).float(), plain,
        lay_out(vlm, grid_of(vlm, plain), [r.questions for r in asked]), torch.tensor([r.held for r in asked]),
    )  # fmt: skip


def about(seed: int, asked: int, error: float, rng: Random) -> list[Question]:
    """Four questions about a graded picture: see `Lesson.rows`."""
    clock = language.with_time(clocks.sample(int(seed)), int(asked))
    shown = [clock, *(language.another(clock, "time", rng) for _ in range(2))]
    forms = [language.ask_if(c, "time") for c in shown]
    question = free(clock, "time", rng)
    opened = question if error < (SAID + DENIED) / 2 else question._replace(answer=NONE)
    return [*(Question(rng.choices(form, (6, 1, 1, 1, 3))[0]) for form in forms), Question(*opened)]


def learn_grades(vlm: VLM, folder: Path, length: Length, batch: int = 24, lr: float = 5e-4, workers: int = 0) -> None:
    """Train the judge for this `length`; goes on from a checkpoint in `folder`. See the module for what it learns."""
    student = VLM(twin(vlm.model), vlm.processor, frozen=False)
    remember_texts(student)
    student.model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MATRICES), ADAPTER)
    adapter = nn.ParameterList([p for name, p in student.model.named_parameters() if "lora_" in name])
    run = Run(folder, nn.ModuleDict({"adapter": adapter}), [torch.optim.AdamW(adapter, lr, (0.9, 0.98))], seed=5)
    batches = run.batches(partial(lesson, vlm, Source(), Store(), batch), workers)
    while (share := run.share(length)) < 1:
        loss, figures = _loss(student, next(batches), run.generator(vlm.device))
        run.advance(loss, batch, share)
        run.tell(25, **figures)
    run.save()
    run.averaged()
    fold(vlm, student)


def _loss(vlm: VLM, made: Lesson, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """What a step lowers, and what it tells."""
    device = vlm.device
    graded, plain = (augment(to_images(part.to(device)), generator)[0] for part in (made.graded, made.plain))
    wanted, said, asked = made.wanted.to(device), made.said.to(device), made.asked.to(device)
    yes_or_no, held = [questions[:3] for questions in made.rows], asked.only(made.held)

    def misgraded(images: Tensor) -> Tensor:
        with half_precision(device):
            return off(vlm.score(_seen(vlm, images), yes_or_no), wanted).mean()

    def unanswered(images: Tensor) -> Tensor:
        with half_precision(device):
            return nats(likelihoods(vlm, _seen(vlm, images), held), held)

    calm, part = len(graded) // CALM, len(plain) // CALM
    graded = torch.cat([graded[:calm], attacked(graded, misgraded, generator)[calm:]])
    plain = torch.cat([plain[:part], attacked(plain, unanswered, generator)[part:]])
    with half_precision(device):
        seen = _seen(vlm, torch.cat([graded, plain]))
        ours, others = (Features(tokens, (), seen.grid) for tokens in seen.tokens.split([len(graded), len(plain)]))
        scores = vlm.score(ours, made.rows)
        answers = likelihoods(vlm, others, asked)
    wrong = off(scores[:, :3], wanted)
    opened = -(scores[:, 3] * said).sum() / said.sum().clamp(min=1)
    loss = 0.25 * (wrong[:, 0].mean() + wrong[:, 1:].mean()) + 0.3 * opened + 2 * nats(answers, asked)
    wrong, answers = wrong.detach(), -answers.detach()
    return loss, {
        "off": wrong[:calm, 0].mean(), "off, attacked": wrong[calm:, 0].mean(), "another time": wrong[:, 1:].mean(),
        "open": opened.detach(), "time": answers[:part, 0].mean(), "is it H:MM": answers[:part, 1:4].mean(),
        "looks": answers[:part, 4:].mean(), "time, attacked": answers[part:, 0].mean(),
        "is it H:MM, attacked": answers[part:, 1:4].mean(),
    }  # fmt: skip


def _seen(vlm: VLM, images: Tensor) -> Features:
    return look(vlm.model.model.visual, vlm.processor.image_processor, images)[0]


def fold(vlm: VLM, student: VLM) -> None:
    """Put what a twin's adapter learned into the weights that it shares, and the opposite into the adapter for plans.

    Raises ValueError where the adapter for plans leaves out a matrix that has changed.
    """
    learned = {name: m for name, m in student.model.named_modules() if isinstance(m, LoraLayer)}
    if vlm.planner is not vlm:
        planner = vlm.planner.model
        own = {name: m for name, m in planner.named_modules() if isinstance(m, LoraLayer)}
        if own.keys() != learned.keys():
            raise ValueError("The adapter for plans must change the same matrices as the judge's.")
        for name, module in own.items():
            _take_back(module, learned[name])
        config = planner.peft_config[PLANNER]
        config.lora_alpha, config.r = config.lora_alpha * (config.r + RANK) / config.r, config.r + RANK
    with torch.no_grad():
        for module in learned.values():
            weight = module.get_base_layer().weight
            weight += module.get_delta_weight(ADAPTER).to(weight)


def _take_back(module: LoraLayer, learned: LoraLayer) -> None:
    """Let an adapter's matrix be what it was, now that another's change goes into the weights."""
    down, up = module.lora_A[PLANNER], module.lora_B[PLANNER]
    factor = learned.scaling[ADAPTER] / module.scaling[PLANNER]
    down.weight = nn.Parameter(torch.cat([down.weight, learned.lora_A[ADAPTER].weight.to(down.weight)]), False)
    up.weight = nn.Parameter(torch.cat([up.weight, -factor * learned.lora_B[ADAPTER].weight.to(up.weight)], 1), False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", type=Path, required=True, help="a trained folder to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Length.parse, default=Length(24_000), help="pictures, or minutes as in 15m")
    parser.add_argument("--batch", type=int, default=24, help="pictures of a step")
    parser.add_argument("--lr", type=float, default=5e-4, help="highest rate of learning")
    add_machine(parser)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    join_others()
    model = VLM.load(arguments.init, arguments.device)
    remember_texts(model)
    folder, workers = RUNS / "vlm" / "grade", arguments.workers
    learn_grades(model, folder, arguments.images, arguments.batch, arguments.lr, workers)
    if rank() == 0:
        save(model, arguments.out)
