"""What the records of a benchmark say: rows with 95 % intervals, tables, plots and contact sheets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from PIL import Image

from benchmarks.cases import make
from benchmarks.records import Record
from benchmarks.sheets import sheet
from editor.recipe import encode_sheet, write

DRAWS = 2000
SMALL = 112
"""Side in pixels of the pictures of the sheet that shows all methods."""
Row = dict[str, Any]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with the ends of its 95 % interval by bootstrap over the cases; the same draws every time."""
    found = np.asarray(values, dtype=float)
    picks = np.random.default_rng(0).integers(len(found), size=(DRAWS, len(found)))
    low, high = np.quantile(found[picks].mean(axis=1), [0.025, 0.975])
    return float(found.mean()), float(low), float(high)


def rows(records: Iterable[Record]) -> list[Row]:
    """One row for every method and budget, in the order of the records."""
    groups: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.method, record.budget), []).append(record)
    return [_row(*pair, group) for pair, group in groups.items()]


def _row(method: str, budget: int, group: list[Record]) -> Row:
    def mean(name: str) -> float:
        return float(np.mean([getattr(record, name) for record in group]))

    asked = [record for record in group if record.believed is not None]
    kinds = sorted({record.kind for record in group})
    row: Row = {"method": method, "budget": budget, "cases": len(group)}
    row |= {name: interval([getattr(r, name) for r in group]) for name in ("success_3", "success_10", "psnr", "ssim")}
    changes = [record.psnr for record in group if record.kind != "nothing"]
    row["psnr_changes"] = interval(changes) if changes else None
    row["moved"] = interval([len(record.moved) for record in group])
    row["unmoved"] = float(np.mean([not record.moved for record in group]))
    row["believed"] = float(np.mean([r.believed for r in asked])) if asked else None
    row["gap"] = interval([float(r.believed) - r.success_3 for r in asked]) if asked else None
    scored = [record.score for record in group if record.score is not None]
    row["reward"] = float(np.mean(scored)) if scored else None
    row |= {name: mean(name) for name in ("nfe", "inversion_nfe", "vlm_calls", "decodes", "plan_exact")}
    row["refused"] = float(np.mean([bool(record.refused) for record in group]))
    row["seconds"] = float(np.median([record.seconds for record in group]))
    row["peak_mb"] = max(record.peak_mb for record in group)
    row["kinds"] = {kind: _of_kind([record for record in group if record.kind == kind]) for kind in kinds}
    return row


def _of_kind(group: list[Record]) -> Row:
    means = {name: float(np.mean([getattr(record, name) for record in group]))
             for name in ("success_3", "success_10", "psnr", "source_psnr")}  # fmt: skip
    return {"cases": len(group)} | means


# Tables --------------------------------------------------------------------------------------------------------------


def percent(value: tuple[float, float, float] | None) -> str:
    """A share with its interval."""
    return "" if value is None else "{:.0f} ({:.0f} to {:.0f})".format(*(100 * v for v in value))


def number(value: tuple[float, float, float], form: str = "{:.1f}") -> str:
    return form.format(value[0]) + " (" + " to ".join(form.format(v) for v in value[1:]) + ")"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda r: r["method"], "budget": lambda r: str(r["budget"]), "cases": lambda r: str(r["cases"]),
    "right, 3 min, %": lambda r: percent(r["success_3"]), "right, 10 min, %": lambda r: percent(r["success_10"]),
    "moved": lambda r: number(r["moved"], "{:.2f}"), "PSNR, dB": lambda r: number(r["psnr"]),
    "PSNR where anything was to change, dB": lambda r: "" if r["psnr_changes"] is None else number(r["psnr_changes"]),
    "SSIM": lambda r: f"{r['ssim'][0]:.3f}", "reward": lambda r: "" if r["reward"] is None else f"{r['reward']:.2f}",
    "gap, points": lambda r: percent(r["gap"]), "NFE": lambda r: f"{r['nfe']:.0f}",
    "VLM calls": lambda r: f"{r['vlm_calls']:.0f}", "decodes": lambda r: f"{r['decodes']:.0f}",
    "seconds": lambda r: f"{r['seconds']:.1f}", "memory, MB": lambda r: f"{r['peak_mb']:.0f}",
}  # fmt: skip


