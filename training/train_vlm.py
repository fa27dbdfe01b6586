"""Train the studio's VLM: `python -m training.train_vlm` (both stages; resumes by itself).

First it learns to see: the vision tower under linear heads that name every attribute at once (the heads are thrown
away). Then it learns to speak: captions, open and yes/no questions with hard negatives, and plans, through the very
packing of questions that the reward uses (`rewards.prompt`). Pictures are shifted, scaled, blurred and noised, and some
are the autoencoder's reconstructions, since those are what the search shows it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2_5_VLProcessor

from editor.runtime import prepare
from rewards.plan import STUDIO
from rewards.preprocess import pixel_patches
from rewards.prompt import Question
from rewards.vlm import VLM, Features
from training import clock_language as language
from training import clocks
from training.data import RUNS, Pictures
from training.harness import Run, mean, optimizers
from training.vlm_folder import new_model, new_processor, new_tokenizer
from training.world import TRAIN

FOLDER = RUNS / "vlm"
ATTRIBUTES = {
    "hour": 12,
    "tens": 6,
    "minute": 60,
    "rim": 11,
    "face": 11,
    "hands": 11,
    "background": 11,
    "shape": 3,
    "marks": 4,
    "second_hand": 2,
}
"""What the heads of the first stage name, with the number of values."""


# Pictures ------------------------------------------------------------------------------------------------------------


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, scale, blur, contrast and noise for images (B, 3, H, W) in [0, 1]; nothing that changes an answer."""
    batch = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = uniform(0.92, 1.08)
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.08, 0.08), uniform(-0.08, 0.08)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    soft = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear")
    share = (uniform(-1, 1).clamp(min=0) * 0.9)[:, None, None, None]
    moved = moved.lerp(soft, share)
    moved = moved * uniform(0.94, 1.06)[:, None, None, None] + uniform(-0.03, 0.03)[:, None, None, None]
    noise = (uniform(-0.04, 0.05).clamp(min=0))[:, None, None, None]
    return (moved + noise * torch.randn(moved.shape, generator=generator)).clamp(0, 1)


class Source:
    """Batches of pictures with their clocks; pictures seen through the autoencoder once those are on disk."""

    def __init__(self) -> None:
        self.clear = Pictures()
        decoded = RUNS / "decoded"
        self.decoded = Pictures(decoded) if decoded.exists() else None
        self.clock = lru_cache(maxsize=200_000)(clocks.sample)

    def batch(self, size: int, generator: torch.Generator) -> tuple[list[clocks.Clock], Tensor]:
        """(clocks, images (size, 3, 128, 128) in [0, 1])."""
        half = size // 2 if self.decoded else 0
        rows = torch.randint(len(self.clear), (size - half,), generator=generator).numpy()
        pixels = torch.from_numpy(self.clear[rows])
        seeds = rows.tolist()
        if half:
            more = torch.randint(len(self.decoded), (half,), generator=generator).numpy()
            pixels = torch.cat([pixels, torch.from_numpy(self.decoded[more])])
            seeds += more.tolist()
        images = pixels.permute(0, 3, 1, 2).float().div(255)
        return [self.clock(TRAIN + seed) for seed in seeds], augment(images, generator)


# Stage one: to see ---------------------------------------------------------------------------------------------------


def labels(scenes: list[clocks.Clock]) -> dict[str, Tensor]:
    """The index of every attribute's value, (B,) each."""
    names, rows = list(clocks.COLOURS), []
    for c in scenes:
        rows.append(
            [
                c.hour,
                c.minute // 10,
                c.minute,
                names.index(c.rim),
                names.index(c.face),
                names.index(c.hands),
                names.index(c.background),
                clocks.SHAPES.index(c.shape),
                clocks.MARKS.index(c.marks),
                int(c.second_hand),
            ]
        )
    return dict(zip(ATTRIBUTES, torch.tensor(rows).T, strict=True))


