"""A text tower that writes plans with low-rank changes of its own (LoRA, Hu et al., arXiv 2106.09685).

To plan is to write, and to judge is to withstand attacks: what a tower learns for the one it loses for the other. So a
VLM's folder may hold an adapter for its plans alone. The tower that judges keeps its weights to the last bit.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER = "planner"
"""Of a VLM's folder: where its adapter lies, and the adapter's name."""


def twin(text: PreTrainedModel) -> PreTrainedModel:
    """A text tower of its own modules over the same weights, so that an adapter of the one leaves the other alone."""
    shared = {id(tensor): tensor for tensor in (*text.parameters(), *text.buffers())}
    return copy.deepcopy(text, shared)


def adapted(text: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A frozen twin of a text tower with the adapter in a folder. Raises ValueError for one of another tower."""
    found = twin(text)
    try:
        found.load_adapter(str(folder), adapter_name=FOLDER)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"The adapter in {folder} does not fit its VLM: fetch both again.") from error
    return found.eval().requires_grad_(False)
