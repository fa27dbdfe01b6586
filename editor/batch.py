"""Many edits in one go: tasks in, a row for each out; what is made already is skipped, and one failure stops none.

Every result lies in the folder of results under its picture's name, with its recipe. Beside them `journal.jsonl` grows
by a line with each result; `summarise` writes `summary.json`, `summary.csv` and the contact sheets from all rows.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editor import images
from editor.console import settings_of, told_of
from editor.contact_sheet import Pair, sheets
from editor.engine import Editor
from editor.faults import unexpected
from editor.recipe import Recipe, encode_sheet, read_recipe, save_result, write
from editor.tasks import Task
from editor.types import EditError, EditRequest, EditUpdate

JOURNAL, SUMMARY, TABLE = WRITTEN = ("journal.jsonl", "summary.json", "summary.csv")
SHEET = re.compile(r"contact-sheet-([1-9]\d{0,5})\.jpg")
DONE, SKIPPED, FAILED, WAITING = "done", "skipped", "failed", "not run"
"""States of a row: made now; made earlier with the same settings; gone wrong; not reached."""
COLUMNS = (
    "image", "instruction", "result", "state", "score", "source_score", "seed", "method", "nfe", "vlm_calls", "decodes",
    "seconds", "error",
)  # fmt: skip
"""Of summary.csv; summary.json tells more."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one task."""

    task: Task
    state: str
    error: str = ""
    """A sentence; only when failed."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """The report of the edit; empty when not run, when failed before there was a picture, or when the journal lost it.
    """

    def to_json(self) -> dict[str, Any]:
        own = {"image": str(self.task.image), "instruction": self.task.instruction, "result": self.task.result}
        return own | {"state": self.state, "error": self.error} | dict(self.told)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Edits of one profile into one folder. `values` are settings by name, for tasks that don't set their own."""

    editor: Editor
    out: Path
    values: Mapping[str, Any]

    def run(self, tasks: Sequence[Task]) -> Iterator[EditUpdate | Row]:
        """The updates of each task as it runs, then its row: one row a task, in their order.

        Results that were made earlier of the same source, instruction, mask and settings are left as they are. A task
        that fails gives a row that says so. Raises EditError only if the folder of results can't be used.
        """
        _prepare(self.out, tasks)
        journal = _journal(self.out / JOURNAL)
        for task in tasks:
            try:
                yield from self._one(task, journal)
            except EditError as error:
                yield Row(task=task, state=FAILED, error=str(error))
            except Exception:
                yield Row(task=task, state=FAILED, error=unexpected(f"The edit of {task.image.name} failed"))

    def _one(self, task: Task, journal: Mapping[str, dict[str, Any]]) -> Iterator[EditUpdate | Row]:
        loaded = images.load(task.image)
        request = EditRequest(
            image=loaded.image,
            instruction=task.instruction,
            mask=images.load_mask(task.mask, loaded.image.size) if task.mask else None,
            settings=settings_of({**self.values, **task.settings()}),
        )
        if (made := self._made(task, request)) is not None:
            yield Row(task=task, state=SKIPPED, told=journal.get(f"{task.result} {made}", {}))
            return
        for update in self.editor.edit(request):
            yield update
        name = self.editor.profile.name
        recipe = Recipe.of(request, update, name)
        told = told_of(request, update, name) | {"notices": list(loaded.notices)}
        # The journal first: a result that lies there has its line, whenever the power goes.
        _append(self.out / JOURNAL, {"key": f"{task.result} {recipe.result}", "told": told})
        save_result(self.out / task.result, update.best, recipe)
        yield Row(task=task, state=FAILED if update.broken else DONE, error=update.broken, told=told)

    def _made(self, task: Task, request: EditRequest) -> str | None:
        """The fingerprint of the task's result if it lies there already; None if it is missing or of other settings.

        Raises EditError if a file of that name is there that isn't a result.
        """
        path = self.out / task.result
        if not path.exists():
            return None
        try:
            recipe = read_recipe(path)
        except EditError as error:
            raise EditError(f"{task.result} is in the way and no result of ours: choose another folder.") from error
        whole = recipe.stopped is None and recipe.candidate == 0
        wanted = (
            self.editor.profile.name,
            request.instruction,
            request.settings,
            images.fingerprint(request.image),
            images.fingerprint(request.mask) if request.mask else None,
        )
        made = (recipe.profile, recipe.instruction, recipe.settings, recipe.source, recipe.mask)
        return recipe.result if whole and made == wanted else None


