"""How good the studio's parts are on clocks that nothing has seen: `python -m benchmarks.studio [--quick] --json OUT`.

Autoencoder, inversion, flow map, VLM and plans each against the truth of the renderer; edits read by geometry
(`benchmarks.judge`), beside best of N with as many network evaluations. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import torch

from benchmarks.judge import minutes_off, read
from benchmarks.planning import alone, elsewhere, minutes_of, plans, refusals
from editor import images
from editor.baselines import planned_nfe
from editor.engine import EFFORTS, Editor
from editor.runtime import prepare
from editor.types import EditError, EditRequest, FlowMap, Latents, SearchSettings
from rewards.plan import parse
from rewards.prompt import Question
from training import clock_language as language
from training import clocks
from training.world import TEST

FIRST = TEST + 100_000
"""Seeds of this measurement, away from those of the tests."""
EDITED = TEST + 200_000
BATCH = 25
ASKED, JUDGED = 400, 2000
"""Clocks that the VLM is asked open questions about, and those that it answers yes or no about and plans for: of 400,
half a percent more or less than 99 is chance."""


def scenes(count: int, first: int = FIRST) -> list[clocks.Clock]:
    return [clocks.sample(first + i) for i in range(count)]


def squares(shown: list[clocks.Clock]) -> torch.Tensor:
    return torch.cat([images.to_unit(clocks.render(clock)) for clock in shown])


def parts(values: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from values.split(BATCH)


@torch.no_grad()
def autoencoder(editor: Editor, count: int) -> dict[str, float]:
    """Mean PSNR in dB of the reconstruction."""
    codec, seen = editor.models.codec, squares(scenes(count))
    back = torch.cat([codec.render(codec.encode(part)) for part in parts(seen)])
    return {"psnr": statistics.mean(images.psnr(a, b) for a, b in zip(back, seen, strict=True))}


def inversion(editor: Editor, count: int) -> dict[str, float]:
    """PSNR in dB of the round trip against the autoencoder's own reconstruction, at the balanced strength."""
    shown, start = scenes(count), EFFORTS["balanced"].start
    found = [editor.invert(clocks.render(c), start, language.caption(c)).inversion_psnr for c in shown]
    return {"t0": start, "mean": statistics.mean(found), "least": min(found)}


@torch.no_grad()
def flow_map(editor: Editor, count: int) -> dict[str, float]:
    """Root mean square errors in latents of deviation 1: the semigroup law, and k steps against 50, from t = 0.2."""
    shown, generator, start = scenes(count), torch.Generator().manual_seed(0), 0.2
    latents = editor.models.codec.encode(squares(shown))
    x = (1 - start) * torch.randn(latents.shape, generator=generator) + start * latents
    flows = [editor.models.condition(language.caption(c)) for c in shown]

    def carried(grid: list[float]) -> Latents:
        return torch.cat([_along(flow, x[i : i + 1], grid) for i, flow in enumerate(flows)])

    def even(steps: int) -> list[float]:
        return [start + (1 - start) * k / steps for k in range(steps + 1)]

    fine = carried(even(50))
    found = {f"{k} steps against 50": _rms(carried(even(k)), fine) for k in (1, 2, 4)}
    return found | {"semigroup, 0.2 to 0.6 over 0.4": _rms(carried([0.2, 0.4, 0.6]), carried([0.2, 0.6]))}


@torch.no_grad()
def drawn(editor: Editor, count: int) -> dict[str, float]:
    """Share of the pictures that the flow map alone draws, in steps of 0.05, whose hands geometry can read.

    From noise, and from clocks so far back to it; with no reward, so that a search is not to blame for what is missing.
    """
    shown, generator = scenes(count), torch.Generator().manual_seed(0)
    latents = editor.models.codec.encode(squares(shown))
    noise, found = torch.randn(latents.shape, generator=generator), {}
    for start in (0.0, 0.125, 0.3, 0.6):
        grid = torch.linspace(start, 1, round(20 * (1 - start)) + 1, dtype=torch.float64).tolist()
        readable = 0
        for clock, clean, rough in zip(shown, latents.split(1), noise.split(1), strict=True):
            x = _along(editor.models.condition(language.caption(clock)), rough.lerp(clean, start), grid)
            picture = images.to_pil(editor.models.codec.render(x))
            readable += read(picture, clock).time is not None
        found[f"from t = {start}"] = readable / count
    return found


