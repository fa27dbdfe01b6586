"""Does a VLM judge better when it sees the image first, or when it reads the question first? Measured once a model.

python -m benchmarks.question_order [--vlm NAME_OR_FOLDER] [--clocks 40] [--record]

The labelled set are yes/no questions about rendered clocks that no training sees, as many true as false. Each is asked
by itself, in both orders, through the processor's own chat template and the stock preprocessing. `--record` writes the
model's row into `benchmarks/question_order.json`, one table for all models. The editor itself always puts the image
first; `rewards.prompt` says why.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from editor import images
from editor.hub import Hub
from editor.profiles import ASSETS, PROFILES, chosen_vlm
from editor.repos import Repo
from editor.types import EditError
from rewards.base import NO, YES
from rewards.vlm import VLM
from training.clock_world import CLOCKS
from training.world import TEST

TABLE = Path(__file__).with_suffix(".json")
FIRST = TEST + 700_000
"""Seed of the first clock, far from the benchmarks' own."""
TOO_LARGE = (
    "The GPU ran out of memory: close other programs on it or choose a smaller VLM; python -m benchmarks.gpu_smoke "
    "measures the same in 4 bits where its memory plan has them."
)
ORDERS = {"image first": ("image", "text"), "question first": ("text", "image")}


class Case(NamedTuple):
    """A picture (3, H, W) in [0, 1], a yes/no question about it, and whether yes is right."""

    image: Float[Tensor, "3 height width"]
    question: str
    holds: bool


def cases(clocks: int) -> Iterator[Case]:
    """For each clock one question that holds and one that doesn't, out of the world's own."""
    for seed in range(FIRST, FIRST + clocks):
        scene, rng = CLOCKS.sample(seed), Random(seed)
        picture, wanted = images.to_unit(CLOCKS.render(scene))[0], {YES, NO}
        while wanted:
            asked_of_it = CLOCKS.questions(scene, rng)
            rng.shuffle(asked_of_it)
            for asked in asked_of_it:
                if asked.answer in wanted:
                    wanted.remove(asked.answer)
                    yield Case(picture, asked.text, asked.answer == YES)


@torch.no_grad()
def log_odds(vlm: VLM, case: Case, order: Sequence[str]) -> float:
    """Log-odds of yes in nats, spellings pooled, from one prompt with its parts in this order."""
    parts = {"image": {"type": "image"}, "text": {"type": "text", "text": vlm.prompter.neutral(case.question)}}
    prompt = vlm.processor.apply_chat_template(
        [{"role": "user", "content": [parts[name] for name in order]}], add_generation_prompt=True, tokenize=False
    )
    inputs = vlm.processor(text=prompt, images=[case.image], do_rescale=False, return_tensors="pt").to(vlm.device)
    logits = vlm.model(**inputs, logits_to_keep=1).logits[0, -1].float()
    yes, no = (logits[vlm.prompter.spellings(word)].logsumexp(0) for word in (YES, NO))
    return float(yes - no)


def measure(vlm: VLM, labelled: Sequence[Case]) -> dict[str, dict[str, float]]:
    """For each order the share of right answers, and the share of (true, false) pairs that are ranked rightly."""
    found = {}
    for name, order in ORDERS.items():
        odds = [log_odds(vlm, case, order) for case in labelled]
        told = list(zip(odds, (case.holds for case in labelled), strict=True))
        true, false = ([o for o, holds in told if holds is held] for held in (True, False))
        right = sum((o > 0) == holds for o, holds in told)
        ranked = sum((a > b) + (a == b) / 2 for a in true for b in false)
        found[name] = {"accuracy": right / len(labelled), "ranking": ranked / (len(true) * len(false))}
    return found


def row(vlm: VLM, labelled: Sequence[Case]) -> dict[str, object]:
    """The model's row of the table; `better` is the order that ranks better, image first if they do equally well."""
    found = measure(vlm, labelled)
    better = max(ORDERS, key=lambda name: found[name]["ranking"])
    return {"questions": len(labelled), **found, "better": better}


def record(name: str, measured: dict[str, object], table: Path = TABLE) -> None:
    """Put a model's row into the table, in the place of an older one."""
    rows = json.loads(table.read_text()) if table.exists() else {}
    table.write_text(json.dumps(dict(sorted((rows | {name: measured}).items())), indent=1) + "\n")


def load(wanted: str | None, device: str) -> tuple[str, VLM]:
    """A VLM with its name: the studio's, or one of a folder or of the Hub's on this machine. Raises EditError."""
    if wanted is None:
        return "studio", VLM.load(ASSETS / str(PROFILES["studio"].vlm))
    found = chosen_vlm(wanted)
    folder = Hub().folder(found) if isinstance(found, Repo) else found
    return found.name, VLM.load(folder, device, torch.bfloat16 if device == "cuda" else torch.float32)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.question_order", description=__doc__.splitlines()[0])
    parser.add_argument("--vlm", metavar="NAME_OR_FOLDER", help="default: the studio's")
    parser.add_argument("--clocks", type=int, default=40, help="two questions about each")
    parser.add_argument("--record", action="store_true", help=f"write the row into {TABLE.name}")
    options = parser.parse_args(argv)
    try:
        name, vlm = load(options.vlm, "cuda" if torch.cuda.is_available() else "cpu")
        measured = row(vlm, list(cases(options.clocks)))
    except (EditError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print(TOO_LARGE, file=sys.stderr)
        return 2
    print(json.dumps({name: measured}, indent=1))
    if options.record:
        record(name, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
