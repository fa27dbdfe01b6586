"""What drafts by captions make of looks, each way of drawing them by itself: `python -m benchmarks.drafts [--edits N]`.

Edits of the tuning split with perfect plans, of looks and of several looks. Every draft is read by geometry as
ClockBench reads results (`benchmarks.judge`); which of them would suffice, and which comes first, the VLM says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import count as counting
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import flowedit
from benchmarks.cases import Case, make
from benchmarks.report import markdown
from benchmarks.trials import psnr, verdict
from benchmarks.tuning import studio
from editor import images
from editor.drafts import WAYS, Way, draft, drawn_again
from editor.engine import EFFORTS, Editor
from editor.focus import locate
from editor.judge import Judge
from editor.particles import checked, noise_in
from editor.runtime import prepare
from rewards.vlm import Calls
from training.world import TUNE

FIRST = 1300
"""Index in the tuning split of the first edit."""
KINDS: dict[str, tuple[Way, ...]] = {
    "FlowEdit": (flowedit.WAY,),
    "with fresh noise": WAYS[:1],
    "with the source's own": WAYS[1:],
}
"""Ways by themselves."""
TURNS, AGAIN, BOTH = "in turn", "these drawn again", "both"
"""The engine's ways in turn, the same drawn again, and both together, as a batch of the engine's is."""
SETTINGS = EFFORTS["fast"]


class Drafted(NamedTuple):
    """A draft, measured."""

    edit: int
    kind: str
    """A key of KINDS, TURNS or AGAIN."""
    right: bool
    moved: int
    """Attributes that should have stayed."""
    psnr: float
    """dB to the perfect answer."""
    suffices: bool
    """Whether the VLM is sure of it, so that the engine would not search."""
    reward: float


def looks(first: int = FIRST) -> Iterator[Case]:
    """The edits of looks and of several looks, in order."""
    every = (make(TUNE, index) for index in counting(first))
    return (case for case in every if case.changed and "time" not in case.changed)


@torch.no_grad()
def drafted(editor: Editor, case: Case, particles: int = SETTINGS.particles) -> Iterator[Drafted]:
    """So many drafts of each kind, held to where the edit acts as the engine's are."""
    models, plan, settings = editor.models, case.plan, SETTINGS.but(particles=particles, seed=case.index)
    source = editor.invert(case.image, settings.start, plan.source)
    judge = Judge.of(models, plan, source.square, source.latents, source.before, None, settings, Calls())
    flows = [models.condition(caption) for caption in (plan.caption, plan.source)]
    size = source.before.shape[-2:]
    with torch.enable_grad():
        focus, _ = locate(*flows, judge.asked, judge.decoded, source.latents, size, settings)
    judge.confine(focus, settings)
    own = noise_in(source.trip.x, source.latents, settings.start)
    count, jumps, shift = particles, settings.draft_jumps, models.shift
    made = {
        kind: draft(*flows, source.latents, own, count, jumps, settings.seed, shift, ways)[0]
        for kind, ways in (KINDS | {TURNS: WAYS}).items()
    }
    made[AGAIN] = drawn_again(flows[0], made[TURNS], settings.seed, shift)[0]
    for kind, edits in made.items():
        scored = checked(judge.drafted(edits), particles)
        for image, met, reward in zip(scored.images, scored.met.tolist(), scored.reward.tolist(), strict=True):
            shown = images.composite(case.image, source.before[0], image, source.placement).convert("RGB")
            found = verdict(case, shown, "")
            yield Drafted(case.index, kind, found["success_3"], len(found["moved"]), psnr(shown, case.answer), met,
                          reward)  # fmt: skip


def measured(found: Sequence[Drafted]) -> dict[str, dict[str, float]]:
    """For each kind: its drafts, and the first of each edit, which is one that suffices or else has most reward."""
    found, figures = [*found, *(one._replace(kind=BOTH) for one in found if one.kind in (TURNS, AGAIN))], {}
    for kind in dict.fromkeys(one.kind for one in found):
        own = [one for one in found if one.kind == kind]
        edits = {one.edit: [other for other in own if other.edit == one.edit] for one in own}
        first = [max(drafts, key=lambda one: (one.suffices, one.reward)) for drafts in edits.values()]
        enough = [one for one in first if one.suffices]
        figures[kind] = {
            "made": len(own), "right, %": 100 * sum(one.right for one in own) / len(own),
            "moved": sum(one.moved for one in own) / len(own), "PSNR, dB": sum(one.psnr for one in own) / len(own),
            "edits": len(edits), "first right": sum(one.right for one in first),
            "with one that suffices": len(enough), "of these right": sum(one.right for one in enough),
            "moved in these": sum(one.moved for one in enough),
        }  # fmt: skip
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--first", type=int, default=FIRST, help="index in the tuning split of the first edit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    editor = studio(None)
    figures = measured([one for case in islice(looks(chosen.first), chosen.edits) for one in drafted(editor, case)])
    body = [[kind, *(f"{value:.3g}" for value in row.values())] for kind, row in figures.items()]
    print(markdown(["drafts", *next(iter(figures.values()))], body))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
