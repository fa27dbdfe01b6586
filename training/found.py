"""Pictures that the search itself shows the VLM: `python -m training.found --lookaheads 1500 --attacks 60`.

Look-aheads of the flow map from noised latents at all times; what edits of the time end in when they chase the reward;
landings that climb it (`training.climbs`), in edits of the time and of looks; and clocks whose hands are bent without
any model (`training.bent`). Each is labelled by comparing it with renders (`training.labels`): no network and nothing
of the benchmarks' judge takes part. A picture that matches none of them shows none of it, whatever the VLM thinks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from editor import images
from editor.engine import EFFORTS, Editor
from editor.models import Hardware, Models, bundled
from editor.profiles import PROFILES
from editor.runtime import prepare
from editor.types import EditRequest
from rewards.plan import parse, worked_out
from training import clock_language as language
from training import clocks
from training.bent import bent
from training.climbs import look_climbs, time_climbs
from training.clocks import Clock
from training.finds import FOLDER, LOOKS, TIMELESS, Found, FoundLook, save
from training.labels import Dial, Look, Sweep
from training.world import TRAIN, Request

COPIES, BENT = 6, 20
"""Look-aheads and bent pairs of hands of each clock."""
KINDS = {
    "look-aheads": "whose look-aheads are taken",
    "attacks": "whose time is edited",
    "climbs": "whose landings climb the reward of an edit of the time",
    "bent": "whose hands are bent without a model",
}
"""Where pictures come from that are labelled with a time; each is a flag of the command, without its dash, for a number
of clocks."""
CHANGES = (*language.PARTS, "shape")
"""Looks whose edits are labelled by comparison. Numerals are drawn too freely to tell; so are second hands, which are
told by a line (`training.labels.Sweep`)."""
LOOK_KINDS = {
    "looks": "whose landings climb the reward of an edit of a look",
    "drafts": "whose drafts of a look are taken, of every other one of a second hand",
}
"""The same of pictures that are labelled with a look."""


@torch.no_grad()
def look_aheads(editor: Editor, clock: Clock, generator: torch.Generator) -> Tensor:
    """COPIES images (COPIES, 3, 128, 128) of where the noised latent of a clock lands, from times over [0.35, 0.95]."""
    device = editor.models.hardware.device
    latent = editor.models.codec.encode(images.to_unit(clocks.render(clock)).to(device))
    flow = editor.models.condition(language.caption(clock))
    times = (0.35 + 0.6 * torch.rand(COPIES, generator=generator)).to(device)
    noise = torch.randn(COPIES, *latent.shape[1:], generator=generator).to(latent)
    noised = torch.lerp(noise, latent, times[:, None, None, None])
    return editor.models.codec.decode(flow(noised, times, torch.ones_like(times))).cpu()


def attack(editor: Editor, clock: Clock, wanted: Request, seed: int) -> Iterator[Tensor]:
    """What an edit of the time shows on its way and in the end, each (3, 128, 128)."""
    settings = EFFORTS["fast"].but(seed=seed)
    request = EditRequest(
        image=clocks.render(clock), instruction=wanted.instruction, plan=parse(wanted.reply), settings=settings
    )
    for update in editor.edit(request):
        shown = update.whole().candidates if update.done else ()
        for picture in (*update.previews[:2], *(candidate.image for candidate in shown)):
            yield images.to_unit(picture)[0]


@torch.no_grad()
def spoilt(editor: Editor, dial: Dial, rng: Random, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """Clocks with bent hands, each (3, 128, 128), and what time they had; two of three seen through the autoencoder."""
    codec = editor.models.codec
    for index in range(BENT):
        picture, minutes = bent(dial.clock, dial.bare, rng, generator)
        if index % 3:
            picture = codec.render(codec.encode(picture.to(codec.vae.device))).cpu()
        yield picture[0], minutes


def labelled(editor: Editor, kind: str, seed: int, generator: torch.Generator) -> list[Found | None]:
    """The pictures of one clock of a kind of KINDS, each with the time that `Dial.label` finds."""
    clock, rng = clocks.sample(seed), Random(seed)
    dial = Dial(clock, editor.models.codec)
    if kind == "look-aheads":
        return [dial.label(picture, TIMELESS) for picture in look_aheads(editor, clock, generator)]
    if kind == "bent":
        return [dial.label(picture, minutes) for picture, minutes in spoilt(editor, dial, rng, generator)]
    wanted = language.request(clock, rng, "time")
    climbing = kind == "climbs"
    shown = time_climbs(editor, clock, wanted, rng, generator) if climbing else attack(editor, clock, wanted, seed)
    asked = language.apply(clock, wanted).minutes
    return [dial.label(picture, asked) for picture in shown]


def labelled_looks(editor: Editor, kind: str, seed: int, generator: torch.Generator) -> list[FoundLook | None]:
    """The pictures of one clock of a kind of LOOK_KINDS, each with the look that is found."""
    clock, rng = clocks.sample(seed), Random(seed)
    swept = kind == "drafts" and not clock.second_hand
    wanted = language.request(clock, rng, "second hand" if swept else CHANGES[seed % len(CHANGES)])
    label = Sweep(clock).label if swept else Look(clock, wanted, editor.models.codec).label
    climbing = kind == "looks"
    shown = look_climbs(editor, clock, wanted, rng, generator) if climbing else drafted(editor, clock, wanted, seed)
    return [label(picture) for picture in shown]


def drafted(editor: Editor, clock: Clock, wanted: Request, seed: int) -> Iterator[Tensor]:
    """What captions alone make of an edit of a look, each (3, 128, 128); nothing where they don't tell of it."""
    settings = EFFORTS["fast"].but(seed=seed)
    plan = parse(worked_out(wanted.reply))
    request = EditRequest(image=clocks.render(clock), instruction=wanted.instruction, plan=plan, settings=settings)
    for update in editor.edit(request):
        if update.stage in ("search", "done") and not update.drafted:
            return
        if update.stage == "search":
            yield from (images.to_unit(picture)[0] for picture in update.previews)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in {**KINDS, **LOOK_KINDS}.items():
        parser.add_argument(f"--{name.replace('-', '')}", dest=name, type=int, default=0, help=f"clocks {what}")
    parser.add_argument("--first", type=int, default=0, help="first seed of the training's: one round, one number")
    parser.add_argument("--flow", type=Path, help="a FluxPipeline folder; the studio's own by default")
    parser.add_argument("--vlm", type=Path, help="a Qwen2.5-VL folder; the studio's own by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if not any(getattr(arguments, kind) for kind in (*KINDS, *LOOK_KINDS)):
        parser.error("Say how many clocks, for instance --lookaheads 1500 or --climbs 200.")
    prepare(arguments.threads)
    own = bundled(PROFILES["studio"])
    place = replace(own, flow=arguments.flow or own.flow, vlm=arguments.vlm or own.vlm)
    hardware = Hardware(torch.device(arguments.device))
    studio = Editor(Models(replace(PROFILES["studio"], least_psnr=0.0), place, hardware))
    drawn, first = torch.Generator().manual_seed(arguments.first), TRAIN + arguments.first
    kept: list[Found] = []
    for kind in KINDS:
        seeds = range(first, first + getattr(arguments, kind))
        pictures = [found for seed in seeds for found in labelled(studio, kind, seed, drawn)]
        sure = [f for f in pictures if f is not None]
        none = sum(f.minutes == TIMELESS for f in sure)
        if pictures:
            print(json.dumps({"kind": kind, "pictures": len(pictures), "labelled": len(sure), "without a time": none}))
        kept += sure
    if kept:
        save(kept, FOLDER / f"{arguments.first:08d}.npz")
    looks: list[FoundLook] = []
    for kind in LOOK_KINDS:
        seeds = range(first, first + getattr(arguments, kind))
        shown = [found for seed in seeds for found in labelled_looks(studio, kind, seed, drawn)]
        told = [f for f in shown if f is not None]
        done = sum(f.shown == f.asked for f in told)
        if shown:
            print(json.dumps({"kind": kind, "pictures": len(shown), "labelled": len(told), "as asked": done}))
        looks += told
    if looks:
        save(looks, LOOKS / f"{arguments.first:08d}.npz")
