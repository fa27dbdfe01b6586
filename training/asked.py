"""Questions as the text tower gets them, with what their losses need: made by the processes that make batches.

To split some thousand texts into tokens takes longer than a GPU's step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rewards.prompt import Packed, Question
from rewards.vlm import VLM, Features


class Asked(NamedTuple):
    """A row of questions with answers for each image."""

    packed: Packed
    positions: Tensor
    """(3, R, L): of every token in its conversation, as the text tower turns it."""
    weight: Tensor
    """(R, Q): one over the root of each answer's length; long answers count more, but not by length."""
    true: Tensor
    """(N, 2): row and place of every token before one of a question that is answered by yes."""
    counts: list[int]
    """Tokens of the answers in each row."""

    def to(self, device: torch.device) -> Asked:
        """The same on another device."""
        parts = (part.to(device, non_blocking=True) for part in (self.positions, self.weight, self.true))
        return Asked(self.packed.to(device), *parts, self.counts)

    def after(self, row: int) -> Asked:
        """The rows from this one on, for `likelihoods`; what is true in them is left out."""
        packed, answers = self.packed, self.packed.answers[sum(self.counts[:row]) :].clone()
        answers[:, 0] -= row
        rows = {name: getattr(packed, name)[row:] for name in ("ids", "offset", "segment", "ends")}
        packed = replace(packed, answers=answers, **rows)
        return Asked(packed, self.positions[:, row:], self.weight[row:], self.true[:0], self.counts[row:])

    def only(self, held: Tensor) -> Asked:
        """Those answers alone that are `held` (R, Q): the others weigh nothing."""
        return self._replace(weight=self.weight * held.to(self.weight.device))


def lay_out(vlm: VLM, grid: tuple[int, int, int], rows: Sequence[Sequence[Question]]) -> Asked:
    """Rows of equally many answered questions for images of this size in patches; on the CPU, without the weights."""
    packed, positions = vlm.arrange(grid, rows)
    lengths = torch.tensor([[1 + len(q.answer or "") / 4 for q in row] for row in rows])
    first = packed.image[1] + 1
    starts = packed.ends - (packed.offset.gather(1, packed.ends) - first)
    tail = len(vlm.prompter.split("?")[1]) - 1
    true = torch.tensor([[q.answer == "yes" for q in row] for row in rows])
    place = torch.arange(packed.ids.shape[1])
    said = (place >= starts[..., None]) & (place < packed.ends[..., None] - tail) & true[..., None]
    counts = packed.answers[:, 0].bincount(minlength=len(rows)).tolist()
    return Asked(packed, positions, lengths.rsqrt(), said.any(1).nonzero(), counts)


def likelihoods(vlm: VLM, seen: Features, asked: Asked) -> Tensor:
    """Log-likelihoods of the answers (B, Q)."""
    return vlm.log_likelihoods(_read(vlm, seen, asked), asked.packed, asked.weight.shape)


def likelihoods_and_truths(vlm: VLM, seen: Features, asked: Asked) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the answers (B, Q), and the mean nats a token of the questions that are answered by yes.

    A true statement is worth saying: the model that expects "red" after "Is the rim" needs only to compare it with
    the word that comes. Without this, yes and no stayed at chance for tens of thousands of pictures.
    """
    hidden, packed = _read(vlm, seen, asked), asked.packed
    image, at = asked.true.unbind(1)
    logits = vlm.model.lm_head(hidden[image, at]).float()
    return vlm.log_likelihoods(hidden, packed, asked.weight.shape), F.cross_entropy(logits, packed.ids[image, at + 1])


def nats(scores: Tensor, asked: Asked) -> Tensor:
    """Mean over answers of their nats over the root of their length, of log-likelihoods (B, Q)."""
    return -(scores * asked.weight).mean()


def _read(vlm: VLM, seen: Features, asked: Asked) -> Tensor:
    return vlm.read(seen, asked.packed, asked.positions, vlm.mask(asked.packed))