class Sight(nn.Module):
    """A vision tower under one linear head for all attributes, which is thrown away afterwards."""

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.visual = vlm.model.model.visual
        self.processor = vlm.processor.image_processor
        self.norm = nn.LayerNorm(16 * 192)
        self.head_embed = nn.Linear(16 * 192, sum(ATTRIBUTES.values()))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute, (B, values)."""
        patches, grid = pixel_patches(self.processor, images)
        seen = self.visual(patches, grid_thw=grid).pooler_output
        logits = self.head_embed(self.norm(seen.reshape(len(images), -1).float()))
        return dict(zip(ATTRIBUTES, logits.split(list(ATTRIBUTES.values()), dim=1), strict=True))


def see_loss(logits: dict[str, Tensor], scenes: list[clocks.Clock]) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy over all attributes, the minute's with its neighbours, and the accuracies."""
    truth, total, accuracy = labels(scenes), 0.0, {}
    offsets = torch.arange(60)
    for name, found in logits.items():
        target = truth[name]
        accuracy[name] = float((found.argmax(1) == target).float().mean())
        if name == "minute":
            away = (offsets[None] - target[:, None] + 30) % 60 - 30
            soft = torch.softmax(-(away / 1.0).square() / 2, 1)
            total = total + F.cross_entropy(found, soft)
        else:
            total = total + F.cross_entropy(found, target)
    return total / len(logits), accuracy


def learn_to_see(vlm: VLM, total: int, batch: int, lr: float) -> None:
    """Train the vision tower until `total` images were seen."""
    sight = Sight(vlm)
    run = Run(FOLDER / "see", nn.ModuleDict({"sight": sight}), optimizers(sight, lr), seed=1)
    source, recent = Source(), []
    while run.images < total:
        scenes, images = source.batch(batch, run.generator())
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            logits = sight(images)
        value, accuracy = see_loss({k: v.float() for k, v in logits.items()}, scenes)
        run.advance(value, batch, run.images / total)
        recent.append(accuracy | {"loss": float(value.detach())})
        if run.step % 100 == 0:
            run.save()
            told = ", ".join(f"{k} {mean(r[k] for r in recent):.3f}" for k in recent[0])
            print(f"see: {run.images} images, {run.seconds:.0f} s, {told}", flush=True)
            recent.clear()
    run.averaged()


# Stage two: to speak -------------------------------------------------------------------------------------------------


def corpus(count: int = 6000) -> Iterator[str]:
    """Text for the tokenizer: what the world says, plans included."""
    for seed in range(count):
        rng, clock = Random(seed), clocks.sample(TRAIN + seed)
        yield from (text for q in language.questions(clock, rng) for text in (q.text, q.answer))
        wanted = language.request(clock, rng)
        yield STUDIO.fill(wanted.instruction)
        yield wanted.reply


def row(clock: clocks.Clock, rng: Random, broken: bool) -> list[Question]:
    """Six questions about a picture, two at least about the time; a broken picture answers no to everything."""
    if broken:
        asked = [language.yes_no(clock, a, rng) for a in ("time", "time", *rng.sample(language.ATTRIBUTES, 4))]
        return [Question(q.text, "no") for q in asked]
    asked = language.questions(clock, rng)
    time = [q for q in asked if ":" in q.text + q.answer][1:]
    firm = [language.yes_no(clock, a, rng) for a in rng.sample(language.ATTRIBUTES, 2)]
    return [Question(q.text, q.answer) for q in [time[0], rng.choice(time[1:]), *firm, *rng.sample(asked, 2)]]


