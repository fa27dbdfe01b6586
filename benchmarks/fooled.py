"""How easily a judge is fooled by what climbs it: `python -m benchmarks.fooled [--clocks N] [--vlm FOLDER]`.

Landings of unseen clocks climb the reward of an edit of the time and of one of a look, as a training's do
(`training.climbs`). Each is labelled by comparison with renders (`training.labels`), with no network and nothing that
the reward is made of. A search takes what the judge is sure of: the more of that is right, and the more there is of
it, the better the judge. A clock is some 45 pictures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.report import markdown
from benchmarks.tuning import studio
from editor.engine import EFFORTS, Editor
from editor.judge import SUFFICES, ask_vlm
from editor.runtime import prepare
from rewards.plan import parse, worked_out
from rewards.vlm import Calls
from training import clock_language as language
from training import clocks
from training.climbs import look_climbs, time_climbs
from training.found import CHANGES
from training.labels import Dial, Look
from training.world import TUNE, Request

FIRST = TUNE + 5000
WITHIN, BATCH = 3, 8
"""Minutes that a time may be off, and pictures that the judge sees at once."""
SURE = {"time": EFFORTS["balanced"].sure, "look": SUFFICES}
"""Probability from which on the engine takes a result for done: at the end of a search, and of a draft."""


class Climbed(NamedTuple):
    """A picture that climbed."""

    kind: str
    """'time' or 'look'."""
    least: float
    """Of the judge's probabilities of what was asked."""
    right: bool | None
    """Whether it shows that; None where comparison leaves it open."""


def climbed(editor: Editor, seed: int) -> Iterator[Climbed]:
    """What climbs of one clock, to another time and to another look."""
    clock, rng, generator = clocks.sample(seed), Random(seed), torch.Generator().manual_seed(seed)
    wanted = language.request(clock, rng, "time")
    asked, dial = language.apply(clock, wanted).minutes, Dial(clock, editor.models.codec)
    for picture, least in _judged(editor, wanted, list(time_climbs(editor, clock, wanted, rng, generator))):
        found = dial.label(picture, asked)
        right = None if found is None else found.minutes >= 0 and (found.minutes - asked + WITHIN) % 720 <= 2 * WITHIN
        yield Climbed("time", least, right)
    wanted = language.request(clock, rng, CHANGES[seed % len(CHANGES)])
    look = Look(clock, wanted, editor.models.codec)
    for picture, least in _judged(editor, wanted, list(look_climbs(editor, clock, wanted, rng, generator))):
        found = look.label(picture)
        yield Climbed("look", least, None if found is None else found.shown == found.asked)


@torch.no_grad()
def _judged(editor: Editor, wanted: Request, pictures: list[Tensor]) -> Iterator[tuple[Tensor, float]]:
    """Pictures (3, 128, 128), each with the least of the probabilities of what was asked."""
    plan = parse(worked_out(wanted.reply))
    judge = ask_vlm(editor.models, plan, EFFORTS["balanced"], Calls())
    for batch in torch.stack(pictures).to(editor.models.hardware.device).split(BATCH):
        asked = judge.evaluate(batch).probabilities[:, : len(plan.checks)]
        yield from zip(batch.cpu(), asked.amin(1).tolist(), strict=True)


def measured(found: Sequence[Climbed]) -> dict[str, dict[str, int]]:
    """For each kind, how many pictures there are, and of how many the judge is sure, by what they are."""
    figures = {}
    for kind, sure in SURE.items():
        own = [one for one in found if one.kind == kind]
        taken = [one.right for one in own if one.least > sure]
        named = {"right": taken.count(True), "wrong": taken.count(False), "open": taken.count(None)}
        figures[kind] = {"pictures": len(own), "as asked": sum(one.right is True for one in own), "sure": len(taken)}
        figures[kind] |= named
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clocks", type=int, default=24)
    parser.add_argument("--vlm", type=Path, help="a folder in place of the studio's own judge")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    editor = studio(chosen.vlm)
    figures = measured([one for seed in range(FIRST, FIRST + chosen.clocks) for one in climbed(editor, seed)])
    body = [[kind, *map(str, row.values())] for kind, row in figures.items()]
    print(markdown(["climbing to another", *next(iter(figures.values()))], body))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
