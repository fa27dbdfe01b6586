"""The first stage of the studio's VLM: its vision tower learns to see.

Heads that are thrown away afterwards name every attribute at once from all tokens, and each patch says where it sees
which hand: without the second, a tower takes several times as many pictures to tell the hour hand from the minute hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rewards.vlm import VLM, Features
from training import clocks
from training.attack import attacked
from training.harness import Length, Run, half_precision, optimizers
from training.pictures import Source, augment, to_images
from training.tower import look

ATTRIBUTES = {
    "hour": 12,
    "tens": 6,
    "minute": 60,
    "hour hand": 72,
    "rim": 11,
    "face": 11,
    "hands": 11,
    "background": 11,
    "shape": 3,
    "marks": 4,
    "second_hand": 2,
}
"""What the heads name, with the number of values."""
ROUND = {"minute": 1.0, "hour hand": 1.0}
"""Attributes whose values stand in a circle, with the width in values of what counts as nearly right."""
HEADS_FIRST = 0.25
"""Share of the stage in which the heads, which are new each time, learn alone, from pictures as they are: until they
know what they see, neither the tower nor an attack has anything to learn from them."""
SLIGHT = ("marks", "second_hand")
"""Attributes that hang on so few pixels that a small change may make them other ones."""
HANDS, CELLS, PATCHES = 3, 4, 8
"""Hour, minute and second hand; each patch tells them in CELLS x CELLS cells; a picture has PATCHES x PATCHES."""


class Sight(nn.Module):
    """A VLM's vision tower under linear heads."""

    def __init__(self, vlm: VLM, patches: int = PATCHES) -> None:
        super().__init__()
        self.visual = vlm.model.model.visual
        self.processor = vlm.processor.image_processor
        config = self.visual.config
        width = (patches // config.spatial_merge_size) ** 2 * config.out_hidden_size
        self.norm = nn.LayerNorm(width)
        self.head_embed = nn.Linear(width, sum(ATTRIBUTES.values()))
        self.where_embed = nn.Linear(config.hidden_size, HANDS * CELLS**2)

    def forward(self, images: Tensor) -> tuple[Features, dict[str, Tensor], Tensor]:
        """What the text tower reads, and logits: of each attribute (B, values), of the hands (B, P, HANDS * CELLS²)."""
        seen, states = look(self.visual, self.processor, images)
        logits = self.head_embed(self.norm(seen.tokens.flatten(1).float()))
        named = dict(zip(ATTRIBUTES, logits.split(list(ATTRIBUTES.values()), dim=1), strict=True))
        return seen, named, self.where_embed(states)


def labels(scenes: Sequence[clocks.Clock]) -> dict[str, Tensor]:
    """The index of every attribute's value, (B,) each."""
    names, rows = list(clocks.COLOURS), []
    for c in scenes:
        colours = [names.index(part) for part in (c.rim, c.face, c.hands, c.background)]
        looks = [clocks.SHAPES.index(c.shape), clocks.MARKS.index(c.marks), int(c.second_hand)]
        rows.append([c.hour, c.minute // 10, c.minute, c.minutes // 10, *colours, *looks])
    return dict(zip(ATTRIBUTES, torch.tensor(rows).T, strict=True))


def hand_table(scenes: Sequence[clocks.Clock]) -> Tensor:
    """Where the hour, minute and second hand of each clock are, in sides of the picture: (B, HANDS, 7).

    The dial's centre, from there to the tip and to the tail, and half the width; zeros for a hand that is not there.
    """
    rows = []
    for c in scenes:
        second = (0.9, 0.034) if c.second_hand else (0.0, 0.0)
        turns = (c.minutes / 720, c.minute / 60, c.second / 60)
        for turn, (length, width), tail in zip(
            turns, (c.hour_hand, c.minute_hand, second), (c.tail, c.tail, 0.2 if c.second_hand else 0.0), strict=True
        ):
            angle = 2 * math.pi * turn
            dx, dy = math.sin(angle) * c.dial, -math.cos(angle) * c.dial
            rows.append([c.x, c.y, dx * length, dy * length, -dx * tail, -dy * tail, width * c.dial * 0.4])
    return torch.tensor(rows).unflatten(0, (len(scenes), HANDS))


def covered(table: Tensor, theta: Tensor, side: int = PATCHES * CELLS) -> Tensor:
    """How much of each cell the hands of `hand_table` cover, about: (B, HANDS, side, side) in [0, 1].

    `theta` (B, 2, 3) maps places of the picture as it is now to those before it was moved (`training.pictures`).
    """
    centre, tip, tail, half = table[..., 0:2], table[..., 2:4], table[..., 4:6], table[..., 6]
    # From the places of the picture as rendered, 0 to 1, to those after it was moved.
    scale, shift = theta[:, 0, 0], theta[:, :, 2]

    def moved(place: Tensor) -> Tensor:
        return ((2 * place - 1 - shift[:, None]) / scale[:, None, None] + 1) / 2

    start, end = moved(centre + tail), moved(centre + tip)
    cell = (torch.arange(side, device=table.device) + 0.5) / side
    places = torch.stack(torch.meshgrid(cell, cell, indexing="xy"), -1)
    along, away = (end - start)[:, :, None, None], places - start[:, :, None, None]
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp(min=1e-9)).clamp(0, 1)
    distance = (away - share[..., None] * along).square().sum(-1).sqrt()
    share = (1 - (distance - (half / scale[:, None])[..., None, None]) * side).clamp(0, 1)
    return share * (tip.abs().sum(-1) > 0)[..., None, None]


def in_patches(maps: Tensor) -> Tensor:
    """(B, H, 8·CELLS, 8·CELLS) -> (B, P, H * CELLS²) in the order of the tower's patches: squares of 2 x 2 in rows."""
    batch, hands, side, _ = maps.shape
    blocks = side // (2 * CELLS)
    split = maps.reshape(batch, hands, blocks, 2, CELLS, blocks, 2, CELLS)
    return split.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(batch, 4 * blocks**2, hands * CELLS**2)


class Pictured(NamedTuple):
    """A batch of pictures with what they show, as a worker makes it."""

    pixels: Tensor
    """8 bits, (B, 128, 128, 3)."""
    values: Tensor
    """(B, attributes): `labels` side by side."""
    hands: Tensor
    """(B, HANDS, 7): `hand_table`."""

    @classmethod
    def of(cls, scenes: list[clocks.Clock], pixels: Tensor) -> Pictured:
        """Clocks and their pictures."""
        return cls(pixels, torch.stack(list(labels(scenes).values()), 1), hand_table(scenes))

    def shown(self, generator: torch.Generator) -> tuple[Tensor, Truth]:
        """Images (B, 3, 128, 128) in [0, 1], moved with `generator` on its device, and what the heads should say."""
        pixels, values, hands = (part.to(generator.device, non_blocking=True) for part in self)
        images, theta = augment(to_images(pixels), generator)
        return images, Truth(values, in_patches(covered(hands, theta)))


class Truth(NamedTuple):
    """What the heads should say."""

    values: Tensor
    """(B, attributes)."""
    where: Tensor
    """(B, P, HANDS * CELLS²): how much of each cell each hand covers."""

    def only(self, rows: Tensor) -> Truth:
        """Of these pictures alone."""
        return Truth(self.values[rows], self.where[rows])


def see_loss(logits: dict[str, Tensor], where: Tensor, truth: Truth) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy of the attributes plus that of the hands' places, and the accuracies."""
    total, told = where.new_zeros((), dtype=torch.float32), {}
    columns = dict(zip(ATTRIBUTES, truth.values.unbind(1), strict=True))
    for name, found in logits.items():
        target, found = columns[name], found.float()
        said = found.detach().argmax(1)
        told[name] = (said == target).float().mean()
        if name in ROUND:
            count = found.shape[1]
            away = (torch.arange(count, device=found.device) - target[:, None] + count // 2) % count - count // 2
            total = total + F.cross_entropy(found, torch.softmax(-(away / ROUND[name]).square() / 2, 1))
        else:
            total = total + F.cross_entropy(found, target)
        if name == "minute":
            told["minute ±3"] = (((said - target + 30) % 60 - 30).abs() <= 3).float().mean()
    dense = F.binary_cross_entropy_with_logits(where.float(), truth.where)
    return total / len(logits) + 5 * dense, told | {"hands' places": dense.detach()}


def learn_to_see(
    vlm: VLM, folder: Path, length: Length, batch: int = 48, lr: float = 1.5e-3, workers: int = 0
) -> Sight:
    """Train the vision tower where it is for this `length`; goes on from a checkpoint in `folder`.

    No pictures: nothing is changed, whatever the folder holds.
    """
    sight = Sight(vlm).to(vlm.device)
    if not length.images:
        return sight
    run = Run(folder, nn.ModuleDict({"sight": sight}), optimizers(sight, lr), seed=1)
    batches = run.batches(partial(pictured, Source(), batch), workers)
    while (share := run.share(length)) < 1:
        generator = run.generator(vlm.device)
        sight.visual.train().requires_grad_(share >= HEADS_FIRST)
        images, truth = next(batches).shown(generator)
        if share >= HEADS_FIRST:
            images = attacked(images, partial(_firm_loss, sight, truth), generator)
        value, told = see_loss(*_seen(sight, images), truth)
        run.advance(value, batch, share)
        run.tell(50, loss=value.detach(), **told)
    run.save()
    run.averaged()
    return sight


def pictured(source: Source, batch: int, generator: torch.Generator) -> Pictured:
    """The batch of one step."""
    return Pictured.of(*source.batch(batch, generator))


def _firm_loss(sight: Sight, truth: Truth, images: Tensor) -> Tensor:
    """What an attack raises. It may not aim at what a small change truly changes."""
    logits, where = _seen(sight, images)
    return see_loss({name: found for name, found in logits.items() if name not in SLIGHT}, where, truth)[0]


def _seen(sight: Sight, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    with half_precision(images.device):
        _, logits, where = sight(images)
    return logits, where