def planned(clock: clocks.Clock, rng: Random) -> list[Question]:
    """An instruction about a picture with its plan."""
    wanted = language.request(clock, rng)
    return [Question(STUDIO.fill(wanted.instruction), wanted.reply)]


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images of which nothing can be said any more: shuffled tiles, heavy blur or noise; (B, 3, H, W) in [0, 1]."""
    spoilt = []
    for image in images:
        kind = int(torch.randint(3, (), generator=generator))
        if kind == 0:
            tiles = image.unfold(1, 16, 16).unfold(2, 16, 16).reshape(3, 64, 16, 16)
            tiles = tiles[:, torch.randperm(64, generator=generator)].reshape(3, 8, 8, 16, 16)
            spoilt.append(tiles.permute(0, 1, 3, 2, 4).reshape(3, 128, 128))
        elif kind == 1:
            tiny = F.avg_pool2d(image[None], 32)
            spoilt.append(F.interpolate(tiny, size=128, mode="bilinear")[0])
        else:
            spoilt.append((0.3 * image + 0.35 + 0.3 * torch.randn(image.shape, generator=generator)).clamp(0, 1))
    return torch.stack(spoilt)


def per_token(scores: Tensor, rows: list[list[Question]]) -> Tensor:
    """Mean over answers (B, Q) of their nats over the root of their length: long ones count more, but not by length."""
    lengths = torch.tensor([[1 + len(q.answer) / 4 for q in asked] for asked in rows])
    return -(scores / lengths.sqrt()).mean()


def learn_to_speak(vlm: VLM, total: int, batch: int, lr: float) -> None:
    """Train the whole model until `total` images were seen: six questions each, and plans for a quarter of them.

    Plans go in rows of their own, since padding and attention grow with the longest question of a row.
    """
    vlm.model.train().requires_grad_(True)
    vlm.prompter.split = lru_cache(maxsize=100_000)(vlm.prompter.split)
    run = Run(FOLDER / "speak", nn.ModuleDict({"model": vlm.model}), optimizers(vlm.model, lr), seed=2)
    source, recent, bad = Source(), [], 1
    while run.images < total:
        generator, rng = run.generator(), Random(run.step)
        scenes, images = source.batch(batch, generator)
        images[:bad] = spoil(images[:bad], generator)
        rows = [row(scene, rng, broken=i < bad) for i, scene in enumerate(scenes)]
        first = batch - batch // 4
        plans = [planned(scene, rng) for scene in scenes[first:]]
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            seen = vlm.features(images)
            short = vlm.score(seen, rows)
            long = vlm.score(Features(seen.tokens[first:], (), seen.grid), plans)
        run.advance(per_token(short, rows) + 0.5 * per_token(long, plans), batch, run.images / total)
        recent.append({"short": -float(short.detach().mean()), "plan": -float(long.detach().mean())})
        if run.step % 100 == 0:
            run.save()
            told = ", ".join(f"{k} {mean(r[k] for r in recent):.3f}" for k in recent[0])
            print(f"speak: {run.images} images, {run.seconds:.0f} s, nats an answer: {told}", flush=True)
            recent.clear()
    run.save()
    run.averaged()


def build(folder: Path = FOLDER) -> VLM:
    """A new model. Its tokenizer is learned once and kept beside the checkpoints: weights mean nothing without it."""
    torch.manual_seed(0)
    kept = folder / "processor"
    if not kept.exists():
        new_processor(new_tokenizer(corpus(), vocab_size=1024)).save_pretrained(kept)
    processor = Qwen2_5_VLProcessor.from_pretrained(kept)
    return VLM(new_model(processor.tokenizer), processor, frozen=False)


def save(vlm: VLM, folder: Path) -> None:
    """Write the model in bfloat16 and its processor."""
    vlm.model.to(torch.bfloat16).save_pretrained(folder)
    vlm.processor.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--see", type=int, default=64_000, help="images of the first stage")
    parser.add_argument("--speak", type=int, default=34_000, help="images of the second stage")
    parser.add_argument("--out", type=Path, default=FOLDER / "model")
    parser.add_argument("--start", type=Path, help="a trained folder to go on from, past the first stage")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    if arguments.start is None:
        model = build()
        learn_to_see(model, arguments.see, batch=64, lr=1.5e-3)
    else:
        model = VLM.load(arguments.start)
    learn_to_speak(model, arguments.speak, batch=16, lr=1.2e-3)
    save(model, arguments.out)
