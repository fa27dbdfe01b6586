"""The mean of two judges that grew from one: `python -m training.average OTHER --init FOLDER --out FOLDER`.

Rewards that learned apart err apart, and the mean of their weights costs no more to ask than one of them (WARM, Ramé
et al., arXiv 2401.12187); `benchmarks.fooled` tells whether it is the better judge. OTHER is a VLM's folder, or any
with its `model.safetensors`; plans stay those of the VLM in --init.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from rewards.vlm import VLM
from training.lora import adapter_rank, plan_as, planning_weights
from training.train_vlm import save

WEIGHTS = "model.safetensors"


@torch.no_grad()
def average(vlm: VLM, other: Mapping[str, Tensor], share: float = 0.5) -> None:
    """Go a share of the way from a VLM's weights to others, named as its checkpoint names them; its plans stay.

    The adapter that writes them keeps its rank. Raises ValueError where the others are of another model.
    """
    wanted, rank = planning_weights(vlm), adapter_rank(vlm.planner.model)
    own = dict(vlm.model.named_parameters())
    theirs = {_own_name(name): value for name, value in other.items()}
    if {name: p.shape for name, p in own.items()} != {name: value.shape for name, value in theirs.items()}:
        raise ValueError("The two VLMs are not of one kind: average rounds of the same training.")
    for name, parameter in own.items():
        parameter.lerp_(theirs[name].to(parameter), share)
    if wanted:
        plan_as(vlm, wanted, rank)


def _own_name(name: str) -> str:
    """The name that a checkpoint's tensor has in transformers' model."""
    tower = "model.visual." if name.startswith("visual.") else "model.language_model."
    return tower + name.removeprefix("visual.").removeprefix("model.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the other in the mean")
    parser.add_argument("--init", type=Path, required=True, help="a VLM's folder")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    studio = VLM.load(arguments.init)
    average(studio, load_file(arguments.other / WEIGHTS), arguments.share)
    save(studio, arguments.out)
