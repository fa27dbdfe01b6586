"""A stage of the studio's VLM against what searches fool it with: most of its pictures are such, attacked besides.

Low-rank changes of both towers learn (LoRA, as those for plans) and are then added to the weights themselves: few
numbers move, so that small batches on a CPU spoil little of what long training under attack gave. The adapter for
plans gets the same changes the other way round, so that plans are written as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from rewards.planner import twin
from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training import clock_language as language
from training import finds
from training.asked import Asked, lay_out, likelihoods_and_truths, nats
from training.attack import attacked
from training.clocks import Clock, sample
from training.data import MIXED_DECODED, Pictures
from training.finds import Found, FoundLook
from training.harness import Length, Run, half_precision
from training.lora import MATRICES, adapter_rank, changes, plan_as, planning_weights
from training.mixes import mixed, runner_up
from training.pictures import Source, augment, spoil, to_images
from training.plan import RANK
from training.see import SLIGHT
from training.speak import NONE, Row, answers_loss, denied, firm, grid_of, row
from training.tower import look
from training.world import TRAIN

ASKED, DENIED = (0, 1, 2, 3, 4, 5, 8), (6, 0, 1, 2, 3, 8, 9)
"""Of ten questions about a picture, those that are asked: the open one first, three or four for the time, and looks."""
HANDS = 4
"""Which of those gives way to the colour of hands that show no time: bent ones still have theirs."""
NEAR = 6
"""Minutes within which it is not said of bent hands that they don't show the time that was asked for."""

One = TypeVar("One", Found, FoundLook)


class Lesson(NamedTuple):
    """A batch of pictures with what is asked about them, as a worker makes it."""

    pixels: Tensor
    """8 bits, (B, 128, 128, 3)."""
    asked: Asked
    held: Tensor
    """(B, questions): see `training.speak.Row`."""


def parts(batch: int) -> tuple[slice, slice, slice, slice, slice]:
    """Clear pictures, spoilt ones, and after others those that searches have shown.

    These are edits of looks, then clocks with a time, then some without.
    """
    calm, few, fifth = batch // 6, batch // 24, 5 * batch // 24
    looks = batch - 2 * fifth - calm
    return (slice(calm), slice(calm, calm + few), slice(looks, looks + calm), slice(looks + calm, batch - fifth),
            slice(batch - fifth, batch))  # fmt: skip


