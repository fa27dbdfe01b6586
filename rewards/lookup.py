"""What is likely to be written next: what followed the same words before.

Prompt lookup decoding, a speculative decoding (Leviathan et al., arXiv 2211.17192) whose guesses no model makes: what
writes checks all of them in one pass, and goes on from the first that it would not have written. So a guess may save
passes, and changes no text but where rounding decides between two words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

RUN = 4
"""Tokens of the longest run that is looked for."""
GUESSED = 12
"""Tokens of one guess at most."""


def guessed(tokens: Sequence[int], most: int) -> list[int]:
    """Up to `most` tokens, GUESSED at most, that are likely to follow these.

    They followed the last tokens where these stood before, the longest run of up to RUN of them, and where that stood
    several times the last time. None where not even the last token stood before.
    """
    for run in range(min(RUN, len(tokens) - 1), 0, -1):
        last = list(tokens[-run:])
        for start in range(len(tokens) - run - 1, -1, -1):
            if list(tokens[start : start + run]) == last:
                return list(tokens[start + run : start + run + min(most, GUESSED)])
    return []


def agreed(guess: Int[Tensor, "1 guessed"], found: Int[Tensor, "1 found"]) -> int:
    """How many of the first guesses are what was found in their places."""
    return int((guess == found[:, : guess.shape[1]])[0].int().cumprod(0).sum())


def causal(mask: Tensor, read: int) -> Tensor:
    """The additive mask (B, 1, 1, length) of one token for so many that are read after it, (B, 1, read, length + read).

    Each of them sees those before it as well.
    """
    wide = torch.nn.functional.pad(mask, (0, read)).repeat(1, 1, read, 1)
    later = torch.ones(read, read, dtype=torch.bool, device=mask.device).triu(1)
    wide[..., -read:].masked_fill_(later, torch.finfo(mask.dtype).min)
    return wide
