"""Train the studio's VLM: `python -m training.train_vlm` (all stages; resumes by itself).

It learns to see (`training.see`), then to speak (`training.speak`), then to plan (`training.plan`). With two idle
cores, `torchrun --nproc-per-node 2 -m training.train_vlm --threads 1` trains with both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import Qwen2_5_VLProcessor

from editor.runtime import prepare
from rewards.vlm import VLM
from training.data import RUNS
from training.harness import join_others, rank
from training.plan import learn_to_plan
from training.see import learn_to_see
from training.speak import corpus, learn_to_speak
from training.vlm_folder import new_model, new_processor, new_tokenizer

FOLDER = RUNS / "vlm"


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
    parser.add_argument("--see", type=int, default=200_000, help="pictures of the first stage")
    parser.add_argument("--speak", type=int, default=100_000, help="pictures of the second stage")
    parser.add_argument("--plan", type=int, default=16_000, help="pictures of the third stage")
    parser.add_argument("--out", type=Path, default=FOLDER / "model")
    parser.add_argument("--init", type=Path, help="a trained folder to go on from, with its tokenizer")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    join_others()
    model = build() if arguments.init is None else VLM.load(arguments.init)
    sight = learn_to_see(model, FOLDER / "see", arguments.see)
    learn_to_speak(model, sight, FOLDER / "speak", arguments.speak)
    learn_to_plan(model, FOLDER / "plan", arguments.plan)
    if rank() == 0:
        save(model, arguments.out)
