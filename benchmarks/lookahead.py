"""What each look-ahead tells of where the flow will land, on the studio's own map: `python -m benchmarks.lookahead`.

From clocks noised to times that edits visit, each look-ahead is compared with where many small jumps end: how far its
latents are off, whether the VLM reads the time there that it reads at the end, and whether the gradient of the same
reward in x_t points the same way.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.judge import minutes_off
from benchmarks.planning import minutes_of
from benchmarks.report import markdown
from editor import images
from editor.engine import Editor
from editor.flowmap import look_ahead
from editor.landing import differentiable, slope_of
from editor.runtime import prepare
from editor.types import FlowMap, Latents
from rewards.checks import CheckReward
from rewards.plan import parse
from training import clock_language as language
from training import clocks
from training.world import TEST

FIRST = TEST + 800_000
"""Seed of the first clock, far from the benchmarks' own."""
TIMES = (0.125, 0.27, 0.42, 0.56)
"""About those that an edit of the time visits."""
END = 16
"""Jumps of equal length to where the flow lands."""
KINDS = {
    "denoiser": ("denoiser", 1), "map, 1 jump": ("map", 1), "map, 2 jumps": ("map", 2), "map, 4 jumps": ("map", 4),
}  # fmt: skip
NEAR = 10
"""Minutes within which two readings are the same time."""

Look = Callable[[FlowMap, Latents], Latents]


def landed(editor: Editor, look: Look, flow: FlowMap, reward: CheckReward, x: Latents) -> tuple[Tensor, Tensor, str]:
    """Where one latent lands, the gradient of the reward there in x, and what the VLM answers to what time it is."""
    with differentiable(x):
        leaf = x.clone().requires_grad_()
        y = look(flow, leaf)
        image = editor.models.codec.decode(y)
        slope = slope_of(reward(image), leaf)
    with torch.no_grad():
        said = editor.models.vlm.answers(image.detach(), [language.ASK_TIME[0]], 12)[0]
    return y.detach(), slope, said


def compare(editor: Editor, t: float, count: int) -> dict[str, dict[str, float]]:
    """For each look-ahead from time t: error (rms, latents of deviation 1), share of equal readings, mean cosine."""
    rows: dict[str, list[tuple[float, bool, float]]] = {name: [] for name in KINDS}
    for seed in range(FIRST, FIRST + count):
        clock, generator = clocks.sample(seed), torch.Generator().manual_seed(seed)
        wanted = language.request(clock, Random(seed), "time")
        reward = CheckReward(editor.models.vlm, parse(wanted.reply).checks, 0, 0)
        flow = editor.models.condition(language.caption(clock))
        with torch.no_grad():
            clean = editor.models.codec.encode(images.to_unit(clocks.render(clock)))
        x = torch.randn(clean.shape, generator=generator).lerp(clean, t)
        end = landed(editor, partial(look_ahead, t=t, kind="map", steps=END), flow, reward, x)
        for name, (kind, steps) in KINDS.items():
            y, slope, said = landed(editor, partial(look_ahead, t=t, kind=kind, steps=steps), flow, reward, x)
            times = minutes_of(said), minutes_of(end[2])
            same = said == end[2] or (None not in times and minutes_off(*times) <= NEAR)
            error = float((y - end[0]).square().mean().sqrt())
            rows[name].append((error, same, float(F.cosine_similarity(slope.flatten(), end[1].flatten(), 0))))
    return {
        name: dict(zip(("error", "same time", "cosine"), map(statistics.mean, zip(*found, strict=True)), strict=True))
        for name, found in rows.items()
    }


def table(found: dict[float, dict[str, dict[str, float]]]) -> str:
    """Markdown: a row for each look-ahead, a column for each time."""
    body = [
        [name, *(f"{r[name]['error']:.2f} / {100 * r[name]['same time']:.0f} / {r[name]['cosine']:.2f}"
                 for r in found.values())]
        for name in KINDS
    ]  # fmt: skip
    return markdown(["error / same time, % / cosine", *(f"t = {t}" for t in found)], body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clocks", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    prepare()
    studio = Editor.load("studio")
    measured = {t: compare(studio, t, arguments.clocks) for t in TIMES}
    print(table(measured))
    if arguments.json:
        arguments.json.write_text(json.dumps({"clocks": arguments.clocks, "rows": measured}, indent=1) + "\n")
