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
from rewards.plan import parse
from training import clock_language as language
from training import clocks
from training.bent import bent
from training.climbs import look_climbs, time_climbs
from training.clocks import Clock
from training.finds import FOLDER, LOOKS, TIMELESS, Found, FoundLook, save
from training.labels import Dial, Look
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
"""Looks whose edits are labelled. Numerals and second hands are drawn too freely to tell by comparison."""


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


def labelled_looks(editor: Editor, seed: int, generator: torch.Generator) -> list[FoundLook | None]:
    """Landings of one clock that climb the reward of an edit of one look, with what `Look.label` finds."""
    clock, rng = clocks.sample(seed), Random(seed)
    wanted = language.request(clock, rng, CHANGES[seed % len(CHANGES)])
    look = Look(clock, wanted, editor.models.codec)
    return [look.label(picture) for picture in look_climbs(editor, clock, wanted, rng, generator)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in {**KINDS, "looks": "whose landings climb the reward of an edit of a look"}.items():
        parser.add_argument(f"--{name.replace('-', '')}", dest=name, type=int, default=0, help=f"clocks {what}")
    parser.add_argument("--first", type=int, default=0, help="first seed of the training's: one round, one number")
    parser.add_argument("--flow", type=Path, help="a FluxPipeline folder; the studio's own by default")
    parser.add_argument("--vlm", type=Path, help="a Qwen2.5-VL folder; the studio's own by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if not any(getattr(arguments, kind) for kind in (*KINDS, "looks")):
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
    looks = [f for seed in range(first, first + arguments.looks) for f in labelled_looks(studio, seed, drawn)]
    told = [f for f in looks if f is not None]
    if looks:
        done = sum(f.shown == f.asked for f in told)
        print(json.dumps({"kind": "looks", "pictures": len(looks), "labelled": len(told), "as asked": done}))
    if told:
        save(told, LOOKS / f"{arguments.first:08d}.npz")
