"""The command line: `python -m editor plan|edit|score|roundtrip|doctor`.

With --json one object goes to standard output. Progress goes to standard error. What a person can put right ends with
exit status 2 and one sentence on standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from editor import images
from editor.engine import EFFORTS, Editor
from editor.profiles import PROFILES
from editor.recipe import Recipe, save_result
from editor.runtime import prepare
from editor.types import EditError, EditRequest, EditUpdate, SearchSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except EditError as error:
        print(error, file=sys.stderr)
        return 2


def _plan(options: argparse.Namespace) -> int:
    found = _editor(options).plan(_load(options.image), options.instruction)
    lines = [f"{c.question} {c.expected} (weight {c.weight:g})" for c in found.checks]
    return _say(options, found.to_json(), [f"Target: {found.caption}", *lines, f"Keep: {', '.join(found.keep)}"])


def _edit(options: argparse.Namespace) -> int:
    source = _load(options.image)
    mask = images.load_mask(options.mask, source.size) if options.mask else None
    request = EditRequest(image=source, instruction=options.instruction, mask=mask, settings=_settings(options))
    editor = _editor(options)
    last = _follow(editor, request)
    save_result(options.out, last.best, Recipe.of(request, last, editor.profile.name))
    report = _report(last, request.settings, editor.profile.name)
    lines = [f"{c['question']} {c['expected']}: {c['before']:.0%} -> {c['after']:.0%}" for c in report["checks"]]
    return _say(options, report, [*lines, f"{report['nfe']} NFE, {report['seconds']:.1f} s, saved as {options.out}"])


def _follow(editor: Editor, request: EditRequest) -> EditUpdate:
    """Run an edit to its end under a progress bar on standard error."""
    with tqdm(total=request.settings.steps, file=sys.stderr, unit="step", desc="edit") as bar:
        for update in editor.edit(request):
            if update.stage == "search":
                bar.total = update.steps
                bar.set_postfix(score=f"{update.score:.2f}", refresh=False)
                bar.update(update.step - bar.n)
    return update


def _report(update: EditUpdate, settings: SearchSettings, profile: str) -> dict[str, Any]:
    """What --json tells of an edit."""
    return {
        "score": update.score,
        "source_score": update.source_score,
        "checks": [
            {"question": r.check.question, "expected": r.check.expected, "before": r.before, "after": r.after}
            for r in update.checks
        ],
        "plan": update.plan.to_json(),
        "roundtrip_psnr": update.roundtrip_psnr,
        **asdict(update.cost),
        "seed": settings.seed,
        "method": settings.method,
        "profile": profile,
    }


def _score(options: argparse.Namespace) -> int:
    editor = _editor(options)
    odds = editor.score(_load(options.image), options.questions)
    rows = [
        {"question": q, "log_odds": x, "probability": 1 / (1 + math.exp(-x))}
        for q, x in zip(options.questions, odds, strict=True)
    ]
    return _say(
        options, rows, [f"{r['question']} yes {r['probability']:.1%}, log-odds {r['log_odds']:+.2f}" for r in rows]
    )


def _roundtrip(options: argparse.Namespace) -> int:
    source, start = _load(options.image), SearchSettings(strength=options.strength).start
    found = _editor(options).invert(source, start)
    images.unfit(found.back[0], found.placement, source).save(options.out)
    report = {"psnr": found.psnr, "inversion_psnr": found.inversion_psnr, "t0": start, "nfe": found.trip.nfe}
    return _say(options, report, [
        f"{found.psnr:.1f} dB to the source, {found.inversion_psnr:.1f} dB to the autoencoder's own reconstruction",
        f"saved as {options.out}",
    ])  # fmt: skip


def _doctor(options: argparse.Namespace) -> int:
    from editor.doctor import main as doctor  # it alone needs no models

    return doctor(options.profile, options.json, vlm=options.vlm)


def _editor(options: argparse.Namespace) -> Editor:
    prepare()
    return Editor.load(options.profile, options.vlm)


def _load(path: str) -> Image.Image:
    """The picture, with what there is to know about it on standard error."""
    loaded = images.load(path)
    for notice in loaded.notices:
        print(notice, file=sys.stderr)
    return loaded.image


def _settings(options: argparse.Namespace) -> SearchSettings:
    """The effort's settings with what the command line changes. Raises EditError."""
    names = ("method", "particles", "steps", "strength", "seed")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        return EFFORTS[options.effort].but(**changes)
    except ValueError as error:
        raise EditError(str(error)) from error


def _say(options: argparse.Namespace, data: Any, lines: Sequence[str]) -> int:
    print(json.dumps(data, ensure_ascii=False) if options.json else "\n".join(lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m editor", description="Edit a picture from one sentence.")
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about)
        added.add_argument("--profile", default="studio", choices=sorted(PROFILES))
        added.add_argument("--vlm", metavar="NAME_OR_FOLDER", help="another VLM for a GPU profile; doctor lists them")
        added.add_argument("--json", action="store_true", help="print one JSON object")
        added.set_defaults(run=run)
        return added

    planned = command("plan", _plan, "Show what the VLM makes of an instruction.")
    edited = command("edit", _edit, "Edit a picture.")
    for added in (planned, edited):
        added.add_argument("image")
        added.add_argument("instruction")
    edited.add_argument("-o", "--out", type=Path, required=True, help="the PNG to write")
    edited.add_argument("--effort", default="balanced", choices=sorted(EFFORTS))
    edited.add_argument("--method", choices=("fmtt", "best-of-n"))
    edited.add_argument("--particles", type=int, help="candidates carried at the same time")
    edited.add_argument("--steps", type=int, help="time steps from the start to the image")
    edited.add_argument("--strength", type=float, help="how much may change, above 0 to 1")
    edited.add_argument("--seed", type=int)
    edited.add_argument("--mask", help="white where the edit may act")
    scored = command("score", _score, "Ask the VLM yes/no questions about a picture.")
    scored.add_argument("image")
    scored.add_argument("questions", nargs="+")
    tripped = command("roundtrip", _roundtrip, "Carry a picture back and forth with the reward off.")
    tripped.add_argument("image")
    tripped.add_argument("-o", "--out", type=Path, required=True)
    tripped.add_argument("--strength", type=float, default=EFFORTS["balanced"].strength)
    command("doctor", _doctor, "Check this machine for a profile, offline.")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