def _prepare(out: Path, tasks: Sequence[Task]) -> None:
    if any(task.image.parent.resolve() == out.resolve() for task in tasks):
        raise EditError("The results would lie among the pictures they are made of: choose another folder with -o.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / JOURNAL).exists():
            _check_free(out)
            (out / JOURNAL).touch()  # from now on what lies there is ours
    except OSError as error:
        raise EditError(f"The folder {str(out)!r} can't be made or written: choose another with -o.") from error


def _check_free(out: Path) -> None:
    """Raises EditError where a summary or contact sheet would take the place of a file that is none of ours."""
    for name in (SUMMARY, TABLE, *sorted(_sheets(out).values())):
        if (out / name).exists():
            raise EditError(f"{name} in {str(out)!r} is none of ours and would be written over: choose another folder.")


def _sheets(out: Path) -> dict[int, str]:
    """The contact sheets that lie in a folder, by their number."""
    found = ((SHEET.fullmatch(path.name), path.name) for path in out.iterdir())
    return {int(match[1]): name for match, name in found if match}


# ------------------------------------------------------------------------------------------------------------ journal


def _journal(path: Path) -> dict[str, dict[str, Any]]:
    """The reports of earlier results by name and fingerprint; lines that were cut off are passed over."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("told"), dict):
            found[str(entry.get("key"))] = entry["told"]
    return found


def _append(path: Path, entry: dict[str, Any]) -> None:
    """As a line of its own, whatever was cut off before."""
    try:
        with path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            whole = file.read(1) in (b"", b"\n")
            file.write(("" if whole else "\n").encode() + json.dumps(entry).encode() + b"\n")
    except OSError as error:
        raise EditError(f"The file {path.name!r} can't be written: check the folder and the free space.") from error


# ------------------------------------------------------------------------------------------------------------ summary


def summarise(rows: Sequence[Row], out: Path, profile: str) -> dict[str, Any]:
    """Write summary and contact sheets of all rows into the folder; what the summary says, as JSON data.

    Raises EditError if they can't be written.
    """
    count = {state: sum(row.state == state for row in rows) for state in (DONE, SKIPPED, FAILED, WAITING)}
    told = [row.to_json() for row in rows]
    summary = {
        "profile": profile,
        "out": str(out),
        **{state.replace(" ", "_"): number for state, number in count.items()},
        "contact_sheets": _write_sheets(rows, out),
        "items": told,
    }
    write(out / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1).encode(errors="backslashreplace"))
    table = io.StringIO()
    lines = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    lines.writeheader()
    lines.writerows(told)
    write(out / TABLE, table.getvalue().encode(errors="backslashreplace"))
    return summary


def _write_sheets(rows: Sequence[Row], out: Path) -> list[str]:
    """Names of the contact sheets of all results, as many as they need; those of an earlier run are replaced."""
    pairs = [
        Pair(
            before=row.task.image,
            after=out / row.task.result,
            instruction=row.task.instruction,
            source_score=row.told.get("source_score"),
            score=row.told.get("score"),
        )
        for row in rows
        if row.state in (DONE, SKIPPED)
    ]
    names = []
    for number, sheet in enumerate(sheets(pairs), 1):
        names.append(f"contact-sheet-{number}.jpg")
        write(out / names[-1], encode_sheet(sheet))
    for number, old in _sheets(out).items():
        if number > len(names):
            (out / old).unlink()
    return names