def _along(flow: FlowMap, x: Latents, grid: list[float]) -> Latents:
    for s, t in pairwise(grid):
        x = flow(x, s, t)
    return x


def _rms(a: Latents, b: Latents) -> float:
    return float((a - b).square().mean().sqrt())


@torch.no_grad()
def told(editor: Editor, count: int) -> dict[str, float]:
    """Share of right answers to open questions about every attribute that has one."""
    judge, shown = editor.models.vlm, scenes(count)
    seen, found = squares(shown), {}
    for attribute in ("time", *(a for a in language.ATTRIBUTES if a != "second hand")):
        question = language.open_questions(attribute)[0]
        said = [a for part in parts(seen) for a in judge.answers(part, [question] * len(part), 12)]
        if attribute == "time":
            off = [minutes_off(minutes_of(a), c.minutes) for a, c in zip(said, shown, strict=True)]
            found |= {f"time within {m} min": sum(d <= m for d in off) / count for m in (0, 3, 10)}
        else:
            right = [a == language.value(c, attribute) for a, c in zip(said, shown, strict=True)]
            found[attribute] = sum(right) / count
    return found


@torch.no_grad()
def judged(editor: Editor, count: int) -> dict[str, float]:
    """Share of right answers, yes or no, for every attribute, and whether it is H:MM, half of them true."""
    judge, shown, rng = editor.models.vlm, scenes(count), Random(0)
    attributes, right = ("time", *language.ATTRIBUTES), torch.zeros(1 + len(language.ATTRIBUTES))
    for i in range(0, count, BATCH):
        some = shown[i : i + BATCH]
        asked = [[_fair(clock, attribute, rng) for attribute in attributes] for clock in some]
        odds = judge.score(judge.features(squares(some)), [[Question(q.text) for q in row] for row in asked])
        truth = torch.tensor([[q.answer == "yes" for q in row] for row in asked])
        right += ((odds > 0).cpu() == truth).float().sum(0)
    return dict(zip(attributes, (right / count).tolist(), strict=True))


def _fair(clock: clocks.Clock, attribute: str, rng: Random) -> language.Question:
    """A canonical yes/no question, as often true as not; times are off by 5 to 60 minutes."""
    if attribute != "time" or rng.random() < 0.5:
        asked = language.yes_no(clock, attribute, rng, canonical=1.0)
        if attribute != "time":
            return asked
        return language.Question(language.ask_if(clock, "time")[0], "yes")
    wrong = language.with_time(clock, clock.minutes + rng.choice((-1, 1)) * rng.randint(5, 60))
    return language.Question(language.ask_if(wrong, "time")[0], "no")


def edits(editor: Editor, count: int, kind: str, settings: SearchSettings, first: int = EDITED) -> dict[str, float]:
    """Edits with the world's perfect plan, read by geometry: what the search reaches, whatever the planner does."""
    wanted = ("time",) if kind == "time" else language.PARTS
    rows = [_edit(editor, clock, i, wanted[i % len(wanted)], settings) for i, clock in enumerate(scenes(count, first))]
    means = {key: statistics.mean(row[key] for row in rows) for key in rows[0] if key != "seconds"}
    return means | {"median seconds": statistics.median(row["seconds"] for row in rows)}


