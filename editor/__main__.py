"""The command line: `python -m editor plan|edit|reproduce|batch|score|roundtrip|doctor`.

With --json one object goes to standard output. Progress goes to standard error. What a person can put right ends with
exit status 2 and one sentence on standard error. Status 1 says that a result could not be reproduced to the pixel, that
some edits of a batch failed, or that doctor found something missing; 130 that it was interrupted: an edit then leaves
its best so far, a batch what is done.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from editor import images
from editor.baselines import METHODS
from editor.batch import FAILED, WAITING, WRITTEN, Batch, Row, summarise
from editor.console import follow, settings_of, stoppable, told_of
from editor.engine import EFFORTS, Editor
from editor.faults import INTERRUPTED
from editor.profiles import PROFILES, chosen
from editor.progress import UNTOUCHED
from editor.recipe import Recipe, read_recipe, save_result, write
from editor.reproduce import check_profile, differences, outcome, request_of, rerun
from editor.runtime import prepare
from editor.tasks import tasks
from editor.types import EditError, EditRequest, Plan, Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return options.run(options)
    except EditError as error:
        print(error, file=sys.stderr)
        return INTERRUPTED if isinstance(error, Stopped) else 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def _plan(options: argparse.Namespace) -> int:
    found = _editor(options).plan(_load(options.image), options.instruction)
    lines = [f"{c.question} {c.expected} (weight {c.weight:g})" for c in found.checks]
    return _say(options, found.to_json(), [f"Target: {found.caption}", *lines, f"Keep: {', '.join(found.keep)}"])


def _edit(options: argparse.Namespace) -> int:
    source, out = _load(options.image), _png(options.out, options.image, options.mask)
    mask = images.load_mask(options.mask, source.size) if options.mask else None
    plan, settings = _plan_of(options.plan) if options.plan else None, settings_of(vars(options))
    request = EditRequest(image=source, instruction=options.instruction, plan=plan, mask=mask, settings=settings)
    editor = _editor(options)
    with stoppable() as stop:
        last = follow(editor.edit(request, stop), settings.steps)
        save_result(out, last.best, Recipe.of(request, last, editor.profile.name))
    _tell(options, told_of(request, last, editor.profile.name))
    return 2 if last.broken else INTERRUPTED if last.stopped else 0


def _plan_of(path: Path) -> Plan:
    """The plan in a file, as the command plan prints it with --json. Raises EditError."""
    try:
        return Plan.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise EditError(f"The plan {path.name!r} can't be used: {error}") from error


def _png(out: Path, *read: str | Path | None) -> Path:
    """The file to write, none of those that are read. Raises EditError where it can't be: better before than after."""
    if out.suffix.lower() != ".png":
        raise EditError(f"The result is a PNG: give -o a name that ends in .png, not {out.name!r}.")
    if not out.parent.is_dir():
        raise EditError(f"There is no folder {str(out.parent)!r}: make it, or choose another one for -o.")
    longest = os.pathconf(out.parent, "PC_NAME_MAX")
    if len(os.fsencode(out.name)) > longest or out.is_dir() or not os.access(out.parent, os.W_OK):
        raise EditError(f"{str(out)!r} can't be written: give -o the name of a file in a folder of your own.")
    if out.exists() and any(path is not None and out.samefile(path) for path in read):
        raise EditError(f"{out.name!r} would be overwritten, and it is read: give -o another name.")
    return out


def _reproduce(options: argparse.Namespace) -> int:
    recipe, out = read_recipe(options.result), _png(options.out, options.result, options.source, options.mask)
    options.profile = options.profile or recipe.profile
    check_profile(recipe, chosen(options.profile, options.vlm))
    source = _load(options.source)
    mask = images.load_mask(options.mask, source.size) if options.mask else None
    request = request_of(recipe, source, mask)
    editor = _editor(options)
    changed = differences(recipe, editor.models.hardware.held)
    for sentence in changed:
        print(sentence, file=sys.stderr)
    last = follow(rerun(editor, request, recipe.stopped), request.settings.steps)
    again = outcome(recipe, request, last, editor.profile.name)
    same_bytes = again.png == images.read(options.result)
    write(out, again.png)
    if not again.same:
        print("The picture differs: machine, threads, weights, packages or Tiltedit are not the same.", file=sys.stderr)
    told = {"same": again.same, "same_bytes": same_bytes, "candidate": recipe.candidate, "changed": changed}
    _tell(options, told_of(request, last, editor.profile.name) | told)
    return 0 if again.same else 1


