"""Pictures that the search itself shows the VLM: `python -m training.found --lookaheads 1500 --attacks 60`.

Look-aheads of the flow map from noised latents at all times, and what edits of the time end in when they chase the
reward. Each is labelled by comparing it with renders of the same clock at other times: no network and nothing of the
benchmarks' judge takes part. A picture that matches none of them shows no time, whatever the VLM thinks it shows.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator
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
from editor.models import Hardware, Models, bundled
from editor.profiles import PROFILES
from editor.runtime import prepare
from editor.types import EditRequest
from rewards.plan import parse
from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.finds import FOLDER, TIMELESS, Found, save
from training.world import TRAIN, Request

SURE, LOST, WRECKED = 0.35, 0.5, 0.7
"""Error of the nearest hands, as a share: below the first, their time is the picture's; above the next, none is."""
NEAR = 10
"""Minutes: bent hands this near to the time that was asked for may show it to a person, so nothing is said of them,
unless they are wrecked with no second hand to blame, which searches draw where they like."""
COPIES = 6
"""Look-aheads of each clock."""


class Dial:
    """One clock's hands at every time, to read a picture of it by comparison."""

    @torch.no_grad()
    def __init__(self, clock: Clock, codec: LatentCodec) -> None:
        self.clock, self.known = clock, {}
        side = (torch.arange(128) + 0.5) / 128
        self.inside = (side[None] - clock.x).square() + (side[:, None] - clock.y).square() < clock.dial**2
        bare = replace(clock, hour_hand=(0.01, 0.01), minute_hand=(0.01, 0.01), tail=0.0)
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lookaheads", type=int, default=1500, help="clocks whose look-aheads are taken")
    parser.add_argument("--attacks", type=int, default=60, help="edits of the time")
    parser.add_argument("--first", type=int, default=0, help="first seed of the training's: one round, one number")
    parser.add_argument("--flow", type=Path, help="a FluxPipeline folder; the studio's own by default")
    parser.add_argument("--vlm", type=Path, help="a Qwen2.5-VL folder; the studio's own by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    prepare(arguments.threads)
    own = bundled(PROFILES["studio"])
    place = replace(own, flow=arguments.flow or own.flow, vlm=arguments.vlm or own.vlm)
    hardware = Hardware(torch.device(arguments.device))
    studio = Editor(Models(replace(PROFILES["studio"], least_psnr=0.0), place, hardware))
    kept: list[Found] = []
    drawn = torch.Generator().manual_seed(arguments.first)
    for kind, count in (("look-aheads", arguments.lookaheads), ("attacks", arguments.attacks)):
        labelled: list[Found | None] = []
        for seed in range(TRAIN + arguments.first, TRAIN + arguments.first + count):
            scene = clocks.sample(seed)
            reader, asked = Dial(scene, studio.models.codec), TIMELESS
            if kind == "look-aheads":
                pictures: Iterable[Tensor] = look_aheads(studio, scene, drawn)
            else:
                wanted = language.request(scene, Random(seed), "time")
                pictures, asked = attack(studio, scene, wanted, seed), language.apply(scene, wanted).minutes
            labelled += [label(reader, picture, asked) for picture in pictures]
        sure = [f for f in labelled if f is not None]
        none = sum(f.minutes == TIMELESS for f in sure)
        print(json.dumps({"kind": kind, "pictures": len(labelled), "labelled": len(sure), "without a time": none}))
        kept += sure
    save(kept, FOLDER / f"{arguments.first:08d}.npz")
