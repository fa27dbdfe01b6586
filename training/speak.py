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

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from rewards.plan import STUDIO
from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training import clock_language as language
from training import clocks
from training.attack import attacked
from training.clocks import PARTS, Clock
from training.harness import Run, optimizers
from training.mixes import clear, runner_up
from training.pictures import Source, spoil
from training.see import Sight, see_loss
from training.world import TRAIN

NONE = "none"
"""The time of a picture that shows none, and the colour of a part that no name fits."""
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

    Of mixed colours no name is true; of others the next nearest is asked for more often than the rest.
    """
    true = rng.random() < 0.5
    meant = clock if true else language.another(clock, attribute, rng)
    if attribute in PARTS:
        if not true and rng.random() < 0.3:
            meant = replace(clock, **{attribute: runner_up(clock, attribute)})
        true = true and clear(clock, attribute)
    asked = language.ask_if(meant, attribute)
    kept = next(text for text in asked if text.startswith("Does the picture show"))
    words = (asked[0], kept, rng.choice(asked))
    return Question(rng.choices(words, (5, 3, 2))[0], "yes" if true else "no")


def free(clock: Clock, attribute: str, rng: Random) -> Question:
    """An open question, mostly in a plan's words."""
    forms = language.open_questions(attribute)
    named = attribute not in PARTS or clear(clock, attribute)
    answer = language.value(clock, attribute) if named else NONE
    return Question(forms[0] if rng.random() < 0.7 else rng.choice(forms), answer)


def row(clock: Clock, rng: Random) -> list[Question]:
    """Ten short questions about a picture: four of the time, six of the looks."""
    time = [free(clock, "time", rng), *(firm(clock, "time", rng) for _ in range(3))]
    looks = [firm(clock, attribute, rng) for attribute in rng.sample(language.ATTRIBUTES, 4)]
    return time + looks + [free(clock, attribute, rng) for attribute in rng.sample(language.ATTRIBUTES, 2)]


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


def per_token(scores: Tensor, rows: list[list[Question]]) -> Tensor:
    """Mean over answers (B, Q) of their nats over the root of their length: long ones count more, but not by length."""
    lengths = torch.tensor([[1 + len(q.answer or "") / 4 for q in asked] for asked in rows])
    return -(scores / lengths.sqrt()).mean()


def asked_and_answered(vlm: VLM, seen: Features, rows: list[list[Question]]) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the answers (B, Q), and the mean nats a token of the questions that are answered by yes.

    A true statement is worth saying: the model that expects "red" after "Is the rim" needs only to compare it with
    the word that comes. Without this, yes and no stayed at chance for tens of thousands of pictures.
    """
    packed, positions, mask = vlm.layout(seen.grid, tuple(map(tuple, rows)))
    hidden = vlm.read(seen, packed, positions, mask)
    first = packed.image[1] + 1
    starts = packed.ends - (packed.offset.gather(1, packed.ends) - first)
    tail = len(vlm.prompter.split("?")[1]) - 1
    true = torch.tensor([[q.answer == "yes" for q in asked] for asked in rows])
    place = torch.arange(packed.ids.shape[1])
    said = (place >= starts[..., None]) & (place < packed.ends[..., None] - tail) & true[..., None]
    image, at = said.any(1).nonzero(as_tuple=True)
    logits = vlm.model.lm_head(hidden[image, at]).float()
    return vlm.log_likelihoods(hidden, packed, true.shape), F.cross_entropy(logits, packed.ids[image, at + 1])


def learn_to_speak(vlm: VLM, sight: Sight, folder: Path, total: int, batch: int = 24, lr: float = 1.2e-3) -> None:
    """Train the whole model until `total` pictures were seen: ten questions each, and plans for a quarter of them.

    Plans go in rows of their own, since padding and attention grow with the longest question of a row. The pictures of
    that quarter are clear; all others are attacked (`training.attack`) to raise the answers' loss.
    """
    vlm.model.train().requires_grad_(True)
    vlm.prompter.split = lru_cache(maxsize=100_000)(vlm.prompter.split)
    tuned = optimizers(vlm.text, lr) + optimizers(sight, 0.4 * lr)
    run = Run(folder, nn.ModuleDict({"model": vlm.model, "sight": sight}), tuned, seed=2)
    source, calm, few = Source(), batch // 4, batch // 16
    spoilt, dark = slice(calm, calm + few), slice(calm + few, calm + 3 * few)
    honest = [*range(calm), *range(calm + 3 * few, batch)]
    while run.images < total:
        generator = run.generator()
        rng = Random(int(torch.randint(2**31, (), generator=generator)))
        shown = source.batch(batch, generator)
        shown.images[spoilt] = spoil(shown.images[spoilt], generator)
        shown.scenes[dark], asked, shown.images[dark] = source.without_time(shown.scenes[dark], generator)
        rows = [row(s, rng) for s in shown.scenes]
        rows[spoilt] = [denied(s, rng) for s in shown.scenes[spoilt]]
        rows[dark] = [denied(s, rng, a, looks=True) for s, a in zip(shown.scenes[dark], asked, strict=True)]
        plans = [planned(scene, rng) for scene in shown.scenes[:calm]]
        shown.images[calm:] = attacked(
            shown.images[calm:], partial(answers_loss, vlm, lambda images: sight(images)[0], rows[calm:]), generator
        )
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            seen, logits, where = sight(shown.images)
            short, true = asked_and_answered(vlm, seen, rows)
            long = vlm.score(Features(seen.tokens[:calm], (), seen.grid), plans)
        named = {name: found[honest] for name, found in logits.items()}
        sharp, told = see_loss(named, where[honest], shown.only(honest))
        value = 2 * per_token(short, rows) + 0.5 * per_token(long, plans) + true + SEEING * sharp
        run.advance(value, batch, run.images / total)
        short = short.detach()
        fooled = {"hard to fool": -float(short[calm : calm + 3 * few].mean())}
        plan = {"plan": -float(long.detach().mean()), "a true word": float(true.detach()), "seeing": told["minute ±3"]}
        run.tell(50, **_nats(short[:calm]), **_nats(short[calm + 3 * few :], ", attacked"), **fooled, **plan)
    run.save()
    run.averaged()


def answers_loss(vlm: VLM, see: Callable[[Tensor], Features], rows: list[list[Question]], images: Tensor) -> Tensor:
    """What an attack raises: of the answers about images that `see` makes features of."""
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        return per_token(vlm.score(see(images), rows), rows)


def _nats(short: Tensor, suffix: str = "") -> dict[str, float]:
    """Nats an answer of each kind in rows of `row`."""
    kinds = {"time": slice(0, 1), "is it H:MM": slice(1, 4), "looks, yes or no": slice(4, 8), "looks": slice(8, 10)}
    return {name + suffix: -float(short[:, where].mean()) for name, where in kinds.items()}