def table(found: list[Row]) -> str:
    """All rows in Markdown; intervals of 95 % in brackets."""
    return markdown(list(COLUMNS), [[show(row) for show in COLUMNS.values()] for row in found])


def budgets_table(found: list[Row]) -> str:
    """What is right, a time to within 3 minutes, and the median seconds, of each method at each budget, in Markdown."""
    cells = {(row["method"], row["budget"]): f"{100 * row['success_3'][0]:.0f} / {row['seconds']:.1f}" for row in found}
    methods, spent = dict.fromkeys(method for method, _ in cells), sorted({budget for _, budget in cells})
    body = [[method, *(cells.get((method, budget), "") for budget in spent)] for method in methods]
    return markdown(["right, % / seconds", *(f"{budget} NFE" for budget in spent)], body)


def kinds_table(found: list[Row]) -> str:
    """Share of each kind of edit that is right, a time to within 3 minutes, in Markdown."""
    kinds = list(dict.fromkeys(kind for row in found for kind in row["kinds"]))
    body = [[row["method"], str(row["budget"]),
             *(f"{100 * row['kinds'][k]['success_3']:.0f}" if k in row["kinds"] else "" for k in kinds)]
            for row in found]  # fmt: skip
    return markdown(["right, %", "budget", *kinds], body)


FMTT = "fmtt-map-1"
FAILURES = ("method", "budget", "right", "times right", "wrong", "of these believed", "wrong times believed",
            "second hands moved in times", "only this is right", "only FMTT is right")  # fmt: skip


def failures_table(records: Iterable[Record]) -> str:
    """What each method got wrong at each budget and whether the VLM believed it; and its edits paired with FMTT's.

    *Times* are absolute and relative; pairs are of the edits that both ran by at most as many NFE. In Markdown.
    """
    groups: dict[tuple[str, int], dict[int, Record]] = {}
    for record in records:
        groups.setdefault((record.method, record.budget), {})[record.case] = record
    return markdown(list(FAILURES), [_failures(method, budget, mine, groups.get((FMTT, budget), {}))
                                     for (method, budget), mine in groups.items()])  # fmt: skip


def _failures(method: str, budget: int, mine: dict[int, Record], fmtt: dict[int, Record]) -> list[str]:
    times = [record for record in mine.values() if record.kind in ("time", "relative")]
    wrong = [record for record in mine.values() if not record.success_3]
    believed = [record for record in wrong if record.believed]
    pairs = [(mine[case].success_3, fmtt[case].success_3) for case in mine.keys() & fmtt.keys()]
    lost = sum("second_hand" in record.moved for record in times)
    counts = [len(mine) - len(wrong), sum(record.success_3 for record in times), len(wrong), len(believed),
              sum(record in times for record in believed), lost]  # fmt: skip
    alone = ["", ""] if method == FMTT or not pairs else [pairs.count((True, False)), pairs.count((False, True))]
    return [method, *map(str, [budget, *counts, *alone])]


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# Pictures ------------------------------------------------------------------------------------------------------------

PANELS: tuple[tuple[str, str, Callable[[Row], float | None], Callable[[Row], float | None]], ...] = (
    ("NFE", "right to 3 minutes, %", lambda r: r["nfe"], lambda r: 100 * r["success_3"][0]),
    ("seconds, median", "right to 3 minutes, %", lambda r: r["seconds"], lambda r: 100 * r["success_3"][0]),
    ("right to 3 minutes, %", "PSNR to the perfect answer, dB", lambda r: 100 * r["success_3"][0],
     lambda r: r["psnr"][0]),
    ("held for right by the reward, %", "right by geometry, to 3 minutes, %",
     lambda r: None if r["believed"] is None else 100 * r["believed"], lambda r: 100 * r["success_3"][0]),
)  # fmt: skip
"""Words on the axes, and values of a row; the first two across are of spending, in logarithms."""


