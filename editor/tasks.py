"""What a batch is to do: a task for every picture of a folder, or for every row of a table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editor.console import SETTINGS
from editor.types import EditError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""What a folder's pictures are called; what they are, their content says when they are loaded."""
MAX_TASKS = 10_000
MAX_TABLE = 16 * 2**20
"""Bytes of a table."""
LONGEST = 240
"""Bytes of a result's name without what comes behind: file systems have 255 for all."""
COLUMNS = ("image", "instruction", "mask", *SETTINGS)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One edit of a batch, as it was asked for; whether it can be done shows when it is run."""

    image: Path
    instruction: str
    result: str
    """Name of the PNG in the folder of results, unlike any other of the batch."""
    mask: Path | None = None
    cells: Mapping[str, str] = field(default_factory=dict)
    """Settings as the table has them: names of SETTINGS -> texts that aren't empty."""

    def settings(self) -> dict[str, Any]:
        """The cells in the types of SETTINGS. Raises EditError."""
        return {name: _value(name, text) for name, text in self.cells.items()}


def tasks(source: Path, instruction: str | None, mask: Path | None = None) -> list[Task]:
    """The tasks of a folder, which needs an instruction, or of a CSV table, which brings its own.

    `mask` is for pictures whose row names none. Raises EditError with a sentence.
    """
    if source.is_dir():
        if instruction is None:
            raise EditError("A folder needs an instruction: say after it what should change in every picture.")
        found = [{"image": name, "instruction": instruction} for name in _pictures(source)]
        folder = source
    else:
        if not source.is_file():
            raise EditError(f"There is no folder or table {str(source)!r}: check the path.")
        if instruction is not None:
            raise EditError("A table brings its own instructions: leave the instruction out, or name a folder.")
        found, folder = _rows(_text(source)), source.parent
    if not found:
        raise EditError(f"There is nothing to edit in {source.name!r}: put pictures or rows into it.")
    if len(found) > MAX_TASKS:
        raise EditError(f"{source.name!r} asks for {len(found)} edits: split it into parts of at most {MAX_TASKS}.")
    names = _results(row["image"] for row in found)
    return [_task(row, name, folder, mask) for row, name in zip(found, names, strict=True)]


def _task(row: Mapping[str, str], result: str, folder: Path, mask: Path | None) -> Task:
    return Task(
        image=folder / row["image"],
        instruction=row["instruction"],
        result=result,
        mask=folder / row["mask"] if row.get("mask") else mask,
        cells={name: row[name] for name in SETTINGS if row.get(name)},
    )


def _value(name: str, text: str) -> Any:
    try:
        return SETTINGS[name](text)
    except ValueError as error:
        kind = "whole number" if SETTINGS[name] is int else "number"
        raise EditError(f"The table's {name} must be a {kind}, not {text[:40]!r}.") from error


def _pictures(folder: Path) -> list[str]:
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _results(pictures: Iterable[str]) -> list[str]:
    """A PNG's name for each picture: its own, and "-2", "-3", ... behind one that is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for picture in pictures:
        stem = Path(picture).stem or "unnamed"
        while len(os.fsencode(stem)) > LONGEST:
            stem = stem[:-1]
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


# -------------------------------------------------------------------------------------------------------------- table


def _text(table: Path) -> str:
    if table.stat().st_size > MAX_TABLE:
        raise EditError(f"The table is too large: split it into parts of at most {MAX_TABLE // 2**20} MB.")
    try:
        return table.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EditError(f"The table {table.name!r} can't be read: check its permissions.") from error
    except UnicodeDecodeError as error:
        raise EditError(f"{table.name!r} is no table in text: save it as CSV in UTF-8.") from error


def _rows(text: str) -> list[dict[str, str]]:
    """The rows of a CSV by column, stripped, without the empty ones; commas, semicolons or tabs part the cells."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise EditError(f"The table can't be read as CSV: {error}.") from error
    columns = [name.lower() for name in lines[0]] if lines else []
    _check_columns(columns)
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) > len(columns):
            raise EditError(f"Row {number} has more cells than there are columns: put texts with commas in quotes.")
        if any(line):
            rows.append(dict.fromkeys(columns, "") | dict(zip(columns, line, strict=False)))
    return rows


def _check_columns(columns: Sequence[str]) -> None:
    unknown = [name for name in columns if name not in COLUMNS]
    if not {"image", "instruction"} <= set(columns) or unknown or len(set(columns)) < len(columns):
        said = f", not {unknown[0][:40]!r}" if unknown else ""
        raise EditError(
            f"The table's first row must name the columns image and instruction, and any of {', '.join(COLUMNS[2:])} "
            f"once{said}."
        )