def _edit(editor: Editor, clock: clocks.Clock, seed: int, kind: str, settings: SearchSettings) -> dict[str, float]:
    wanted = language.request(clock, Random(seed), kind)
    target, source, started = language.apply(clock, wanted), clocks.render(clock), time.monotonic()
    perfect, settings = parse(wanted.reply), settings.but(seed=seed)
    request = EditRequest(image=source, instruction=wanted.instruction, plan=perfect, settings=settings)
    try:
        *_, last = editor.edit(request)
        last.whole()
    except EditError as error:
        raise SystemExit(f"The clock of seed {clock.seed} was refused: {error}") from error
    seen = read(last.best, clock)
    if kind == "time":
        off = minutes_off(seen.time, target.minutes)
        nearest = minutes_off(seen.nearest, target.minutes)
        done = {f"within {m} min": float(off <= m) for m in (3, 10)}
        done["within 10 min, however bent the hands"] = float(nearest <= 10)
    else:
        done = {"done": float(getattr(seen, kind) == getattr(target, kind))}
    others = [a for a in ("rim", "face", "hands", "background", "shape") if a != kind]
    return done | {
        "kept": statistics.mean(float(getattr(seen, a) == getattr(target, a)) for a in others),
        "believed": float(all(result.after > 0.5 for result in last.checks)),
        "psnr": images.psnr(images.to_unit(last.best), images.to_unit(clocks.render(target))),
        "nfe": float(last.cost.nfe), "seconds": time.monotonic() - started,
    }  # fmt: skip


def equal_best_of_n(settings: SearchSettings, nfe: float) -> SearchSettings:
    """Best of N with at least so many network evaluations in its search, in the same steps."""
    control = settings.but(method="best-of-n", particles=1, keep=1)
    while planned_nfe(control) < nfe:
        control = control.but(particles=control.particles + 1)
    return control


def measure(editor: Editor, quick: bool, number: int, only: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """(name, figures) of every part whose name begins with `only`, one after the other."""
    small = 25 if quick else 200
    balanced = EFFORTS["balanced"]
    sections: dict[str, Callable[[], dict[str, float]]] = {
        "Autoencoder": lambda: autoencoder(editor, small),
        "Inversion, dB": lambda: inversion(editor, small // 5),
        "Flow map, rms": lambda: flow_map(editor, small // 10),
        "Hands that geometry can read, drawn by the flow map alone": lambda: drawn(editor, 2 * small),
        "VLM, open questions, share right": lambda: told(editor, ASKED),
        "VLM, yes or no, share right": lambda: judged(editor, JUDGED),
        "Plans": lambda: plans(editor, scenes(JUDGED)),
        "One plan at a time": lambda: alone(editor, scenes(small)),
        "Refusals": lambda: refusals(editor, scenes(small), elsewhere()),
    }
    for name, section in sections.items():
        if name.startswith(only):
            yield name, section()
    for kind in ("time", "colour"):
        if not f"Edits of {kind}".startswith(only):
            continue
        found = edits(editor, number, kind, balanced)
        control = equal_best_of_n(balanced, found["nfe"])
        for settings in (balanced, control):
            figures = found if settings is balanced else edits(editor, number, kind, control)
            yield f"Edits of {kind}, {settings.method}, {settings.particles} particles", figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pictures of the models, two edits of each kind")
    parser.add_argument("--edits", type=int, help="edits of each kind and method; 24, or 2 with --quick")
    parser.add_argument("--only", default="", metavar="NAME", help='a part, as "Edits of time"; others stay in OUT')
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    chosen = parser.parse_args()
    prepare()
    number = chosen.edits or (2 if chosen.quick else 24)
    found: dict[str, dict[str, float]] = {}
    if chosen.only and chosen.json.exists():
        found = json.loads(chosen.json.read_text())
    for name, figures in measure(Editor.load(), chosen.quick, number, chosen.only):
        found[name] = figures
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
        print(f"| {name} | " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()) + " |", flush=True)


if __name__ == "__main__":
    main()