def plots(found: list[Row], folder: Path) -> None:
    """One PNG with all of PANELS, a line for each method over its budgets, and one of the kinds of edits."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2).flat
    methods = {method: list(group) for method, group in groupby(found, _method)}
    colours = dict(zip(methods, colormaps["turbo"](np.linspace(0.02, 0.95, len(methods))), strict=True))
    for index, (axes, (across, up, x, y)) in enumerate(zip(panels, PANELS, strict=True)):
        for place, (method, group) in enumerate(methods.items()):
            points = [point for row in group if None not in (point := (x(row), y(row)))]
            if points:
                axes.plot(*zip(*points, strict=True), marker="os^Dv"[place % 5], label=method, color=colours[method],
                          markersize=4, linewidth=1)  # fmt: skip
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        if index < 2:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
    panels[3].axline((60, 60), slope=1, color="grey", linewidth=0.6, linestyle=":")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(folder / "clockbench.png", dpi=90)
    _plot_kinds(found, folder / "clockbench-kinds.png")


def _plot_kinds(found: list[Row], path: Path) -> None:
    """A cell for each method, at its largest budget, and kind of edit: how much was right, in %."""
    largest = [max(group, key=lambda row: row["budget"]) for _, group in groupby(found, _method)]
    kinds = {kind: of["cases"] for row in largest for kind, of in row["kinds"].items()}
    order = sorted(kinds, key=kinds.__getitem__, reverse=True)
    shares = [[100 * row["kinds"][kind]["success_3"] if kind in row["kinds"] else np.nan for kind in order]
              for row in largest]  # fmt: skip
    figure = Figure(figsize=(9, 1.1 + 0.32 * len(largest)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="YlGn", vmin=0, vmax=100, aspect="auto", alpha=0.8)
    for i, j in zip(*np.nonzero(np.isfinite(shares)), strict=True):
        colour = "white" if shares[i][j] > 60 else "black"
        axes.text(j, i, f"{shares[i][j]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(order)), [f"{kind}\n({kinds[kind]})" for kind in order], fontsize=8)
    axes.set_yticks(range(len(largest)), [f"{row['method']}, {row['budget']} NFE" for row in largest], fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("right to 3 minutes, % of so many edits")
    figure.savefig(path, dpi=100)


def _method(row: Row) -> str:
    return row["method"]


def contact_sheets(records: list[Record], pictures: Path, first: int, folder: Path, rank: int = 3) -> None:
    """For each method at its largest budget: its best, median and worst cases beside source and perfect answer.

    Those that were to change nothing are left out, and so are those whose pictures do not lie in `pictures`: records
    travel without. One of each stands in cases.jpg, a row for each method.
    """
    shown = (record for record in records if picture_path(pictures, record).exists())
    changes, overview = [record for record in shown if record.kind != "nothing"], []
    for method in dict.fromkeys(record.method for record in changes):
        mine = [record for record in changes if record.method == method]
        mine = [record for record in mine if record.budget == max(r.budget for r in mine)]
        mine.sort(key=lambda r: (-r.success_3, -r.success_10, -r.psnr))
        half = max(0, (len(mine) - rank) // 2)
        chosen = dict.fromkeys((*mine[:rank], *mine[half : half + rank], *mine[-rank:]))
        drawn = sheet([_triple(record, pictures, first) for record in chosen])
        write(folder / f"cases-{method}.jpg", encode_sheet(drawn))
        overview.append([])
        for name, record in (("best", mine[0]), ("median", mine[len(mine) // 2]), ("worst", mine[-1])):
            (source, _), (answer, _), (result, told) = _triple(record, pictures, first)
            overview[-1] += [(source, method), (answer, name), (result, told.rpartition(",")[0])]
    if overview:
        write(folder / "cases.jpg", encode_sheet(sheet(overview, SMALL)))


def _triple(record: Record, pictures: Path, first: int) -> list[tuple[Image.Image, str]]:
    case = make(first, record.case)
    with Image.open(picture_path(pictures, record)) as result:
        told = f"{'right' if record.success_3 else 'wrong'}, {record.psnr:.1f} dB, moved {len(record.moved)}"
        return [(case.image, record.instruction[:32]), (case.answer, "perfect"), (result.copy(), told)]


def picture_path(pictures: Path, record: Record) -> Path:
    """Where the result of a record lies."""
    return pictures / f"{record.method}-{record.budget}" / f"{record.case:05d}.png"
