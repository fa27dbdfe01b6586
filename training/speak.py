"""The second stage of the studio's VLM: it learns to speak of what it sees.

Open and yes/no questions with hard negatives, descriptions, and plans, through the very packing of questions that the
reward uses (`rewards.prompt`). Some pictures are there to make it hard to fool: spoilt ones, of which every statement
is false, and clocks with two times at once or without a hand, which show no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rewards.plan import STUDIO
from rewards.preprocess import cut_up
from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training import clock_language as language
from training import clocks
from training.asked import Asked, lay_out, likelihoods, likelihoods_and_truths, nats
from training.attack import attacked
from training.clocks import Clock
from training.harness import Length, Run, half_precision, optimizers
from training.mixes import clear, runner_up
from training.pictures import Source, spoil, to_images
from training.see import SLIGHT, Pictured, Sight, see_loss
from training.world import TRAIN

NONE = "none"
"""The time of a picture that shows none; the colour of a part, the shape or the marks where no name fits."""
SEEING = 0.3
"""Weight of the first stage's loss beside the answers': the tower stays as sharp as it was."""


def corpus(count: int = 6000) -> Iterator[str]:
    """Text for the tokenizer: what the world says, plans included."""
    for seed in range(count):
        rng, clock = Random(seed), clocks.sample(TRAIN + seed)
        yield from (text for q in language.questions(clock, rng) for text in (q.text, q.answer))
        wanted = language.request(clock, rng)
        yield STUDIO.fill(wanted.instruction)
        yield wanted.reply


def firm(clock: Clock, attribute: str, rng: Random) -> Question:
    """A yes/no question, mostly in the words of a plan's checks or in those that ask what must stay.

    Of mixed colours, shapes or marks no name is true; of others the next nearest is asked for more often than the rest.
    """
    true = rng.random() < 0.5
    meant = clock if true else language.another(clock, attribute, rng)
    if not true and rng.random() < 0.3 and (near := runner_up(clock, attribute)):
        meant = replace(clock, **{attribute: near})
    true = true and clear(clock, attribute)
    asked = language.ask_if(meant, attribute)
    kept = next(text for text in asked if text.startswith("Does the picture show"))
    words = (asked[0], kept, rng.choice(asked))
    return Question(rng.choices(words, (5, 3, 2))[0], "yes" if true else "no")


def free(clock: Clock, attribute: str, rng: Random) -> Question:
    """An open question, mostly in a plan's words."""
    forms = language.open_questions(attribute)
    answer = language.value(clock, attribute) if clear(clock, attribute) else NONE
    return Question(forms[0] if rng.random() < 0.7 else rng.choice(forms), answer)


class Row(NamedTuple):
    """Questions about a picture."""

    questions: list[Question]
    held: list[bool]
    """Those whose answers no small change of the picture may turn: what an attack may aim at."""


def row(clock: Clock, rng: Random) -> Row:
    """Ten short questions about a picture: four of the time, six of the looks."""
    yes_or_no = ["time"] * 3 + rng.sample(language.ATTRIBUTES, 4)
    named = rng.sample(language.ATTRIBUTES, 2)
    questions = [free(clock, "time", rng), *(firm(clock, attribute, rng) for attribute in yes_or_no)]
    questions += [free(clock, attribute, rng) for attribute in named]
    return Row(questions, [name.replace(" ", "_") not in SLIGHT for name in ("time", *yes_or_no, *named)])


def denied(clock: Clock, rng: Random, asked: int | None = None, looks: bool = False) -> list[Question]:
    """Ten questions about a picture that shows no time: no to every time, above all to the one that was `asked` for.

    Its looks are the clock's or, without `looks`, none either; of the hands nothing holds in any case.
    """
    times = [clock if rng.random() < 0.5 else language.another(clock, "time", rng) for _ in range(4)]
    if asked is not None:
        times[:2] = [language.with_time(clock, asked)] * 2
    false = [Question(rng.choice(language.ask_if(c, "time")[::4]), "no") for c in times]
    false += [Question(firm(clock, "hands", rng).text, "no") for _ in range(2)]
    about = [firm(clock, attribute, rng) for attribute in ("rim", "background")]
    unclear = [Question(free(clock, "time", rng).text, NONE) for _ in range(2)]
    return false + unclear + (about if looks else [Question(q.text, "no") for q in about])


def planned(clock: Clock, rng: Random, kind: str | None = None) -> list[Question]:
    """An instruction about a picture with its plan, of this kind or of any; of any it may be a description instead."""
    if kind is None and rng.random() < 0.15:
        return [Question(rng.choice(language.DESCRIBE), language.description(clock))]
    wanted = language.request(clock, rng, kind)
    return [Question(STUDIO.fill(wanted.instruction), wanted.reply)]


class Lesson(NamedTuple):
    """A batch of pictures with what is asked about them, as a worker makes it."""

    pictured: Pictured
    short: Asked
    """Ten questions about each picture."""
    held: Tensor
    """(B, 10): see `Row`."""
    long: Asked
    """A plan for each of the first quarter."""


