"""A batch in pieces: the same values and gradients, with the activations of one piece in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(function: Callable[..., Tensor], rows: int | None, *batches: Tensor) -> Tensor:
    """function(*batches), at most `rows` of the batch at a time; None for all at once.

    Under grad mode each piece is recomputed in the backward pass, so that the activations of one are all that is ever
    held.
    """
    if rows is None or len(batches[0]) <= rows:
        return function(*batches)
    return torch.cat(one_by_one(function, zip(*(batch.split(rows) for batch in batches), strict=True)))


def one_by_one(function: Callable[..., Tensor], calls: Iterable[tuple[Any, ...]]) -> list[Tensor]:
    """function(*arguments) for each of the calls; under grad mode each is recomputed in the backward pass."""
    if torch.is_grad_enabled():
        return [checkpoint(function, *arguments, use_reentrant=False) for arguments in calls]
    return [function(*arguments) for arguments in calls]
