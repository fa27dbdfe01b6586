"""A last touch to the studio's VLM: `python -m training.words --init assets/models/studio/vlm --out FOLDER`.

Second hands are thin, and where one lies along another hand the VLM leans to "no". To lean otherwise it needs no other
tower: the embeddings of the two words that ask for it learn alone, and every question without them is read to the last
bit as before.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from editor.runtime import prepare
from rewards.prompt import Question
from rewards.vlm import VLM
from training import clock_language as language
from training.data import RUNS
from training.harness import Length, Run, add_machine, half_precision
from training.pictures import Source, augment, to_images
from training.train_vlm import save
from training.world import Question as Labelled

WORDS = (" second", " hand")
ATTRIBUTE = "second hand"


class Lesson(NamedTuple):
    """A batch of pictures with a yes/no question about each, as a worker makes it."""

    pixels: Tensor
    """8 bits, (B, 128, 128, 3)."""
    asked: list[Labelled]


def lesson(source: Source, batch: int, generator: torch.Generator) -> Lesson:
    """The batch of one step."""
    rng = Random(int(torch.randint(2**31, (), generator=generator)))
    scenes, pixels = source.batch(batch, generator)
    return Lesson(pixels, [language.yes_no(scene, ATTRIBUTE, rng) for scene in scenes])


def learn_words(vlm: VLM, folder: Path, length: Length, batch: int = 64, lr: float = 3e-3, workers: int = 0) -> None:
    """Train the embeddings of WORDS for this `length`; goes on from a checkpoint in `folder`.

    Raises ValueError where the tokenizer cuts one of them up: its parts would be those of other words as well.
    """
    tokenizer, words = vlm.processor.tokenizer, vlm.text.embed_tokens.weight
    cut = [tokenizer.encode(word, add_special_tokens=False) for word in WORDS]
    if any(len(tokens) != 1 for tokens in cut):
        raise ValueError(f"Each of {WORDS} must be one token of the VLM's tokenizer.")
    vlm.model.eval().requires_grad_(False)
    words.requires_grad_(True)
    alone = torch.zeros_like(words).index_fill_(0, torch.tensor(cut, device=words.device).flatten(), 1)
    handle = words.register_hook(lambda slope: slope * alone)
    run = Run(folder, nn.ModuleDict({"words": vlm.text.embed_tokens}), [torch.optim.Adam([words], lr)], seed=4)
    batches = run.batches(partial(lesson, Source(), batch), workers)
    while (share := run.share(length)) < 1:
        made = next(batches)
        images, _ = augment(to_images(made.pixels.to(vlm.device)), run.generator(vlm.device))
        truth = torch.tensor([float(asked.answer == "yes") for asked in made.asked], device=vlm.device)
        with half_precision(vlm.device):
            with torch.no_grad():
                seen = vlm.features(images)
            odds = vlm.score(seen, [[Question(asked.text)] for asked in made.asked])[:, 0]
        wrong = ((odds > 0) != (truth > 0)).float().mean()
        loss = F.binary_cross_entropy_with_logits(odds, truth)
        run.advance(loss, batch, share)
        run.tell(20, nats=loss.detach(), wrong=wrong)
    run.save()
    run.averaged()
    handle.remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--init", type=Path, required=True, help="a trained folder to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=Length.parse, default=Length(36_000), help="pictures, or minutes as in 15m")
    parser.add_argument("--lr", type=float, default=3e-3)
    add_machine(parser)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    model = VLM.load(arguments.init, arguments.device)
    learn_words(model, RUNS / "vlm" / "words", arguments.images, lr=arguments.lr, workers=arguments.workers)
    save(model, arguments.out)