def lesson(vlm: VLM, source: Source, timed: list[Found], batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    _, spoilt, looks, shown, dark = parts(batch)
    scenes, pixels = source.batch(looks.start, generator)
    rows = [_some(row(scene, rng), ASKED) for scene in scenes]
    rows[spoilt] = [_denied(scene, rng) for scene in scenes[spoilt]]
    changed = _some_of(source.looks, looks, generator)
    rows += [_of_look(found, rng) for found in changed]
    drawn = _some_of(timed, shown, generator)
    rows += [_some(_asked_for(found, rng), ASKED) for found in drawn]
    clocks, asked, timeless = source.without_time(scenes[: batch - dark.start], generator)
    rows += [_without_time(clock, time, rng) for clock, time in zip(clocks, asked, strict=True)]
    found = torch.stack([torch.from_numpy(one.pixels) for one in (*changed, *drawn)])
    pixels = torch.cat([pixels, found, timeless])
    questions = lay_out(vlm, grid_of(vlm, pixels), [r.questions for r in rows])
    return Lesson(pixels, questions, torch.tensor([r.held for r in rows]))


def half_done(folder: Path = MIXED_DECODED) -> list[FoundLook]:
    """Looks that are there in part alone (`training.mixes`), as the autoencoder shows them; none without such."""
    found, rng = [], Random(0)
    pictures = Pictures(folder) if folder.exists() else ()
    for index in range(len(pictures)):
        clock = mixed(sample(TRAIN + index))
        for name in clock.unclear:
            asked = runner_up(clock, name) if rng.random() < 0.5 else None
            wanted = asked or language.value(clock, name)
            found.append(FoundLook(pictures[np.array([index])][0], clock.seed, name, wanted, ""))
    return found


def _evened(found: list[FoundLook]) -> list[FoundLook]:
    """The same with what is as asked about as frequent as what is not, by repetition."""
    done = [one for one in found if one.shown == one.asked]
    other = [one for one in found if one.shown != one.asked]
    least = max(1, min(len(done), len(other)))
    return done * max(1, len(other) // least) + other * max(1, len(done) // least)


def _some_of(found: Sequence[One], places: slice, generator: torch.Generator) -> list[One]:
    """As many as there are places."""
    drawn = torch.randint(len(found), (places.stop - places.start,), generator=generator)
    return [found[i] for i in drawn.tolist()]


def _of_look(found: FoundLook, rng: Random) -> Row:
    """Questions about the look that an edit was asked for: most of them for that value, one for the source's own."""
    own, name = sample(found.seed), found.attribute
    asked = finds.with_look(own, name, found.asked)
    meant = [asked] * 4 + [own, language.another(own, name, rng)]
    free = rng.choice(language.open_questions(name)[:2])
    questions = [Question(free, found.shown or NONE)]
    for clock in meant:
        words = language.ask_if(clock, name)
        text = rng.choices(words, (5, 3, 2))[0]
        questions.append(Question(text, "yes" if language.value(clock, name) == found.shown else "no"))
    return Row(questions, [name not in SLIGHT] * len(questions))


def _asked_for(found: Found, rng: Random) -> Row:
    """Questions about a picture that a search has shown, one of them for what the search was asked for."""
    clock = finds.shown_clock(found)
    questions, held = row(clock, rng)
    off = abs((found.minutes - found.asked + 360) % 720 - 360)
    if found.asked != finds.TIMELESS and not 1 < off <= NEAR:
        wanted = language.ask_if(language.with_time(clock, found.asked), "time")[0]
        questions[1] = Question(wanted, "yes" if off <= 1 else "no")
    return Row(questions, held)


def _without_time(clock: Clock, asked: int | None, rng: Random) -> Row:
    """Questions about a picture that shows no time, nor what was `asked` for where a search made it."""
    denying = _denied(clock, rng, asked, looks=True)
    if asked is not None:
        denying.questions[HANDS] = firm(clock, "hands", rng)
    return denying


def _denied(clock: Clock, rng: Random, asked: int | None = None, looks: bool = False) -> Row:
    questions = denied(clock, rng, asked, looks)
    return _some(Row(questions, [True] * len(questions)), DENIED)


def _some(asked: Row, places: tuple[int, ...]) -> Row:
    return Row([asked.questions[i] for i in places], [asked.held[i] for i in places])


def learn_to_withstand(
    vlm: VLM, folder: Path, length: Length, batch: int = 24, lr: float = 5e-4, workers: int = 0
) -> None:
    """Train what judges where it is for this `length`; goes on from a checkpoint in `folder`. Plans stay as they are.

    It needs what `training.found` keeps, and raises ValueError where there is none. No pictures: nothing is changed,
    whatever the folder holds.
    """
    if not length.images:
        return
    source = Source()
    timed, source.timed, source.looks = source.timed, [], _evened(source.looks + half_done())
    if not timed or not source.timeless or not source.looks:
        raise ValueError("There are no pictures of searches to learn from: run python -m training.found first.")
    vlm.model.eval().requires_grad_(False)
    torch.manual_seed(0)
    model = twin(vlm.model)
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MATRICES), "judge")
    learner = VLM(model, vlm.processor, frozen=False)
    adapter = nn.ParameterList(p for name, p in model.named_parameters() if "lora_" in name)
    run = Run(folder, nn.ModuleDict({"adapter": adapter.requires_grad_(True)}),
              [torch.optim.AdamW(adapter, lr, (0.9, 0.98), weight_decay=0.0)], seed=11)  # fmt: skip
    batches = run.batches(partial(lesson, vlm, source, timed, batch), workers)
    calm, spoilt, looks, shown, dark = parts(batch)

    def see(pictures: Tensor) -> Features:
        return look(model.model.visual, vlm.processor.image_processor, pictures)[0]

    while (share := run.share(length)) < 1:
        generator, made = run.generator(vlm.device), next(batches)
        asked = made.asked.to(vlm.device)
        pictures, _ = augment(to_images(made.pixels.to(vlm.device, non_blocking=True)), generator)
        pictures[spoilt] = spoil(pictures[spoilt], generator)
        loss = partial(answers_loss, learner, see, asked.after(calm.stop).only(made.held[calm.stop :]))
        pictures[calm.stop :] = attacked(pictures[calm.stop :], loss, generator)
        with half_precision(vlm.device):
            answers, true = likelihoods_and_truths(learner, see(pictures), asked)
        run.advance(2 * nats(answers, asked) + 0.5 * true, batch, share)
        said = -answers.detach()
        plain = said[spoilt.stop : looks.start]
        attacks = {"time, attacked": plain[:, 0].mean(), "is it H:MM, attacked": plain[:, 1:4].mean()}
        searches = {"searched": said[shown, 1:4].mean(), "fooled": said[dark, 1:4].mean(), "looks": said[looks].mean()}
        run.tell(50, **attacks, **searches)
    run.save()
    run.averaged()
    take_in(vlm, model)


@torch.no_grad()
def take_in(vlm: VLM, model: PreTrainedModel) -> None:
    """Add the low-rank changes of a twin to the weights of a VLM, whose plans stay as they are.

    The rank of the adapter that writes them grows by theirs.
    """
    wanted, rank = planning_weights(vlm), adapter_rank(vlm.planner.model) + adapter_rank(model)
    learned, own = changes(model), dict(vlm.model.named_modules())
    if wanted and learned.keys() != wanted.keys():
        raise ValueError("The adapter for plans changes other matrices than those that learned: train it anew.")
    for name, change in learned.items():
        own[name].weight.add_(change)
    if wanted:
        plan_as(vlm, wanted, rank)
