"""Pictures that the search itself shows the VLM: `python -m training.found --lookaheads 1500 --attacks 60`.

Look-aheads of the flow map from noised latents at all times; what edits of the time end in when they chase the reward;
landings that climb it, which fool the VLM as edits do and are made in a fraction of their time; and clocks whose hands
are bent without any model (`training.bent`). Each is labelled by comparing it with renders of the same clock at other
times: no network and nothing of the benchmarks' judge takes part. A picture that matches none of them shows no time,
whatever the VLM thinks it shows.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from editor import images
from editor.adapters import LatentCodec
from editor.engine import EFFORTS, Editor
from editor.judge import Judge
from editor.landing import ascended
from editor.models import Hardware, Models, bundled
from editor.profiles import PROFILES
from editor.run import ASCENT
from editor.runtime import prepare
from editor.types import EditRequest
from rewards.plan import parse, worked_out
from rewards.vlm import Calls
from training import clock_language as language
from training import clocks
from training.bent import bent
from training.clocks import Clock
from training.finds import FOLDER, TIMELESS, Found, save
from training.world import TRAIN, Request

SURE, LOST, WRECKED = 0.35, 0.5, 0.7
"""Error of the nearest hands, as a share: below the first, their time is the picture's; above the next, none is."""
NEAR = 10
"""Minutes: bent hands this near to the time that was asked for may show it to a person, so nothing is said of them,
unless they are wrecked with no second hand to blame, which searches draw where they like."""
COPIES, CLIMBERS, BENT = 6, 8, 20
"""Look-aheads, landings that climb, and bent pairs of hands of each clock."""
KINDS = {
    "look-aheads": "whose look-aheads are taken",
    "attacks": "whose time is edited",
    "climbs": "whose landings climb the reward of an edit of the time",
    "bent": "whose hands are bent without a model",
}
"""Where pictures come from; each is a flag of the command, without its dash, for a number of clocks."""


class Dial:
    """One clock's hands at every time, to read a picture of it by comparison."""

    @torch.no_grad()
    def __init__(self, clock: Clock, codec: LatentCodec) -> None:
        self.clock, self.known = clock, {}
        side = (torch.arange(128) + 0.5) / 128
        self.inside = (side[None] - clock.x).square() + (side[:, None] - clock.y).square() < clock.dial**2
        bare = replace(clock, hour_hand=clocks.GONE, minute_hand=clocks.GONE, tail=0.0)
        self.bare = images.to_unit(clocks.render(bare))
        self.seen_bare = codec.render(codec.encode(self.bare.to(codec.vae.device))).cpu()

    def hands(self, minutes: int) -> Tensor:
        """What the hands change in the dial's pixels (P, 3), at so many minutes since twelve."""
        minutes %= 720
        if minutes not in self.known:
            shown = images.to_unit(clocks.render(language.with_time(self.clock, minutes)))
            self.known[minutes] = self._dial(shown - self.bare)
        return self.known[minutes]

    def read(self, picture: Tensor) -> tuple[int, float]:
        """Minutes since twelve of the hands nearest to those in a picture (3, 128, 128) in [0, 1], and how near.

        The second is the error's share of all that differs from a clock without hands: 0 is equal; two pairs of
        hands at half strength, or none, are near 1.
        """
        change = self._dial(picture[None] - self.seen_bare)

        def error(minutes: int) -> float:
            return float((self.hands(minutes) - change).square().mean())

        coarse = sorted(range(0, 720, 5), key=error)[:4]
        best = min((minutes + step for minutes in coarse for step in range(-2, 3)), key=error)
        return best % 720, error(best) / float(change.square().mean())

    def _dial(self, change: Tensor) -> Tensor:
        soft = F.avg_pool2d(change, 3, stride=1, padding=1)
        return soft[0].permute(1, 2, 0)[self.inside]


def label(dial: Dial, picture: Tensor, asked: int) -> Found | None:
    """What a picture of the dial's clock shows; None where that is open to doubt."""
    minutes, error = dial.read(picture)
    near = asked != TIMELESS and _apart(minutes, asked) <= NEAR
    lost = (WRECKED if not dial.clock.second_hand else math.inf) if near else LOST
    if SURE < error < lost:
        return None
    pixels = np.asarray(images.to_pil(picture[None]))
    return Found(pixels, dial.clock.seed, minutes if error <= SURE else TIMELESS, asked)


def _apart(a: int, b: int) -> int:
    """Minutes between two times of a clock's face."""
    return min((a - b) % 720, (b - a) % 720)


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
        shown = update.candidates if update.done else ()
        for picture in (*update.previews[:2], *(candidate.image for candidate in shown)):
            yield images.to_unit(picture)[0]