def lesson(vlm: VLM, source: Source, batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step: a quarter with plans, a sixteenth to be spoilt, an eighth without a time, and others."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    clear, spoilt, dark = _parts(batch)
    scenes, pixels = source.batch(batch, generator)
    scenes[dark], asked, pixels[dark] = source.without_time(scenes[dark], generator)
    rows = [row(s, rng) for s in scenes]
    rows[spoilt] = [_firmly(denied(s, rng)) for s in scenes[spoilt]]
    rows[dark] = [_firmly(denied(s, rng, a, looks=True)) for s, a in zip(scenes[dark], asked, strict=True)]
    plans = [planned(scene, rng) for scene in scenes[clear]]
    grid, held = grid_of(vlm, pixels), torch.tensor([r.held for r in rows])
    short = lay_out(vlm, grid, [r.questions for r in rows])
    return Lesson(Pictured.of(scenes, pixels), short, held, lay_out(vlm, grid, plans))


def _firmly(questions: list[Question]) -> Row:
    return Row(questions, [True] * len(questions))


def grid_of(vlm: VLM, pixels: Tensor) -> tuple[int, int, int]:
    """The size in patches of pictures (B, H, W, 3) of 8 bits."""
    return cut_up(vlm.processor.image_processor, to_images(pixels[:1]))[1]


def _parts(batch: int) -> tuple[slice, slice, slice]:
    """Pictures that stay clear, those that are spoilt, and those that show no time."""
    calm, few = batch // 4, batch // 16
    return slice(calm), slice(calm, calm + few), slice(calm + few, calm + 3 * few)


def remember_texts(vlm: VLM) -> None:
    """Split each text into tokens once: most are asked and answered many times."""
    vlm.prompter.split = lru_cache(maxsize=100_000)(vlm.prompter.split)
    vlm.prompter.answer_ids = lru_cache(maxsize=100_000)(vlm.prompter.answer_ids)


def learn_to_speak(
    vlm: VLM, sight: Sight, folder: Path, length: Length, batch: int = 24, lr: float = 1.2e-3, workers: int = 0
) -> None:
    """Train the whole model where it is for this `length`: ten questions each, and plans for a quarter.

    Plans go in rows of their own, since padding and attention grow with the longest question of a row. The pictures of
    that quarter are clear; all others are attacked (`training.attack`) to raise the answers' loss. No pictures: nothing
    is changed, whatever the folder holds.
    """
    if not length.images:
        return
    vlm.model.train().requires_grad_(True)
    tuned = optimizers(vlm.text, lr) + optimizers(sight, 0.4 * lr)
    run = Run(folder, nn.ModuleDict({"model": vlm.model, "sight": sight}), tuned, seed=2)
    batches = run.batches(partial(lesson, vlm, Source(), batch), workers)
    clear, spoilt, dark = _parts(batch)
    calm = clear.stop
    honest = torch.tensor([*range(calm), *range(dark.stop, batch)], device=vlm.device)
    while (share := run.share(length)) < 1:
        generator, made = run.generator(vlm.device), next(batches)
        short, long = made.short.to(vlm.device), made.long.to(vlm.device)
        images, truth = made.pictured.shown(generator)
        images[spoilt] = spoil(images[spoilt], generator)
        loss = partial(answers_loss, vlm, lambda x: sight(x)[0], short.after(calm).only(made.held[calm:]))
        images[calm:] = attacked(images[calm:], loss, generator)
        with half_precision(vlm.device):
            seen, logits, where = sight(images)
            answers, true = likelihoods_and_truths(vlm, seen, short)
            plans = likelihoods(vlm, Features(seen.tokens[:calm], (), seen.grid), long)
        named = {name: found[honest] for name, found in logits.items()}
        sharp, told = see_loss(named, where[honest], truth.only(honest))
        value = 2 * nats(answers, short) + 0.5 * nats(plans, long) + true + SEEING * sharp
        run.advance(value, batch, share)
        answers = answers.detach()
        fooled = {"hard to fool": -answers[calm : dark.stop].mean()}
        plan = {"plan": -plans.detach().mean(), "a true word": true.detach(), "seeing": told["minute ±3"]}
        run.tell(50, **_nats(answers[:calm]), **_nats(answers[dark.stop :], ", attacked"), **fooled, **plan)
    run.save()
    run.averaged()


def answers_loss(vlm: VLM, see: Callable[[Tensor], Features], asked: Asked, images: Tensor) -> Tensor:
    """What an attack raises: of the answers about images that `see` makes features of."""
    with half_precision(images.device):
        return nats(likelihoods(vlm, see(images), asked), asked)


def _nats(answers: Tensor, suffix: str = "") -> dict[str, Tensor]:
    """Nats an answer of each kind in rows of `row`."""
    kinds = {"time": slice(0, 1), "is it H:MM": slice(1, 4), "looks, yes or no": slice(4, 8), "looks": slice(8, 10)}
    return {name + suffix: -answers[:, where].mean() for name, where in kinds.items()}
