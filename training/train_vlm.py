"""Train the studio's VLM: `python -m training.train_vlm` (all stages; resumes by itself).

It learns to see (`training.see`), then to speak (`training.speak`), then, for as long as `--withstand` says, not to be
fooled by searches (`training.withstand`), then to plan (`training.plan`). With two idle cores,
`torchrun --nproc-per-node 2 -m training.train_vlm --threads 1` trains with both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import Qwen2_5_VLProcessor

from editor.runtime import prepare
from rewards import planner
from rewards.vlm import VLM
from training.data import RUNS
from training.harness import Length, add_machine, join_others, rank
from training.plan import learn_to_plan
from training.see import learn_to_see
from training.speak import corpus, learn_to_speak, remember_texts
from training.vlm_folder import new_model, new_processor, new_tokenizer
from training.withstand import learn_to_withstand

FOLDER = RUNS / "vlm"


def build(folder: Path = FOLDER, device: str = "cpu") -> VLM:
    """A new model. Its tokenizer is learned once and kept beside the checkpoints: weights mean nothing without it."""
    torch.manual_seed(0)
    kept = folder / "processor"
    if not kept.exists():
        new_processor(new_tokenizer(corpus(), vocab_size=1024)).save_pretrained(kept)
    processor = Qwen2_5_VLProcessor.from_pretrained(kept)
    return VLM(new_model(processor.tokenizer).to(device), processor, frozen=False)


def save(vlm: VLM, folder: Path) -> None:
    """Write the model in bfloat16, its processor, and the adapter for plans where there is one."""
    vlm.model.to(torch.bfloat16).save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    if vlm.planner is not vlm:
        vlm.planner.model.to(torch.bfloat16).save_pretrained(folder / planner.FOLDER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER / "model")
    parser.add_argument("--init", type=Path, help="a trained folder to go on from, with its tokenizer")
    stages = (("see", 200_000, 48, 1.5e-3), ("speak", 100_000, 24, 1.2e-3), ("withstand", 0, 24, 5e-4),
              ("plan", 30_000, 24, 2e-3))  # fmt: skip
    for stage, pictures, batch, lr in stages:
        parser.add_argument(
            f"--{stage}", type=Length.parse, default=Length(pictures), help="pictures, or minutes as in 15m; 0: none"
        )
        parser.add_argument(f"--{stage}-batch", type=int, default=batch, help="pictures of a step")
        parser.add_argument(f"--{stage}-lr", type=float, default=lr, help="highest rate of learning")
    add_machine(parser)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    join_others()
    device, workers = arguments.device, arguments.workers
    model = build(device=device) if arguments.init is None else VLM.load(arguments.init, device)
    remember_texts(model)
    sight = learn_to_see(model, FOLDER / "see", arguments.see, arguments.see_batch, arguments.see_lr, workers)
    learn_to_speak(model, sight, FOLDER / "speak", arguments.speak, arguments.speak_batch, arguments.speak_lr, workers)
    length, size, lr = arguments.withstand, arguments.withstand_batch, arguments.withstand_lr
    learn_to_withstand(model, FOLDER / "withstand", length, size, lr, workers)
    learn_to_plan(model, FOLDER / "plan", arguments.plan, arguments.plan_batch, arguments.plan_lr, workers)
    if rank() == 0:
        save(model, arguments.out)
