"""A VLM that writes plans with low-rank changes of its own (LoRA, Hu et al., arXiv 2106.09685).

To plan is to read and write, and to judge is to withstand attacks: what a model learns for the one it loses for the
other. So a VLM's folder may hold an adapter of both its towers for its plans alone. What judges keeps its weights to
the last bit.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER = "planner"
"""Of a VLM's folder: where its adapter lies, and the adapter's name."""


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own modules over the same weights, so that an adapter of the one leaves the other alone."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def adapted(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """A frozen twin of a model with the adapter in a folder. Raises ValueError for one of another model."""
    found = twin(model)
    try:
        found.load_adapter(str(folder), adapter_name=FOLDER)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"The adapter in {folder} does not fit its VLM: fetch both again.") from error
    return found.eval().requires_grad_(False)