def _tell(options: argparse.Namespace, told: dict[str, Any]) -> int:
    """Print the report of an edit that is saved."""
    lines = [f"{c['question']} {c['expected']}: {c['before']:.0%} -> {c['after']:.0%}" for c in told["checks"]]
    for sentence in filter(None, (told["broken"], told["warning"])):
        print(sentence, file=sys.stderr)
    if told["untouched"]:
        lines.append(UNTOUCHED)
    return _say(options, told, [*lines, f"{told['nfe']} NFE, {told['seconds']:.1f} s, saved as {options.out}"])


def _batch(options: argparse.Namespace) -> int:
    todo = tasks(options.source, options.instruction, options.mask)
    if any(options.source.resolve() == (options.out / name).resolve() for name in WRITTEN):
        raise EditError("The table would be written over by the summary of the results: give it another name.")
    batch = Batch(editor=_editor(options), out=options.out, values=vars(options))
    rows: list[Row] = []
    try:
        with tqdm(total=len(todo), file=sys.stderr, unit="picture", desc="batch") as bar:
            for seen in batch.run(todo):
                if isinstance(seen, Row):
                    rows.append(seen)
                    bar.update()
                elif seen.stage == "search":
                    bar.set_postfix_str(f"{todo[len(rows)].image.name}, step {seen.step} of {seen.steps}")
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
    interrupted = len(rows) < len(todo)
    rows += [Row(task=task, state=WAITING) for task in todo[len(rows) :]]
    summary = summarise(rows, options.out, batch.editor.profile.name)
    for row in rows:
        if row.state == FAILED:
            print(f"{row.task.image.name}: {row.error}", file=sys.stderr)
    _say(options, summary, [
        ", ".join(f"{summary[state]} {state.replace('_', ' ')}" for state in ("done", "skipped", "failed", "not_run")),
        f"Summary and contact sheets are in {options.out}",
    ])  # fmt: skip
    return INTERRUPTED if interrupted else 1 if summary["failed"] else 0


def _score(options: argparse.Namespace) -> int:
    editor = _editor(options)
    odds = editor.score(_load(options.image), options.questions)
    rows = [
        {"question": q, "log_odds": x, "probability": 1 / (1 + math.exp(-x))}
        for q, x in zip(options.questions, odds, strict=True)
    ]
    lines = [f"{r['question']} yes {r['probability']:.1%}, log-odds {r['log_odds']:+.2f}" for r in rows]
    return _say(options, {"answers": rows}, lines)


def _roundtrip(options: argparse.Namespace) -> int:
    source, out = _load(options.image), _png(options.out, options.image)
    start = settings_of({"strength": options.strength}).start
    editor = _editor(options)
    found = editor.models.within_memory(lambda: editor.invert(source, start))
    save_result(out, images.unfit(found.back[0], found.placement, source), None)
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
    edited.add_argument("--plan", type=Path, metavar="FILE", help="a plan as plan --json prints it, changed or not")
    _add_settings(edited)
    again = command("reproduce", _reproduce, "Run the recipe of a result again: the same bytes on the same machine.")
    again.add_argument("result", help="the PNG with the recipe")
    again.add_argument("--source", required=True, help="the picture that it was made from")
    again.add_argument("--mask", help="the mask, where it was too large for the recipe")
    again.add_argument("-o", "--out", type=Path, required=True, help="the PNG to write")
    again.set_defaults(profile=None)
    many = command("batch", _batch, "Edit every picture of a folder or row of a table; goes on where it stopped.")
    many.add_argument("source", type=Path, help="a folder, or a CSV with the columns image, instruction, and settings")
    many.add_argument("instruction", nargs="?", help="for every picture of a folder")
    many.add_argument("-o", "--out", type=Path, required=True, help="the folder for results, summary, contact sheets")
    _add_settings(many)
    scored = command("score", _score, "Ask the VLM yes/no questions about a picture.")
    scored.add_argument("image")
    scored.add_argument("questions", nargs="+")
    tripped = command("roundtrip", _roundtrip, "Carry a picture back and forth with the reward off.")
    tripped.add_argument("image")
    tripped.add_argument("-o", "--out", type=Path, required=True, help="the PNG to write")
    tripped.add_argument("--strength", type=float, default=EFFORTS["balanced"].strength)
    command("doctor", _doctor, "Check this machine for a profile; downloads nothing.")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags that `settings_of` reads, and the mask."""
    parser.add_argument("--effort", default="balanced", choices=sorted(EFFORTS))
    parser.add_argument("--method", choices=sorted(METHODS))
    parser.add_argument("--particles", type=int, help="candidates carried at the same time")
    parser.add_argument("--steps", type=int, help="time steps from the start to the image")
    parser.add_argument("--strength", type=float, help="how much may change, above 0 to 1")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mask", type=Path, help="white where the edit may act")


if __name__ == "__main__":
    raise SystemExit(main())
