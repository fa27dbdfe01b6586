"""A batch in pieces: the same values and gradients, with the activations of one piece in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(function: Callable[..., Tensor], rows: int | None, *batches: Tensor) -> Tensor:
    """function(*batches), at most `rows` of the batch at a time; None for all at once, with all activations kept.

    Under grad mode each piece is recomputed in the backward pass, a single one too: so the activations of one piece of
    one function are all that is ever held, however many are called one after the other.
    """
    if rows is None:
        return function(*batches)
    return torch.cat(one_by_one(function, zip(*(batch.split(rows) for batch in batches), strict=True)))


def one_by_one(function: Callable[..., Tensor], calls: Iterable[tuple[Any, ...]]) -> list[Tensor]:
    """function(*arguments) for each of the calls; under grad mode each is recomputed in the backward pass."""
    if torch.is_grad_enabled():
        return [checkpoint(function, *arguments, use_reentrant=False) for arguments in calls]
    return [function(*arguments) for arguments in calls]