@torch.no_grad()
def climbs(editor: Editor, clock: Clock, wanted: Request, rng: Random, generator: torch.Generator) -> Iterator[Tensor]:
    """Where clocks at about the time asked for land, noised, after steps up the reward: each (3, 128, 128).

    They climb within the dial, twice, noised and drawn again after each climb, as a search from its own end is; some
    are shown before that.
    """
    models, plan, asked = editor.models, parse(worked_out(wanted.reply)), language.apply(clock, wanted).minutes
    square = images.to_unit(clocks.render(clock)).to(models.hardware.device)
    source = models.codec.encode(square)
    judge = Judge.of(models, plan, source, models.codec.render(source), None, EFFORTS["balanced"], Calls())
    judge.mask = _dial(clock, rng.uniform(0.75, 1.0), source)
    flow, begun = models.condition(plan.caption), source
    if rng.random() < 0.85:
        away = rng.choice((0, 0, 0, rng.randint(-20, 20), rng.choice((-60, 60)), rng.randint(0, 719)))
        near = images.to_unit(clocks.render(language.with_time(clock, (asked + away) % 720)))
        begun = models.codec.encode(near.to(source))

    def noised(clean: Tensor, t: float) -> Tensor:
        return torch.lerp(torch.randn(clean.shape, generator=generator).to(clean), clean, t)

    t = rng.uniform(0.2, 0.5)
    landed = flow(noised(begun.expand(CLIMBERS, -1, -1, -1), t), t, 1.0)
    for t in (rng.uniform(0.28, 0.42), rng.uniform(0.38, 0.6)):
        landed = ascended(judge, landed, rng.randint(3, 7), ASCENT)
        if rng.random() < 0.4:
            yield from judge.decoded(landed).cpu()
        half = (1 + t) / 2
        landed = flow(flow(noised(judge.within(landed), t), t, half), half, 1.0)
        yield from judge.decoded(landed).cpu()


def _dial(clock: Clock, share: float, latents: Tensor) -> Tensor:
    """The places (1, 1, h, w) of latents that a share of a clock's dial touches."""
    side = (torch.arange(128) + 0.5) / 128
    away = (side[None] - clock.x).square() + (side[:, None] - clock.y).square()
    inside = (away < (share * clock.dial) ** 2).float()[None, None]
    return F.adaptive_max_pool2d(inside, latents.shape[-2:]).to(latents)


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
    """The pictures of one clock of a kind of KINDS, each as `label` makes of it."""
    clock, rng = clocks.sample(seed), Random(seed)
    reader = Dial(clock, editor.models.codec)
    if kind == "look-aheads":
        return [label(reader, picture, TIMELESS) for picture in look_aheads(editor, clock, generator)]
    if kind == "bent":
        return [label(reader, picture, minutes) for picture, minutes in spoilt(editor, reader, rng, generator)]
    wanted = language.request(clock, rng, "time")
    shown = attack(editor, clock, wanted, seed) if kind == "attacks" else climbs(editor, clock, wanted, rng, generator)
    asked = language.apply(clock, wanted).minutes
    return [label(reader, picture, asked) for picture in shown]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in KINDS.items():
        parser.add_argument(f"--{name.replace('-', '')}", dest=name, type=int, default=0, help=f"clocks {what}")
    parser.add_argument("--first", type=int, default=0, help="first seed of the training's: one round, one number")
    parser.add_argument("--flow", type=Path, help="a FluxPipeline folder; the studio's own by default")
    parser.add_argument("--vlm", type=Path, help="a Qwen2.5-VL folder; the studio's own by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    if not any(getattr(arguments, kind) for kind in KINDS):
        parser.error("Say how many clocks, for instance --lookaheads 1500 or --climbs 200.")
    prepare(arguments.threads)
    own = bundled(PROFILES["studio"])
    place = replace(own, flow=arguments.flow or own.flow, vlm=arguments.vlm or own.vlm)
    hardware = Hardware(torch.device(arguments.device))
    studio = Editor(Models(replace(PROFILES["studio"], least_psnr=0.0), place, hardware))
    kept: list[Found] = []
    drawn = torch.Generator().manual_seed(arguments.first)
    for kind in KINDS:
        seeds = range(TRAIN + arguments.first, TRAIN + arguments.first + getattr(arguments, kind))
        pictures = [found for seed in seeds for found in labelled(studio, kind, seed, drawn)]
        sure = [f for f in pictures if f is not None]
        none = sum(f.minutes == TIMELESS for f in sure)
        print(json.dumps({"kind": kind, "pictures": len(pictures), "labelled": len(sure), "without a time": none}))
        kept += sure
    save(kept, FOLDER / f"{arguments.first:08d}.npz")
